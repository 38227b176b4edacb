"""What the numbers say, in sentences, and what it would take to say more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reporting.published import DATASETS
from reporting.statistics import FEWEST_DATASETS, FEWEST_SEEDS, LEVEL, Friedman

if TYPE_CHECKING:
    from reporting.ranking import Block

MOST_NAMED = 5


def of_tests(
    block: Block, average: Mapping[str, float], tests: Friedman, difference: float, different: bool
) -> tuple[str, list[str]]:
    """The answer of rank tests over datasets, and its evidence."""
    names = _by_rank(block, average)
    best, others = names[0], names[1:]
    even = [name for name in others if average[name] - average[best] < difference]
    head = f"best average rank over {_datasets(block)}, {average[best]:.2f} among {len(names)} backbones"
    if not different:
        answer = (
            f"No winner: over {_datasets(block)}, the average ranks of {len(names)} backbones do not differ "
            f"significantly ({p_text(tests.p_f)}). {best} has the best, {average[best]:.2f}."
        )
    elif not even:
        answer = f"{best}: {head}, significantly better than every other."
    elif len(even) == len(others):
        answer = f"{best}: {head}, but no other can be told apart from it."
    else:
        worse = len(others) - len(even)
        rest = "the other one is" if worse == 1 else f"the other {worse} are"
        answer = f"{best}: {head}. {listed(even)} can't be told apart from it; {rest} significantly worse."
    backbones, datasets = len(names), len(block.independent)
    freedom = f"F({backbones - 1}, {(backbones - 1) * (datasets - 1)})"
    f = "is infinite, the ranks being the same on every dataset" if tests.f is None else f"= {tests.f:.2f}"
    evidence = [
        f"Average ranks: {_shown(average, names, '.2f')}.",
        _mean_sentence(block, names),
        f"Friedman: chi2({backbones - 1}) = {tests.chi2:.2f}, {p_text(tests.p)}; Iman-Davenport: {freedom} {f}, "
        f"{p_text(tests.p_f)}.",
        f"Nemenyi: average ranks that differ by less than {difference:.2f} can't be told apart at {LEVEL}.",
        *_about(block),
    ]
    return answer, evidence


def of_two(block: Block, average: Mapping[str, float], p: float) -> tuple[str, list[str]]:
    """The answer of a signed-rank test of two backbones, and its evidence."""
    best, other = _by_rank(block, average)
    told = f"{p_text(p)} by Wilcoxon's signed-rank test over {_datasets(block)}"
    if p < LEVEL:
        answer = f"{best}: significantly better than {other} ({told})."
    else:
        answer = f"No winner: {best} and {other} can't be told apart ({told})."
    return answer, [f"Average ranks: {_shown(average, [best, other], '.2f')}.", _mean_sentence(block), *_about(block)]


def of_means(
    block: Block,
    scope: str,
    means: Mapping[str, float],
    ordered: Sequence[str],
    marks: Mapping[str, Mapping[str, str]],
) -> tuple[str, list[str]]:
    """The answer where there are too few datasets for rank tests, but seeds enough on each, and its evidence."""
    best = ordered[0]
    tied = [name for name in ordered[1:] if all(marks[dataset][name] for dataset in block.datasets)]
    each = "it" if len(block.datasets) == 1 else "the best on each of them"
    if tied:
        rest = f"{listed(tied)} {'is' if len(tied) == 1 else 'are'} statistically tied with {each}"
    elif len(block.datasets) == 1:
        rest = "every other is significantly below it"
    else:
        rest = "no other is best or tied with the best on each of them"
    where = f"{scope} " if scope != "overall" else ""
    few = f"Too few {where}datasets for rank tests ({len(block.independent)} of {FEWEST_DATASETS})."
    answer = f"{best}: best mean top-1 on {listed(block.datasets)}, {means[best]:.2%}; {rest}. {few}"
    evidence = []
    for dataset in block.datasets:
        top = max(block.backbones, key=lambda name: block.cells[dataset, name].mean())
        even = [name for name in ordered if name != top and marks[dataset][name]]
        also = f"tied: {listed(even, len(even))}" if even else "no other is tied"
        evidence.append(f"{dataset}: best {top}, {block.cells[dataset, top].mean():.2%}; {also}.")
    test = f"Tied: not significantly below the best at {LEVEL}, t tests over seeds, Holm-corrected."
    return answer, [*evidence, test, *_about(block)]


def none(
    block: Block, scope: str, budget: str, means: Mapping[str, float], ordered: Sequence[str]
) -> tuple[str, list[str]]:
    """That there is not enough evidence, why, and what there is."""
    where = "" if scope == "overall" else f" on {scope} data"
    part = "" if budget == "all" else f" with {budget}"
    if not block.asked:
        reason = f"no finished run{where}{part}"
    elif len(block.backbones) < 2:
        ran = f"only {block.backbones[0]} was run" if block.backbones else "no backbone was run on half of the datasets"
        reason = ran + where + part
    elif not block.datasets:
        reason = f"no dataset on which all of {listed(block.backbones)} were run"
    else:
        all_of = f"all {len(block.cells)}" if len(block.short) == len(block.cells) else str(len(block.short))
        of_all = "" if len(block.short) == len(block.cells) else f" of {len(block.cells)}"
        reason = f"{all_of}{of_all} cells have fewer than {FEWEST_SEEDS} seeds"
    evidence = []
    if len(ordered) > 1 and block.datasets:
        best = ordered[0]
        evidence.append(
            f"So far, without a claim: {best} has the highest mean top-1 over {_datasets(block)}, {means[best]:.2%}."
        )
    return f"Not enough evidence: {reason}.", [*evidence, *(_about(block) if block.datasets else [])]


def missing(block: Block, scope: str, kind: str, found: Mapping[str, Any]) -> list[str]:
    """What it would take to say more, in numbers."""
    told = []
    if not block.asked:
        known = [key for key, domain in DATASETS.items() if scope in ("overall", domain)]
        which = f" ({listed(known)})" if known else ""
        told.append(f"{FEWEST_SEEDS} seeds of at least two backbones on a dataset{which}")
    elif len(block.backbones) < 2:
        more = "one more backbone" if block.backbones else "two backbones"
        told.append(f"{FEWEST_SEEDS} seeds of at least {more} on the same datasets")
    if block.asked and not block.datasets and len(block.backbones) > 1:
        told += [f"{line['what']}: {line['why']}" for line in block.left_out if line["what"].startswith("dataset")]
    if short := block.short:
        runs = sum(FEWEST_SEEDS - seeds for seeds in short.values())
        cells = [f"{d}/{b} has {seeds}" for (d, b), seeds in short.items()]
        told.append(f"{count(runs, 'more run')} for {FEWEST_SEEDS} seeds in every cell: {listed(cells)}")
    lacking = FEWEST_DATASETS - len(block.independent)
    if block.datasets and len(block.backbones) > 1 and lacking > 0:
        told.append(f"{count(lacking, 'more dataset')} for rank tests, which take {FEWEST_DATASETS}")
    if kind == "tested" and len(block.backbones) > 2 and found["groups"]:
        told.append("more datasets: the critical difference shrinks with the square root of their number")
    return told


def of_pair(datasets: int, seeds: int) -> str:
    """Why two backbones can't be compared."""
    if not datasets:
        return "no dataset and seed that both were run with"
    parts = [f"{count(datasets, 'shared dataset')} of {FEWEST_DATASETS}"] if datasets < FEWEST_DATASETS else []
    parts += [f"{count(seeds, 'shared seed')} of {FEWEST_SEEDS} on some dataset"] if seeds < FEWEST_SEEDS else []
    return ", ".join(parts)


