"""What the numbers say, in sentences, and what it would take to say more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from datasets import PUBLISHED
from engine.errors import agreeing, counted
from reporting.complete import CompleteBlock
from reporting.entry import ALL_IMAGES, Budget
from reporting.statistics import (
    EQUAL,
    FEWEST_SEEDS,
    FEWEST_SIGNS,
    LEVEL,
    TESTS_OF_MEANS,
    Difference,
    Friedman,
    datasets_for,
    smallest_signed_rank,
)
from reporting.words import OWN, budget_words, data_words, listed, p_text


class Answer(TypedDict):
    """Sentences: the answer, in plain words and as the tests have it; what it rests on; what those of ranks say."""

    plain: str
    answer: str
    evidence: list[str]
    tests: list[str]
    more: list[str]  # what belongs to the answer in plain words


def answer_from_rank_tests(
    block: CompleteBlock,
    average: Mapping[str, float],
    tests: Friedman,
    difference: float,
    cliques: Sequence[Sequence[str]],
) -> Answer:
    """Return the answer of rank tests over datasets; `difference` is the critical one, which makes the `cliques`."""
    names = _by_rank(block, average)
    friedman = _friedman_sentence(block, tests)
    nemenyi = f"Nemenyi: average ranks that differ by less than {difference:.2f} can't be told apart at {LEVEL}."
    evidence = [_ranks_sentence(average, names), _mean_sentence(block, names), friedman, nemenyi, *_about(block)]
    said = [f"{friedman} {nemenyi}"]
    if cliques:
        together = "; ".join(listed(clique, len(clique)) for clique in cliques)
        said.append(f"Not distinguishable from each other: {together}.")
    plain, answer = _winner(block, average, tests, difference)
    return {"plain": plain, "more": [], "answer": answer, "evidence": evidence, "tests": said}


def _winner(block: CompleteBlock, average: Mapping[str, float], tests: Friedman, difference: float) -> tuple[str, str]:
    """The answer in plain words, and as the tests have it."""
    names = _by_rank(block, average)
    best = names[0]
    first = [name for name in names if average[name] - average[best] < EQUAL]
    others = [name for name in names if name not in first]
    even = [name for name in others if average[name] - average[best] < difference]
    equal = "equal " if len(first) > 1 else ""
    them = "them" if equal else "it"
    lead = listed(first)
    head = f"{equal}best average rank over {_datasets(block)}, {average[best]:.2f} among {len(names)} backbones"
    are = "are" if equal else "is"
    close = f"Too close to tell: over {_datasets(block)}, {lead} {are} ahead by no more than chance"
    if tests.p_f >= LEVEL:
        return (
            f"{close} gives.",
            f"No winner: over {_datasets(block)}, the average ranks of {len(names)} backbones do not differ "
            f"significantly ({p_text(tests.p_f)}). {lead} {'share' if equal else 'has'} the best, {average[best]:.2f}.",
        )
    take = f"Take {lead.replace(' and ', ' or ')}: the best over {_datasets(block)}"
    if not even:
        return f"{take}, by more than chance gives.", f"{lead}: {head}, significantly better than every other."
    if len(even) == len(others):
        return f"{close} gives.", f"{lead}: {head}, but no other can be told apart from {them}."
    worse = len(others) - len(even)
    rest = "the other one is" if worse == 1 else f"the other {worse} are"
    return (
        f"{take}; {listed(even)} {'comes' if len(even) == 1 else 'come'} so close that chance may be all.",
        f"{lead}: {head}. {listed(even)} can't be told apart from {them}; {rest} significantly worse.",
    )


def _friedman_sentence(block: CompleteBlock, tests: Friedman) -> str:
    backbones, datasets = len(block.backbones), len(block.independent)
    freedom = f"F({backbones - 1}, {(backbones - 1) * (datasets - 1)})"
    f = "is infinite, the ranks being the same on every dataset" if tests.f is None else f"= {tests.f:.2f}"
    return (
        f"Friedman: χ²({backbones - 1}) = {tests.chi2:.2f}, {p_text(tests.p)}; Iman-Davenport: {freedom} {f}, "
        f"{p_text(tests.p_f)}."
    )


def answer_from_signed_ranks(block: CompleteBlock, average: Mapping[str, float], p: float, differing: int) -> Answer:
    """Return the answer of a signed-rank test of two backbones, whose p-value is `p`; `differing`: of how many."""
    best, other = _by_rank(block, average)
    test = f"{p_text(p)} by Wilcoxon's signed-rank test over {_datasets(block)}"
    if differing < FEWEST_SIGNS:
        test += f", of which only {differing} {'differs' if differing == 1 else 'differ'}: {_least(differing)}"
    plain = f"Too close to tell: over {_datasets(block)}, {best} and {other} differ by no more than chance gives."
    if not differing:
        answer = f"No winner: {best} and {other} are equal on each of {_datasets(block)}."
    elif p < LEVEL:
        plain = f"Take {best}: better than {other} over {_datasets(block)}, by more than chance gives."
        answer = f"{best}: significantly better than {other} ({test})."
    else:
        answer = f"No winner: {best} and {other} can't be told apart ({test})."
    evidence = [_ranks_sentence(average, [best, other]), _mean_sentence(block, block.backbones), *_about(block)]
    return {
        "plain": plain,
        "more": [],
        "answer": answer,
        "evidence": evidence,
        "tests": [f"{best} against {other}: {test}."],
    }


def _least(differing: int) -> str:
    least = p_text(smallest_signed_rank(differing))
    return f"it can't give less than {least} over {counted(differing, 'dataset')}, {FEWEST_SIGNS} are needed"


def pair_says(excludes: bool, p: float) -> str:
    """Say what the bootstrap and the signed-rank test make of a pair; `excludes`: whether the interval excludes 0."""
    test = f"Wilcoxon's signed-rank test ({p_text(p)})"
    if not excludes:
        return "The 95 % interval of the bootstrap includes 0"
    if p < LEVEL:
        return f"The 95 % interval of the bootstrap excludes 0, and {test} agrees"
    return f"No claim: the 95 % interval of the bootstrap excludes 0, but {test} does not support a difference"


def answer_from_means(
    block: CompleteBlock,
    scope: str,
    ordered: Sequence[str],
    tested: Mapping[str, tuple[Mapping[str, str], Mapping[str, Difference]]],
) -> Answer:
    """Return the answer where there are too few datasets for rank tests, but seeds enough on each.

    `tested` has what outcomes.marks() gives, by dataset.
    """
    marks = {dataset: of for dataset, (of, _) in tested.items()}
    first = _highest(block.means, ordered)
    others = [name for name in ordered if name not in first]
    tied = [name for name in others if all(marks[dataset][name] for dataset in block.datasets)]
    best_there = "the best" if len(block.datasets) == 1 else "the best on each of them"
    if tied:
        rest = f"; {listed(tied)} {'is' if len(tied) == 1 else 'are'} not significantly below {best_there}"
    elif not others:
        rest = ""
    elif len(block.datasets) == 1:
        rest = f"; {_each(others)} is significantly below {'them' if len(first) > 1 else 'it'}"
    else:
        everywhere = not any(marks[dataset][name] for dataset in block.datasets for name in others)
        rest = f"; {_each(others)} is significantly below the best on {'each' if everywhere else 'some'} of them"
    of_scope = {"overall": "datasets", OWN: "datasets of your own"}.get(scope, f"{scope} datasets")
    few = f"Too few {of_scope} for rank tests ({len(block.independent)} of {block.fewest})."
    if block.fewest == FEWEST_SIGNS and len(block.independent) > 1:
        few = f"{few[:-1]}: that of two backbones is Wilcoxon's signed-rank test, and {_least(len(block.independent))}."
    where, value = listed([block.name(dataset) for dataset in block.datasets]), f"{block.means[first[0]]:.2%}"
    if len(first) > 1:
        head = f"{listed(first)} are equal, {value}: {'the best' if others else 'their'} mean top-1 on {where}"
    else:
        head = f"{first[0]}: best mean top-1 on {where}, {value}"
    by_dataset = [_best_sentence(block, dataset, ordered, *tested[dataset]) for dataset in block.datasets]
    unpaired = [block.name(d) for d, (_, tests) in tested.items() if any(test.unpaired for test in tests.values())]
    how = [f"{unpaired_words(unpaired)}."] if unpaired else []
    evidence = [*by_dataset, f"Significance at {LEVEL}: {TESTS_OF_MEANS}.", *how, *_about(block)]
    plain = f"Take {listed(first).replace(' and ', ' or ')}: the best on average over {_datasets(block)}, {value}"
    plain += f"; {listed(tied)} may be as good, by chance" if tied else ""
    more = _elsewhere(block, first, marks)
    more += [f"Whether that holds on other datasets takes {block.fewest} of them to tell."]
    answer = f"{head}{rest}." if is_alone(block, scope) else f"{head}{rest}. {few}"
    return {"plain": f"{plain}.", "more": more, "answer": answer, "evidence": evidence, "tests": []}


def _elsewhere(block: CompleteBlock, first: Sequence[str], marks: Mapping[str, Mapping[str, str]]) -> list[str]:
    """On which datasets others are better than the best on average, by more than chance gives."""
    worse = [dataset for dataset in block.datasets if not all(marks[dataset][name] for name in first)]
    there = {d: listed([name for name, mark in marks[d].items() if mark == "best"]) for d in worse}
    parts = [f"{names} on {block.name(dataset)}" for dataset, names in there.items()]
    return (
        [f"Not on each: better, by more than chance gives, {agreeing(len(parts), 'are')} {listed(parts)}."]
        if parts
        else []
    )


def _each(others: Sequence[str]) -> str:
    return others[0] if len(others) == 1 else "every other"


def unpaired_words(datasets: Sequence[str]) -> str:
    """Say where test images could not be paired, and what was done there."""
    return f"Not paired by image, predictions being absent or unfit, but taken for two samples: {listed(datasets)}"


def _best_sentence(
    block: CompleteBlock,
    dataset: str,
    ordered: Sequence[str],
    marks: Mapping[str, str],
    tests: Mapping[str, Difference],
) -> str:
    top = [name for name in ordered if marks[name] == "best"]
    even = [name for name in ordered if marks[name] == "tied"]
    below = _each([name for name in ordered if not marks[name]]) if len(top) < len(ordered) else ""
    also = f"not significantly below: {listed(even, len(even))}" if even else f"{below} is significantly below"
    also = f"; {also}" if len(top) < len(ordered) else ""
    equal = ", equal" if len(top) > 1 else ""
    images = block.cells[dataset, top[0]].runs[0].version.test_images
    of_images = f" of {counted(images, 'test image')}"
    sentence = (
        f"{block.name(dataset)}: best {listed(top)}{equal}, {block.cells[dataset, top[0]].mean():.2%}{of_images}{also}."
    )
    if few := [name for name in even if (tests[name].differing or FEWEST_SIGNS) < FEWEST_SIGNS]:
        those = ", ".join(f"{name} ({tests[name].differing})" for name in few)
        sentence += f" Test images that tell the best apart from {those}: no test is significant under {FEWEST_SIGNS}."
    return sentence


def answer_without_evidence(block: CompleteBlock, scope: str, budget: Budget, ordered: Sequence[str]) -> Answer:
    """Say that there is not enough evidence, why, and what there is."""
    data = data_words(scope)
    where = f" on {data}" if data else ""
    part = "" if budget == ALL_IMAGES else f" with {budget_words(budget)}"
    if not block.asked:
        reason = f"no finished run{where}{part}"
    elif len(block.backbones) < 2:
        ran = f"only {block.backbones[0]} was run" if block.backbones else "no backbone was run on half of the datasets"
        if block.backbones and block.seldom:
            ran += f" on at least half of the {counted(len(block.asked), 'dataset')}"
            where = where.replace(" on ", " of ")
        reason = ran + where + part
    elif not block.datasets:
        reason = f"no dataset on which all of {listed(block.backbones)} were run"
    else:
        all_of = f"all {len(block.cells)}" if len(block.short) == len(block.cells) else str(len(block.short))
        of_all = "" if len(block.short) == len(block.cells) else f" of {len(block.cells)}"
        have = "has" if len(block.short) == 1 else "have"
        reason = f"{all_of}{of_all} cells {have} fewer than {FEWEST_SEEDS} seeds"
    evidence, plain = [], f"Nothing can be said yet: {reason}."
    if len(ordered) > 1 and block.datasets:
        first = _highest(block.means, ordered)
        if len(first) < len(ordered):
            best = f"{listed(first).replace(' and ', ' or ')}: the best on average over {_datasets(block)}"
            chance = f"that may be chance: {FEWEST_SEEDS} trainings of each will tell"
            plain = f"So far, take {best}, {block.means[first[0]]:.2%}; {chance}."
        has = (
            "has the highest"
            if len(first) == 1
            else "have equal and the highest"
            if len(first) < len(ordered)
            else "have equal"
        )
        so_far = f"So far, without a claim: {listed(first)} {has} mean top-1 over {_datasets(block)}"
        evidence.append(f"{so_far}, {block.means[first[0]]:.2%}.")
    about = _about(block) if block.datasets else []
    return {
        "plain": plain,
        "more": [],
        "answer": f"Not enough evidence: {reason}.",
        "evidence": [*evidence, *about],
        "tests": [],
    }


def is_alone(block: CompleteBlock, scope: str) -> bool:
    """Whether there is a single dataset, such that ranks over several are not the question."""
    return scope == "overall" and len(block.asked) == 1


def missing(block: CompleteBlock, scope: str, kind: str, cliques: bool) -> list[str]:
    """List what it would take to say more, in numbers; `cliques`: whether some backbones can't be told apart."""
    lines = []
    if not block.asked:
        known = [dataset.name for dataset in PUBLISHED if scope in ("overall", dataset.domain)]
        which = f" ({listed(known)})" if known else ""
        lines.append(f"{FEWEST_SEEDS} seeds of at least two backbones on a dataset{which}")
    elif len(block.backbones) < 2:
        more = "one more backbone" if block.backbones else "two backbones"
        lines.append(f"{FEWEST_SEEDS} seeds of at least {more} on the same datasets")
    if block.asked and not block.datasets and len(block.backbones) > 1:
        lines += [f"{line['what']}: {line['why']}" for line in block.left_out if line["what"].startswith("dataset")]
    if short := block.short:
        runs = sum(FEWEST_SEEDS - seeds for seeds in short.values())
        cells = [f"{block.cells[key].dataset_name}/{key[1]} has {seeds}" for key, seeds in short.items()]
        lines.append(f"{counted(runs, 'more run')} for {FEWEST_SEEDS} seeds in every cell: {listed(cells)}")
    lacking = block.fewest - len(block.independent)
    if block.datasets and len(block.backbones) > 1 and lacking > 0 and not is_alone(block, scope):
        which = (
            "the rank test of two backbones, which takes" if block.fewest == FEWEST_SIGNS else "rank tests, which take"
        )
        lines.append(f"{counted(lacking, 'more dataset')} for {which} {block.fewest}")
    if kind == "tested" and len(block.backbones) > 2 and cliques:
        needed = datasets_for(1, len(block.backbones))
        lines.append(
            "more datasets: the critical difference shrinks with the square root of their number, "
            f"and {needed:,} tell average ranks apart that differ by 1"
        )
    return lines


