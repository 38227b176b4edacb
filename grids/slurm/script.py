"""The script of an array job: what each of its tasks needs, and which cell it runs."""

from __future__ import annotations

import argparse
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from engine.errors import UserError
from engine.paths import PROJECT
from grids.cells import Cell
from grids.estimate import Speeds
from grids.ledger import grid_folder
from grids.slurm.commands import CommandError, most_tasks, nodes

FOLDER = "slurm"  # in OUT/grid: the scripts that were submitted, and what their tasks print
STOP_SECONDS = 120  # before its time limit, a task is asked to stop after the epoch that it is in
MARGIN, LEAST_SECONDS = 2.0, 600.0  # of a time limit over an estimate: other nodes are slower, and images are decoded
MOST_PROCESSORS = 8  # of a task that asks for no number of its own
ALONE = 4  # processors of a task without a GPU
# what the tasks are found by, and what would let sbatch do something else; with their short names
OURS = {
    "job-name": "J",
    "chdir": "D",
    "output": "o",
    "error": "e",
    "clusters": "M",
    "wait": "W",
    "wrap": "",
    "test-only": "",
}
GPUS = ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task")
PROCESSORS = ("cpus-per-task", "cpus-per-gpu", "exclusive", "ntasks-per-node")
SHORT = {"t": "time", "G": "gpus", "c": "cpus-per-task", "p": "partition", "a": "array", "x": "exclude"}
CASE = re.compile(r"^\s*(\d+)\) cell=(.*?) ;;$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """What every task asks of Slurm."""

    words: tuple[str, ...]  # of the grid's command line, without --slurm
    options: tuple[str, ...]  # of sbatch, each with its value
    most_at_once: str  # "%4", or ""
    gpu: bool
    rerun: bool
    excluded: tuple[str, ...]  # nodes, as the user names them
    timed: bool  # whether a time limit is to be set where one can be estimated

    @property
    def what(self) -> str:
        """In words, for the plan."""
        return f"each a task of a Slurm array job{', with a GPU' if self.gpu else ''}"


def request_of(options: argparse.Namespace, given: Sequence[str], device: str) -> Request:
    """What the command line asks of Slurm. UserError: something in `--slurm` is wrong, or Slurm is not there.

    device: as `--device` has it.
    """
    if options.per_gpu > 1:
        raise UserError(
            f"--per-gpu {options.per_gpu}: with --slurm each cell has a GPU to itself. Leave --per-gpu out."
        )
    lines, named = _grouped(options.slurm)
    for name, short in OURS.items():
        if name in named or (short and short in named):
            raise UserError(f"--slurm: grid.py sets --{name} itself, to find its tasks again. Leave it out.")
    at_once = named.get("array", "")
    if "array" in named and not re.fullmatch(r"%[1-9]\d*", at_once):
        raise UserError(f"--slurm: --array={at_once}: expected --array=%N, for at most N tasks at a time, say %4.")
    try:
        kinds = nodes(named.get("partition") or None)
    except CommandError as problem:
        raise UserError(f"--slurm: Slurm does not say which nodes it has: {problem}") from None
    own_gpus = any(name in named for name in GPUS)
    gpu = device in ("auto", "cuda") and any(gpus for _, gpus in kinds) and not own_gpus
    ours = ["--gres=gpu:1"] if gpu else []
    if not any(name in named for name in PROCESSORS):
        ours.append(f"--cpus-per-task={_processors(kinds, gpu or own_gpus)}")
    own = tuple(line for line in lines if not re.match(r"(--array\b|-a)", line))
    excluded = tuple(filter(None, [named.get("exclude")]))
    return Request(_without(given), (*ours, *own), at_once, gpu, options.rerun, excluded, "time" not in named)


def _grouped(text: str) -> tuple[list[str], dict[str, str]]:
    """The options of sbatch in a text, each with its value, and the values by the options' long names."""
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise UserError(f"--slurm={text}: {str(problem).lower()}. Expected options of sbatch.") from None
    lines: list[list[str]] = []
    for word in words:
        if word.startswith("-") and word.strip("-"):
            lines.append([word])
        elif lines and not lines[-1][1:]:
            lines[-1].append(word)
        else:
            raise UserError(
                f"--slurm: {word!r} is no option of sbatch. Expected options as sbatch takes them, such as "
                '--slurm="--partition=gpu --account=me --time=2:00:00"'
            )
    named = {}
    for first, *more in lines:
        if first.startswith("--"):
            name, _, value = first[2:].partition("=")
        else:
            name, value = first[1], first[2:]
        named[SHORT.get(name, name)] = value or " ".join(more)
    return [" ".join(map(_quoted, line)) for line in lines], named


def _processors(kinds: Sequence[tuple[int, int]], gpu: bool) -> int:
    """A task's share of the smallest node that it could run on."""
    if gpu and (shares := [processors // gpus for processors, gpus in kinds if gpus]):
        return max(1, min(*shares, MOST_PROCESSORS))
    return max(1, min([ALONE, *(processors for processors, _ in kinds)]))


def joined(words: Sequence[str]) -> list[str]:
    """A command line in which --slurm has its value in the same word: a word that has blanks in it is no flag."""
    found: list[str] = []
    for word in words:
        if found[-1:] == ["--slurm"] and (" " in word or not word.startswith("-")):
            found[-1] = f"--slurm={word}"
        else:
            found.append(word)
    return found


def _without(given: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line, as joined() has them, but for --slurm and what the script says in its own place."""
    return tuple(word for word in given if word.partition("=")[0] not in ("--slurm", "--dry-run", "--rerun"))


def new_name() -> str:
    """The name of a job that there was none of before, on any machine."""
    return f"grid-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def script_of(
    name: str,
    cells: Sequence[Cell],
    request: Request,
    limit: int | None,
    again: bool = False,
    avoided: Sequence[str] = (),
) -> str:
    """The script for sbatch.

    limit: minutes; again: these cells have been started before, and are to go on; avoided: nodes that fail cells.
    """
    folder = folder_of(cells[0].config.out)
    printed = str(folder / f"{name}-TASK.log").replace("%", "%%").replace("TASK", "%a")
    options = [
        f"--job-name={name}",
        f"--array=0-{len(cells) - 1}{request.most_at_once}",
        _quoted(f"--chdir={Path.cwd()}"),
        _quoted(f"--output={printed}"),
        "--open-mode=append",
        "--requeue",
        f"--signal=B:INT@{STOP_SECONDS}",
        *([f"--time={limit}"] if limit else []),
        *request.options,
        *([f"--exclude={','.join([*request.excluded, *avoided])}"] if avoided else []),
    ]
    command = shlex.join([sys.executable, str(PROJECT / "grid.py"), *request.words])
    rerun = ""
    if request.rerun and not again:  # one that Slurm starts again goes on with what it began
        rerun = '[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || set -- --rerun\n'
    return "\n".join(
        [
            "#!/bin/bash",
            "# Of grid.py --slurm, whose same command collects the results; it can be submitted by hand, too.",
            *(f"#SBATCH {option}" for option in options),
            "",
            "case $SLURM_ARRAY_TASK_ID in",
            *(f"  {number}) cell={shlex.quote(cell.id)} ;;" for number, cell in enumerate(cells)),
            "esac",
            f'{rerun}exec {command} --cell "$cell"{" " + chr(34) + "$@" + chr(34) if rerun else ""}',
            "",
        ]
    )


def script_lines(request: Request | None, cells: Sequence[Cell], speeds: Speeds) -> list[str]:
    """What --slurm would submit, for --dry-run; where an array job can't have so many tasks, the first."""
    if request is None or not cells:
        return []
    first = cells[: most_tasks()]
    more = [f"and {len(cells) - len(first):,} cells in further jobs"] if len(first) < len(cells) else []
    limit = minutes_for(first, speeds) if request.timed else None
    return ["", *script_of("grid-DATE-NAME", first, request, limit).rstrip().split("\n"), *more]


def cells_in(text: str) -> Mapping[int, str]:
    """Which cell, by its id, each task of a script runs."""
    return {int(number): "".join(shlex.split(word)) for number, word in CASE.findall(text)}


def folder_of(out: Path) -> Path:
    """Where the scripts of a grid lie, as an absolute path."""
    return grid_folder(out).absolute() / FOLDER


def minutes_for(cells: Iterable[Cell], speeds: Speeds, factor: float = 1.0) -> int | None:
    """A time limit for tasks that run a cell each; None: one of them was never measured."""
    longest = LEAST_SECONDS
    for cell in cells:
        estimate = speeds.estimate(cell)
        if estimate is None:
            return None
        longest = max(longest, LEAST_SECONDS + MARGIN * estimate.seconds)
    return ceil(longest * factor / 60)


def _quoted(word: str) -> str:
    """A word as sbatch reads it in a line that begins with #SBATCH."""
    if re.fullmatch(r"[\w@%+=:,./\[\]-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
