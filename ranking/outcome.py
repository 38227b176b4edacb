"""What came of one training of a search, from its record and its history."""

from __future__ import annotations

import csv
from math import isfinite
from pathlib import Path

from engine.records.schema import HISTORY, Record
from grids.cells import Cell
from grids.estimate import wall
from grids.ledger import MENDABLE, Standing, grid_folder, own_records, record_key
from ranking.search_ledger import Result


def outcome(cell: Cell, record: Record, select: str, seconds: float | None, lay_there: bool) -> Result:
    """What the record of a finished run of `cell` says. seconds: that its process took; None: nobody saw it.

    Of a run that lay there, nothing was trained for this search.
    """
    selection, costs, counts = record["selection"], record["costs"], record["dataset"]["counts"]
    folder = folder_of(cell, record)
    # of a run that was resumed, a process took a part alone, and from its beginning to its end is more than it took
    took = costs["train_seconds"] if record["resumed"] else seconds or seconds_of(record)
    evaluated = counts["val"] / costs["test_images_per_second"] if costs["test_images_per_second"] else 0.0
    return Result(
        name=cell.row,
        status="done",
        score=float(selection[select]),
        loss=_loss(folder, selection["part"], selection["epoch"]),
        judged=int(counts[selection["part"]]),
        epoch=int(selection["epoch"]),
        trained=0 if lay_there else int(costs["images"]),
        seconds=0.0 if lay_there else round(took, 1),
        seconds_an_epoch=costs["train_seconds"] / max(1, costs["epochs"]) + evaluated,
        folder=str(folder),
    )


def failed(cell: Cell, found: Standing, images: int) -> Result:
    """What is kept of a training that failed; `images` are those of a whole one.

    What the user can mend is refused before anything is trained; what else was, nobody knows, and all is counted.
    """
    failure = found.failure
    reason = failure.reason if failure else "nobody knows why"
    log = grid_folder(cell.config.out) / f"{cell.id}.log"
    reason += f"; log {log}" if log.exists() else ""
    refused = failure is not None and failure.exit_code == MENDABLE
    return Result(cell.row, "failed", trained=0 if refused else images, reason=reason)


def folder_of(cell: Cell, record: Record) -> Path:
    """The folder of a run of `cell`, by what its record calls it."""
    return cell.folder / str(record["run"])


def _loss(folder: Path, part: str, epoch: int) -> float | None:
    """The loss on the part that chooses, in the chosen epoch; None: the history does not say."""
    try:
        with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if int(row["epoch"]) == epoch:
                    loss = float(row[f"{part}_loss"])
                    return loss if isfinite(loss) else None
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    return None


def trained_so_far(cell: Cell, found: Standing) -> int:
    """Training images that a run of `cell` went through, finished or not, as far as epochs were saved."""
    if found.record and found.status == "done":
        return int(found.record["costs"]["images"])
    for record in own_records(cell):
        if record_key(record) == cell.key and record["status"] != "done":
            try:
                rows = (folder_of(cell, record) / HISTORY).read_text("utf-8").splitlines()[1:]
            except (OSError, ValueError):
                return 0
            return len(rows) * int(record["dataset"]["counts"]["train"])
    return 0


def seconds_of(record: Record | None) -> float:
    """From a run's beginning to its end; 0 where its record does not say."""
    try:
        return max(0.0, wall(record)) if record else 0.0
    except (KeyError, ValueError, TypeError):
        return 0.0
