"""What the numbers say, in sentences, and what it would take to say more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reporting.published import DATASETS
from reporting.statistics import EQUAL, FEWEST_DATASETS, FEWEST_PAIRS, FEWEST_SEEDS, LEVEL, Friedman

if TYPE_CHECKING:
    from reporting.ranking import Block

MOST_NAMED = 5
OWN = "own"  # the domain of datasets that whoever runs this brought along


def of_tests(
    block: Block, average: Mapping[str, float], tests: Friedman, difference: float, different: bool
) -> tuple[str, list[str]]:
    """The answer of rank tests over datasets, and its evidence."""
    names = _by_rank(block, average)
    best = names[0]
    first = [name for name in names if average[name] - average[best] < EQUAL]
    others = [name for name in names if name not in first]
    even = [name for name in others if average[name] - average[best] < difference]
    equal = "equal " if len(first) > 1 else ""
    them = "them" if equal else "it"
    lead = listed(first)
    head = f"{equal}best average rank over {_datasets(block)}, {average[best]:.2f} among {len(names)} backbones"
    if not different:
        answer = (
            f"No winner: over {_datasets(block)}, the average ranks of {len(names)} backbones do not differ "
            f"significantly ({p_text(tests.p_f)}). {lead} {'share' if equal else 'has'} the best, {average[best]:.2f}."
        )
    elif not even:
        answer = f"{lead}: {head}, significantly better than every other."
    elif len(even) == len(others):
        answer = f"{lead}: {head}, but no other can be told apart from {them}."
    else:
        worse = len(others) - len(even)
        rest = "the other one is" if worse == 1 else f"the other {worse} are"
        answer = f"{lead}: {head}. {listed(even)} can't be told apart from {them}; {rest} significantly worse."
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
    first = _highest(means, ordered)
    others = [name for name in ordered if name not in first]
    tied = [name for name in others if all(marks[dataset][name] for dataset in block.datasets)]
    best_there = "the best" if len(block.datasets) == 1 else "the best on each of them"
    if tied:
        rest = f"; {listed(tied)} {'is' if len(tied) == 1 else 'are'} not significantly below {best_there}"
    elif not others:
        rest = ""
    elif len(block.datasets) == 1:
        rest = f"; every other is significantly below {'them' if len(first) > 1 else 'it'}"
    else:
        rest = "; every other is significantly below the best on some of them"
    of_scope = {"overall": "datasets", OWN: "datasets of your own"}.get(scope, f"{scope} datasets")
    few = f"Too few {of_scope} for rank tests ({len(block.independent)} of {FEWEST_DATASETS})."
    where, value = listed(block.datasets), f"{means[first[0]]:.2%}"
    if len(first) > 1:
        head = f"{listed(first)} are equal, {value}: {'the best' if others else 'their'} mean top-1 on {where}"
    else:
        head = f"{first[0]}: best mean top-1 on {where}, {value}"
    evidence = []
    for dataset in block.datasets:
        top = [name for name in ordered if marks[dataset][name] == "best"]
        even = [name for name in ordered if marks[dataset][name] == "tied"]
        also = f"not significantly below: {listed(even, len(even))}" if even else "every other is significantly below"
        also = f"; {also}" if len(top) < len(ordered) else ""
        equal = ", equal" if len(top) > 1 else ""
        evidence.append(f"{dataset}: best {listed(top)}{equal}, {block.cells[dataset, top[0]].mean():.2%}{also}.")
    test = (
        f"Significance at {LEVEL}: Welch's t tests over seeds, paired ones where {FEWEST_PAIRS} seeds are shared, "
        "Holm-corrected."
    )
    return f"{head}{rest}. {few}", [*evidence, test, *_about(block)]


def none(
    block: Block, scope: str, budget: str, means: Mapping[str, float], ordered: Sequence[str]
) -> tuple[str, list[str]]:
    """That there is not enough evidence, why, and what there is."""
    where = {"overall": "", OWN: " on your own data"}.get(scope, f" on {scope} data")
    part = "" if budget == "all" else f" with {budget}"
    if not block.asked:
        reason = f"no finished run{where}{part}"
    elif len(block.backbones) < 2:
        ran = f"only {block.backbones[0]} was run" if block.backbones else "no backbone was run on half of the datasets"
        if block.backbones and block.seldom:
            ran += f" on at least half of the {count(block.asked, 'dataset')}"
            where = where.replace(" on ", " of ")
        reason = ran + where + part
    elif not block.datasets:
        reason = f"no dataset on which all of {listed(block.backbones)} were run"
    else:
        all_of = f"all {len(block.cells)}" if len(block.short) == len(block.cells) else str(len(block.short))
        of_all = "" if len(block.short) == len(block.cells) else f" of {len(block.cells)}"
        reason = f"{all_of}{of_all} cells have fewer than {FEWEST_SEEDS} seeds"
    evidence = []
    if len(ordered) > 1 and block.datasets:
        first = _highest(means, ordered)
        has = (
            "has the highest"
            if len(first) == 1
            else "have equal and the highest"
            if len(first) < len(ordered)
            else "have equal"
        )
        evidence.append(
            f"So far, without a claim: {listed(first)} {has} mean top-1 over {_datasets(block)}, {means[first[0]]:.2%}."
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


def capital(text: str) -> str:
    """The text with its first letter as at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


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


def _highest(means: Mapping[str, float], ordered: Sequence[str]) -> list[str]:
    highest = max(means.values())
    return [name for name in ordered if highest - means[name] < EQUAL]


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
