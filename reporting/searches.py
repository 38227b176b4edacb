"""What to say of the short runs of a search: what it recommends, and never that one of them is to be taken."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.advice import Advice, Command
from reporting.comparable import ComparableGroup
from reporting.entry import Budget, Entry
from reporting.one_dataset import share
from reporting.rank_results import Found
from reporting.search_results import Search
from reporting.words import capital

SHORT = "These are short runs by which rank.py chose: they say little of how good a backbone is after a full training."
PERCENT = 100


def _search_of(example: Entry, found: Sequence[Found]) -> Search | None:
    """The newest search on the dataset of a run, by its test part."""
    key, test_part = example.version.key.partition(" (")[0], example.version.test_part
    for each in found:  # the newest first
        data = each.result.dataset
        if each.search and each.search.rungs and (data.key, data.test_part) == (key, test_part):
            return each.search
    return None


def advise(group: ComparableGroup, budget: Budget, found: Sequence[Found]) -> Advice:
    """What to say of a group of such runs; `found` are the results of rank.py, the newest first."""
    headlines, more, lines, settled = [], [], list[Command](), True
    for key, example in group.examples.items():
        cells = [cell for (of, _, amount), cell in group.cells.items() if of == key and amount == budget]
        if not cells:
            continue
        search = _search_of(example, found)
        first = max(cells, key=lambda cell: cell.mean())
        name = f"{example.name}: " if len(group.datasets) > 1 else ""
        if search and search.recommendation:
            headlines.append(f"{name}{recommended(search)}")
            more += [f"{name}{line}" for line in (*cost(search), *ended(search))]
            lines += _in_full(name, search)
        else:
            highest = f"the highest is {first.backbone}, {share(first.mean())} of the test images right"
            headlines.append(f"{name}only short runs of a search ({group.setting.search}): {highest}.")
        settled &= bool(search and search.complete and search.told_apart)
    return {
        "headline": capital(headlines[0]),
        "more": [*headlines[1:], *more, SHORT],
        "open": not settled,
        "taken": None,
        "commands": lines,
    }


def recommended(search: Search) -> str:
    """What a search recommends, and whether it is told apart from its runner-up."""
    head = f"By little fine-tuning, the search recommends {search.recommendation}"
    if not search.runner_up:
        return f"{head}."
    if search.told_apart is None:
        return f"{head}; its runner-up is {search.runner_up}."
    told = "is behind it by more than chance gives" if search.told_apart else "can't be told apart from it"
    return f"{head}; its runner-up, {search.runner_up}, {told}."


def cost(search: Search) -> list[str]:
    """What a search cost, against the training of all in full."""
    if not search.spent_images:
        return []
    line = f"It went through {search.spent_images:,.0f} training images"
    if search.full_grid_images:
        part = PERCENT * search.spent_images / search.full_grid_images
        line += f", {part:.3g} % of the {search.full_grid_images:,.0f} that training all of them in full takes"
    return [f"{line}."]


def ended(search: Search) -> list[str]:
    """How a search ended, where that is not by its plan."""
    if search.stopped_early:
        return ["It stopped early: the first was above the 95 % intervals of all that were still in."]
    return ["It has not come to its end: the same command of rank.py goes on."] if search.complete is False else []


def _in_full(name: str, search: Search) -> list[Command]:
    """The command that trains the recommended one in full, as the search has it."""
    why = f"{name}To train {search.recommendation} in full"
    return [{"why": why, "command": search.command}] if search.command else []