def missing_of_pair(datasets: int, seeds: int) -> str:
    """Say why two backbones can't be compared that share so many datasets, and on each so many seeds at least."""
    if not datasets:
        return "no dataset and seed that both were run with"
    parts = [f"{counted(datasets, 'shared dataset')} of {FEWEST_SIGNS}"] if datasets < FEWEST_SIGNS else []
    parts += [f"{counted(seeds, 'shared seed')} of {FEWEST_SEEDS} on some dataset"] if seeds < FEWEST_SEEDS else []
    return ", ".join(parts)


def _by_rank(block: CompleteBlock, average: Mapping[str, float]) -> list[str]:
    return sorted(block.backbones, key=lambda name: (average[name], -block.means[name]))


def _highest(means: Mapping[str, float], ordered: Sequence[str]) -> list[str]:
    highest = max(means.values())
    return [name for name in ordered if highest - means[name] < EQUAL]


def _ranks_sentence(average: Mapping[str, float], names: Sequence[str]) -> str:
    return f"Average ranks: {_shown(average, names, '.2f')}."


def _mean_sentence(block: CompleteBlock, names: Sequence[str]) -> str:
    return f"Mean top-1 over these datasets: {_shown(block.means, names, '.2%')}."


def _shown(values: Mapping[str, float], names: Sequence[str], form: str) -> str:
    return ", ".join(f"{name} {format(values[name], form)}" for name in names)


def _about(block: CompleteBlock) -> list[str]:
    seeds = [len(cell.runs) for cell in block.cells.values()]
    span = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    word = "seed" if max(seeds) == 1 else "seeds"
    lines = [f"{span} {word} a cell, which is a backbone on a dataset; {counted(len(seeds), 'cell')}."]
    return lines + [
        f"{listed([block.name(each) for each in several])} show the same subjects: their mean counts as one dataset."
        for several in block.independent
        if len(several) > 1
    ]


def _datasets(block: CompleteBlock) -> str:
    rows = f" ({len(block.datasets)} rows)" if len(block.independent) < len(block.datasets) else ""
    return counted(len(block.independent), "dataset") + rows
