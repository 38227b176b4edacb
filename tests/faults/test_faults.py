"""The faults come where they should, what is wrong is seen, and little is: the short form of `make faults`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.paths import PROJECT
from tests.faults.damage import other_run, swap
from tests.faults.kills import explains
from tests.faults.programs import Program, Undisturbed
from tests.faults.verdict import COLUMNS, Verdict, found, table
from tests.faults.zygote import Ended, World

SCRIPT = """
import os, sys
from pathlib import Path
from tests.faults.hooks import Fault, install
root, what, at, only, lasting = sys.argv[1:]
install(Path(root), Fault(what, int(at), frozenset(only.split(",")), lasting == "1"), 1)
try:
    Path("new").mkdir()
    with open("new/a.txt", "w") as file:
        file.write("0123456789")
    os.replace("new/a.txt", "new/b.txt")
except OSError as problem:
    print("refused:", problem.strerror, flush=True)
with open("new/c.txt", "wb") as file:
    file.write(b"0123456789")
Path("../beside.txt").write_text("x")
"""
EVERY = "open,write,rename,mkdir"


def run(folder: Path, what: str = "", at: int = 0, only: str = EVERY, lasting: bool = False) -> tuple[int, str]:
    """The exit code of that script in `folder`/place, and the steps that it took."""
    place = folder / "place"
    place.mkdir()
    line = [sys.executable, "-c", SCRIPT, str(place), what, str(at), only, str(int(lasting))]
    ended = subprocess.run(
        line, cwd=place, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    return ended.returncode, ended.stdout


def test_steps_are_counted_and_what_is_written_elsewhere_is_seen(tmp_path: Path) -> None:
    code, said = run(tmp_path)
    assert code == 0
    steps = [line.partition("\t")[0] for line in said.splitlines()]
    assert steps == ["mkdir", "open", "write", "rename", "open", "write", "outside"]


@pytest.mark.parametrize(
    ("at", "left"), [(1, {}), (2, {"new": None}), (3, {"new/a.txt": ""}), (4, {"new/a.txt": "0123456789"})]
)
def test_a_kill_comes_before_its_step(tmp_path: Path, at: int, left: dict[str, str]) -> None:
    assert run(tmp_path, "SIGKILL", at)[0] == -9
    place = tmp_path / "place"
    assert {str(path.relative_to(place)): path.read_text() for path in place.rglob("*.txt")} == {
        name: text for name, text in left.items() if text is not None
    }
    assert (place / "new").exists() == bool(left)


def test_a_kill_amid_a_write_leaves_half(tmp_path: Path) -> None:
    assert run(tmp_path, "half", 1, "write")[0] == -9
    assert (tmp_path / "place" / "new" / "a.txt").read_text() == "01234"


def test_a_disk_refuses_once_or_from_then_on(tmp_path: Path) -> None:
    for lasting in (False, True):
        folder = tmp_path / str(lasting)
        folder.mkdir()
        code, said = run(folder, "ENOSPC", 1, "write", lasting)
        assert "refused: No space left on device" in said
        assert (code == 0) is not lasting


def test_a_write_that_takes_a_part_is_gone_on_with(tmp_path: Path) -> None:
    assert run(tmp_path, "short", 1, "write", lasting=True)[0] == 0
    assert (tmp_path / "place" / "new" / "c.txt").read_bytes() == b"0123456789"


GOOD = Ended(0, 1.0, "done\n", "")


@pytest.mark.parametrize(
    ("ended", "columns"),
    [
        (GOOD, []),
        (Ended(2, 1.0, "", "error: no. Expected yes.\n"), []),
        (Ended(2, 1.0, "", "no\n"), ["other"]),
        (Ended(1, 1.0, "", ""), ["other"]),
        (Ended(-11, 1.0, "", ""), ["other"]),
        (Ended(3, 1.0, "", "Traceback (most recent call last):\nerror: x\n"), ["traceback"]),
        (Ended(-6, 90.0, "", "", hung=True), ["hung"]),
        (Ended(0, 1.0, "", "", outside=("/etc/x",)), ["outside"]),
    ],
)
def test_how_a_process_ended_is_judged(ended: Ended, columns: list[str]) -> None:
    verdict = Verdict("kill", 1, "row", "title")
    verdict.judge(ended)
    assert [column for column, _ in verdict.problems] == columns


def world_of(folder: Path, **files: str) -> World:
    world = World(folder)
    for name, text in files.items():
        (world.place / f"{name}.txt").write_text(text)
    return world


@pytest.mark.parametrize(
    ("files", "columns"),
    [
        ({"a": "1", "b": "2"}, []),
        ({"a": "1", "b": "3"}, ["wrong"]),
        ({"a": "1"}, ["lost"]),
        ({"a": "1", "b": "2", "c": "3"}, ["wrong", "other"]),
        ({"a": "1", "b": "broken"}, ["lost"]),
    ],
)
def test_the_end_is_compared_with_the_undisturbed_one(
    tmp_path: Path, files: dict[str, str], columns: list[str]
) -> None:
    def numbers(place: Path) -> dict[str, Any]:
        return {path.stem: int(path.read_text()) for path in place.glob("*.txt")}

    left = frozenset(["place/a.txt", "place/b.txt", "beside/theirs.txt"])
    alone = Undisturbed(Program("x", "x", numbers=numbers), tmp_path, GOOD, {"a": 1, "b": 2}, left)
    verdict = Verdict("kill", 1, "row", "title")
    verdict.judge_end(world_of(tmp_path / "world", **files), alone)
    assert [column for column, _ in verdict.problems] == columns


def test_what_others_have_is_watched(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    verdict = Verdict("archive", 1, "row", "title")
    verdict.judge_surroundings(world)
    assert verdict.problems == []
    (world.beside / "evil.txt").write_text("x")
    verdict.judge_surroundings(world)
    assert [column for column, _ in verdict.problems] == ["outside"]


def test_the_table_counts_cases_and_the_list_names_them() -> None:
    verdicts = [Verdict("kill", number, "row", "title", ["done"]) for number in range(3)]
    verdicts[1].problems = [("wrong", "a | b"), ("wrong", "again")]
    assert table(verdicts).splitlines()[2] == "| row | 3 | done 3 | 0 | 1 | 0 | 0 | 0 | 0 |"
    assert "`kill --seed 4 --case 1` (title)" in found(verdicts, 4)


def test_damage_changes_what_it_is_meant_to(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("1\n2\n3\n4\n")
    swap(path, Random(0), None)
    assert path.read_text() != "1\n2\n3\n4\n"
    assert sorted(path.read_text()) == sorted("1\n2\n3\n4\n")
    other.write_text("others")
    other_run(path, Random(0), other)
    assert path.read_text() == "others"
    assert explains(Ended(3, 1.0, "", "error: No space left on device"))
    assert not explains(Ended(3, 1.0, "", "error: unexpected pos 64 vs 0"))


@pytest.mark.timeout(900)
def test_the_short_form(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.faults", "--short", "--jobs", "2", "--keep", str(tmp_path)]
    ended = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
    rows = [re.split(r" \| ", row.strip("| ")) for row in ended.stdout.splitlines() if row.startswith("| ")]
    assert len(rows) > 30, ended.stderr
    wrong = {
        (row[0], column)
        for row in rows[1:]
        for column, count in zip(COLUMNS.values(), row[-len(COLUMNS) :], strict=True)
        if count != "0"
    }
    assert not wrong, ended.stdout
