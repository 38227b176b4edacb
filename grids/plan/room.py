"""How much of the disk cells will take, as far as it can be told before, and how much is free."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from common import BACKBONES
from engine.console import size_text
from engine.data.part import PARTS
from engine.errors import counted
from engine.models.backbone import Backbone
from engine.models.names import find_backbone
from engine.paths import nearest_existing
from grids.cells import Cell
from grids.plan.missing import INDENT, Missing, files_to_fetch, filled

BYTES_OF_A_WEIGHT = 4
# while a run lasts, two checkpoints (the last one, and that before it) hold the weights, the best ones so far, and the
# two moments of AdamW
WHILE_IT_RUNS = 2 * 4

Need = tuple[str, Path, int | None]  # what is written where, and its bytes; None: nobody can tell


def room_lines(cells: Sequence[Cell], missing: Missing, at_once: int, parameters: Mapping[str, int]) -> list[str]:
    """What `cells` will write, on each disk, and what is free there. parameters: of backbones, as far as recorded."""
    needs: dict[int, Counter[str]] = {}
    free: dict[int, tuple[Path, int]] = {}
    unknown = 0
    for what, place, size in [*_inputs(cells, missing), *_runs(cells, missing, at_once, parameters)]:
        if size is None:
            unknown += 1
            continue
        there = nearest_existing(place)
        try:
            disk = there.stat().st_dev
            free.setdefault(disk, (there, shutil.disk_usage(there).free))
        except OSError:  # whoever writes there says so
            continue
        needs.setdefault(disk, Counter())[what] += size
    lines = []
    for disk, of_disk in needs.items():
        whole, (place, left) = of_disk.total(), free[disk]
        if not whole:
            continue
        parts = ", ".join(f"{what} {size_text(size)}" for what, size in of_disk.most_common() if size)
        on = f" on the disk of {place}" if len(needs) > 1 else ""
        short = f" ({size_text(whole - left)} too little)" if left < whole else ""
        lines += filled(f"room       about {size_text(whole)}{on}, {size_text(left)} free{short}: {parts}")
    if unknown:
        lines.append(f"{INDENT}without {counted(unknown, 'download')} or sets of images whose size nobody states")
    return lines


def _inputs(cells: Sequence[Cell], missing: Missing) -> Iterator[Need]:
    """What is fetched, and the decoded images."""
    for path, size in files_to_fetch(cell for cell in cells if missing.is_fetched(cell)).items():
        yield "datasets, packed and extracted", path.parent, None if size is None else 2 * size
    for state in missing.weights_to_fetch:
        if state.folder:
            yield "pretrained weights", state.folder, state.bytes
    for cell in {(cell.place, _cached_size(cell)): cell for cell in cells}.values():
        if not missing.data_stops(cell):
            yield "decoded images", cell.config.cache_dir.absolute(), _decoded_bytes(cell, missing)


def _runs(cells: Sequence[Cell], missing: Missing, at_once: int, parameters: Mapping[str, int]) -> Iterator[Need]:
    """The checkpoints that stay, one a run, and those of `at_once` runs while they last."""
    models = Counter(cell.config.model for cell in cells if not missing.stops(cell))
    out = cells[0].config.out
    sizes = {model: parameters.get(model) or _parameters(model) for model in models}
    for model, number in models.items():
        size = sizes[model]
        yield "runs", out, None if size is None else number * size * BYTES_OF_A_WEIGHT
    largest = max((size or 0 for size in sizes.values()), default=0)
    yield "checkpoints while they run", out, min(at_once, models.total()) * largest * BYTES_OF_A_WEIGHT * WHILE_IT_RUNS


def _cached_size(cell: Cell) -> tuple[int, int]:
    return cell.dataset.cached_size or cell.config.size


def _decoded_bytes(cell: Cell, missing: Missing) -> int | None:
    """Of the pixels that its runs will keep; 0: they are kept, or there is nothing to keep; None: nobody can tell."""
    dataset, config, (height, width) = cell.dataset, cell.config, _cached_size(cell)
    if config.no_cache or not (dataset.files or dataset.own):
        return 0
    if any(config.cache_dir.glob(f"{dataset.key}*-{height}x{width}-*.npy")):
        return 0
    counts = missing.data[cell.place].counts
    images = sum(counts[part] for part in PARTS) if counts else sum(dataset.expected("honest")) + dataset.val_images
    return images * height * width * 3 if images else None


def _parameters(model: str) -> int | None:
    """Of the 1000-class model; None: it can't be built here."""
    try:
        return _parameters_of(find_backbone(model, BACKBONES, by_user=False).backbone)
    except Exception:  # whatever a builder of the user's own does
        return None


@cache
def _parameters_of(backbone: Backbone) -> int:
    from engine.models.cost import without_numbers

    stated = getattr(backbone.pretrained, "meta", {}).get("num_params") if backbone.weights else None
    if stated:
        return int(stated)
    return sum(parameter.numel() for parameter in without_numbers(backbone).parameters())
