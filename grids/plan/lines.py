"""What grid.py prints before it begins: what there is to do, what is missing, how long it takes, what that rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from engine.console import duration, say, table, wrapped
from engine.errors import counted
from grids.cells import Cell
from grids.estimate import Speeds
from grids.forecast import Estimate, forecast
from grids.ledger import Standing, grid_folder, to_be_tried
from grids.plan.missing import Missing, find_missing, missing_lines
from grids.plan.room import room_lines

MOST_NAMED = 5  # records that can't be read


class GridPlan:
    """The cells of a grid, and those of them that are to be run."""

    def __init__(
        self,
        cells: Sequence[Cell],
        standings: Mapping[str, Standing],
        retry_failed: bool,
        at_once: int,
        where: str,
    ) -> None:
        """at_once: how many cells run at a time, 0: nobody knows; where: that, and on what, in words."""
        self.cells, self.standings, self.at_once, self.where = cells, standings, at_once, where
        self.wanted = [cell for cell in cells if to_be_tried(standings[cell.id], retry_failed)]

    def measure(self, device: str, speeds: Speeds) -> None:
        """Let `speeds` know how fast the device is, if no record tells, and say so."""
        strange = [cell for cell in self.wanted if not speeds.knows(cell)]
        if strange:
            from grids.plan.trial import measure_some

            say(*wrapped(measure_some(strange, device, speeds)), go_on=True)

    def lines(self, speeds: Speeds, made: Collection[Path], retry: str) -> list[str]:
        """All of it. made: datasets' folders that the grid makes; retry: the command that tries failed cells again."""
        missing = find_missing(self.wanted, made)
        for cell in {each.place: each for each in self.wanted if each.dataset.own}.values():
            if counts := missing.data[cell.place].counts:
                speeds.add_counts(cell, counts)
        estimates = {cell.id: speeds.estimate(cell) for cell in self.wanted}
        able = [estimates[cell.id] for cell in self.wanted if not missing.stops(cell)]
        out, at_once = self.cells[0].config.out, self.at_once
        shown = [
            f"records    {out}; failures and logs {grid_folder(out)}",
            f"cells      {len(self.cells):,}, {self.where}",
            *kept_lines(self.standings, {cell.id for cell in self.wanted}, retry),
        ]
        return [
            *self._datasets(estimates, missing).split("\n"),
            *wrapped(shown),
            *wrapped(to_do_lines(len(self.wanted), able, at_once, datetime.now().astimezone())),
            *wrapped(missing_lines(self.wanted, missing)),
            *wrapped(room_lines(self.wanted, missing, max(1, at_once), speeds.parameters) if self.wanted else []),
        ]

    def _datasets(self, estimates: Mapping[str, Estimate | None], missing: Missing) -> str:
        """A table: what is done of each dataset and what is not, how long that takes, whether its images are there."""
        datasets: dict[str, list[Cell]] = {}
        for cell in self.cells:
            datasets.setdefault(cell.place, []).append(cell)
        rows: list[tuple[str, ...]] = [("dataset", "cells", "done", "failed", "interrupted", "to do", "time", "images")]
        for own in datasets.values():
            words = Counter(self.standings[cell.id].status for cell in own)
            to_do = [cell for cell in own if cell.id in estimates]
            counts = [len(own), words["done"], words["failed"], words["interrupted"], len(to_do)]
            found = forecast([estimates[cell.id] for cell in to_do], max(1, self.at_once))
            images = missing.data_words(to_do[0]) if to_do else ""
            rows.append((own[0].dataset_name, *(f"{count:,}" for count in counts), found.text, images))
        return table(rows)


def to_do_lines(wanted: int, estimates: Sequence[Estimate | None], at_once: int, now: datetime) -> list[str]:
    """How many cells are to be run, when those that can run are done, and what that rests on: their `estimates`."""
    line = f"to do      {wanted:,}" + (f", of which {len(estimates):,} can run" if len(estimates) < wanted else "")
    if not estimates:
        return [line]
    found = forecast(estimates, max(1, at_once))
    if not found.bases:
        return [f"{line}, not measured yet"]
    about = duration(found.seconds) + (f" (with 80 %: {found.range})" if found.range else "")
    finish = found.finish(now) if at_once else "one after the other"
    lines = [f"{line}, about {about}, {finish}", f"rests on   {', '.join(found.rests_on)}"]
    if found.guessed:
        number, low, high = found.guessed
        epochs = f"{low:,.0f} to {high:,.0f} epochs are taken for {counted(number, 'cell')} that patience ends"
        lines.append(f"           {epochs}, since none is recorded")
    return lines


def kept_lines(standings: Mapping[str, Standing], wanted: Collection[str], retry: str) -> list[str]:
    """How many cells are done and failed, and which of these are tried again."""
    words = Counter(each.status for each in standings.values())
    lines = [f"done       {words['done']:,}", f"failed     {words['failed']:,}"]
    again = [each.status for key, each in standings.items() if key in wanted].count("failed")
    if kept := words["failed"] - again:
        mended = f"{again:,} of them, which can be mended, to be tried again; " if again else ""
        what = "kept as it is" if kept == 1 else "kept as they are"
        lines[-1] += f", {mended}{kept:,} {what}. To try {'it' if kept == 1 else 'them'} again, too:"
        lines.append(f"           {retry}")
    elif again:
        lines[-1] += ", to be tried again"
    return lines


def damaged_lines(damaged: Sequence[str]) -> list[str]:
    """What is to be said of records that can't be read: their cells are not done."""
    if not damaged:
        return []
    more = [f"           and {len(damaged) - MOST_NAMED:,} more"] if damaged[MOST_NAMED:] else []
    advice = "no cell is done by them. Remove the run's folder, or start that run over with its script's --rerun:"
    return [
        f"note       {counted(len(damaged), 'record')} can't be read, and {advice}",
        *(f"           {line}" for line in damaged[:MOST_NAMED]),
        *more,
    ]


def remark_lines(standings: Mapping[str, Standing]) -> list[str]:
    """What is to be said of records of other code or other images, each once."""
    remarks = Counter(remark for each in standings.values() for remark in each.remarks)
    return [f"note       {counted(number, 'cell')} {remark}" for remark, number in remarks.items()]
