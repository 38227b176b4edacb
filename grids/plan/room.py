"""How much of the disk cells will take, as far as it can be told before, and how much is free."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common import BACKBONES
from engine.console import size_text
from engine.data.part import PARTS
from engine.errors import counted
from engine.models.names import find_backbone
from engine.paths import nearest_existing
from grids.cells import Cell
from grids.plan.missing import INDENT, Missing, files_to_fetch, filled

BYTES_OF_A_WEIGHT = 4
# while a run lasts, two checkpoints (the last one, and that before it) hold the weights, the best ones so far, and the
# two moments of AdamW
WHILE_IT_RUNS = 2 * 4


def room_lines(cells: Sequence[Cell], missing: Missing, at_once: int) -> list[str]:
    """What `cells` will write, on each disk, and what is free there."""
    needs: dict[int, Counter[str]] = {}
    free: dict[int, tuple[Path, int]] = {}
    unknown = 0
    for what, place, size in _needs(cells, missing, at_once):
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


def _needs(cells: Sequence[Cell], missing: Missing, at_once: int) -> list[tuple[str, Path, int | None]]:
    """What is written where, and how many bytes; None: nobody can tell."""
    needs: list[tuple[str, Path, int | None]] = []
    for path, size in files_to_fetch(cell for cell in cells if missing.is_fetched(cell)).items():
        needs.append(("datasets, packed and extracted", path.parent, None if size is None else 2 * size))
    for state in missing.weights.values():
        if state.file and state.folder:
            needs.append(("pretrained weights", state.folder, state.bytes))
    for cell in {(cell.place, _cached_size(cell)): cell for cell in cells}.values():
        if not missing.data_stops(cell):
            needs.append(("decoded images", cell.config.cache_dir.absolute(), _decoded_bytes(cell, missing)))
    sizes = [(cell.config.out, _parameters(cell.config.model)) for cell in cells if not missing.stops(cell)]
    for (out, parameters), number in Counter(sizes).items():
        needs.append(("runs", out, None if parameters is None else number * parameters * BYTES_OF_A_WEIGHT))
    largest = sorted((parameters or 0 for _, parameters in sizes), reverse=True)[:at_once]
    if largest:
        needs.append(("checkpoints while they run", sizes[0][0], sum(largest) * BYTES_OF_A_WEIGHT * WHILE_IT_RUNS))
    return needs


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


@cache
def _parameters(model: str) -> int | None:
    """Of the 1000-class model; None: it can't be built here."""
    from engine.models.cost import without_numbers

    try:
        backbone = find_backbone(model, BACKBONES, by_user=False).backbone
        stated = getattr(backbone.pretrained, "meta", {}).get("num_params") if backbone.weights else None
        if stated:
            return int(stated)
        return sum(parameter.numel() for parameter in without_numbers(backbone).parameters())
    except Exception:  # whatever a builder of the user's own does
        return None