def p_text(p: float) -> str:
    """A p-value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Names in a row; of many, the first few and how many more."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _by_rank(block: Block, average: Mapping[str, float]) -> list[str]:
    means = dict(zip(block.backbones, block.scores.mean(axis=0).tolist(), strict=True))
    return sorted(block.backbones, key=lambda name: (average[name], -means[name]))


def _mean_sentence(block: Block, names: Sequence[str] | None = None) -> str:
    means = dict(zip(block.backbones, block.scores.mean(axis=0).tolist(), strict=True))
    return f"Mean top-1 over these datasets: {_shown(means, names or block.backbones, '.2%')}."


def _shown(values: Mapping[str, float], names: Sequence[str], form: str) -> str:
    return ", ".join(f"{name} {format(values[name], form)}" for name in names)


def _about(block: Block) -> list[str]:
    seeds = [len(cell.runs) for cell in block.cells.values()]
    span = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    told = [f"{span} {'seed' if max(seeds) == 1 else 'seeds'} a cell; {count(len(seeds), 'cell')}."]
    if len(block.independent) < len(block.datasets):
        told.append("The magnifications of BreakHis show the same patients: their mean counts as one dataset.")
    return told


def _datasets(block: Block) -> str:
    rows = f" ({len(block.datasets)} rows)" if len(block.independent) < len(block.datasets) else ""
    return count(len(block.independent), "dataset") + rows


def count(number: int, noun: str) -> str:
    """So many of something, in the singular or the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
