"""ranking/kept.py: features that are kept are used where they are whole and of the question, and nowhere else."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import common
from engine.files import json_digest
from ranking import kept, scored
from ranking.kept import About, Frozen, Kept
from ranking.scores import SCORES
from tests.ranking import networks
from tests.ranking.conftest import Asker

Usage = namedtuple("Usage", "total used free")
ABOUT = About("fp32 NCHW", 1.5, 20.0, "this one", 100, 2000, None, "steps")


def frozen(rows: int = 6, seed: int = 0, by: float = 1.0) -> Frozen:
    """Features that float16 holds but for `by`."""
    values = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float16).astype(np.float32) * np.float32(by)
    return Frozen(values, ABOUT, {"values": {"probe": 0.5}})


def place(folder: Path, stem: str = "a", **identity: Any) -> Kept:
    return Kept(folder, stem, {"x": 1, **identity})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert place(tmp_path).read(6) is None
    assert place(tmp_path).write(frozen()) == ""
    found = place(tmp_path).read(6)
    assert found is not None
    assert found.features.dtype == np.float16
    assert (found.features == frozen().features).all()
    assert (found.about, found.scores) == (ABOUT, {"values": {"probe": 0.5}})
    assert place(tmp_path, x=2).read(6) is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_float16_does_not_hold_is_kept_in_float32(tmp_path: Path) -> None:
    assert place(tmp_path).write(frozen(by=1e5)) == ""
    found = place(tmp_path).read(6)
    assert found is not None
    assert found.features.dtype == np.float32
    assert (found.features == frozen(by=1e5).features).all()


def manifest(change: Callable[[dict[str, Any]], Any], sealed: bool = True) -> Callable[[Kept], None]:
    """Damage by another manifest, which can have the digest that belongs to it."""

    def damage(of: Kept) -> None:
        content = json.loads(of.manifest.read_text())
        content.pop("sha256")
        content = change(content) or content
        if sealed:
            content["sha256"] = json_digest(content)
        of.manifest.write_text(json.dumps(content))

    return damage


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """The file is that of other features."""
    shutil.copy(path.with_name(path.name.replace("a-", "b-", 1).replace(path.stem[2:], other_stem(path))), path)


def other_stem(path: Path) -> str:
    return next(each.stem[2:] for each in path.parent.glob("b-*.npy"))


def both(of: Kept) -> None:
    swap(of.path)
    swap(of.manifest)


def other_rows(of: Kept) -> None:
    """Whole and sealed, but of fewer images."""
    buffer = io.BytesIO()
    np.save(buffer, frozen(5).features)
    of.path.write_bytes(buffer.getvalue())
    digest = kept.sha256(buffer.getvalue()).hexdigest()  # type: ignore[attr-defined]
    manifest(lambda content: content | {"features": digest})(of)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Kept], Any]] = {
    "a byte of the features": lambda of: flip(of.path, -1),
    "a byte of the head of the features": lambda of: flip(of.path, 20),
    "features cut short": lambda of: of.path.write_bytes(of.path.read_bytes()[:-3]),
    "features empty": lambda of: of.path.write_bytes(b""),
    "features of another": lambda of: swap(of.path),
    "manifest of another": lambda of: swap(of.manifest),
    "both of another": both,
    "features a pipe": lambda of: pipe(of.path),
    "features a folder": lambda of: folder(of.path),
    "manifest a pipe": lambda of: pipe(of.manifest),
    "manifest a folder": lambda of: folder(of.manifest),
    "manifest cut short": lambda of: of.manifest.write_text(of.manifest.read_text()[:-9]),
    "manifest empty": lambda of: of.manifest.write_text(""),
    "a byte of the manifest": lambda of: flip(of.manifest, of.manifest.read_bytes().index(b"1.5")),
    "a list": lambda of: of.manifest.write_text("[1]"),
    "a text": lambda of: of.manifest.write_text('"sha256"'),
    "a number": lambda of: of.manifest.write_text("7"),
    "nested": lambda of: of.manifest.write_text("[" * 100_000),
    "no UTF-8": lambda of: of.manifest.write_bytes(b"\xff\xfe\xff"),
    "NaN": lambda of: of.manifest.write_text(of.manifest.read_text().replace("1.5", "NaN")),
    "too large": lambda of: of.manifest.write_text(of.manifest.read_text() + " " * (1 << 20)),
    "no digest": manifest(lambda content: None, sealed=False),
    "no about": manifest(lambda content: content.pop("about") and None),
    "about a list": manifest(lambda content: content | {"about": [1]}),
    "about with more": manifest(lambda content: content["about"].update(more=1)),
    "a time below 0": manifest(lambda content: content["about"].update(seconds=-1)),
    "a time that is none": manifest(lambda content: content["about"].update(seconds=True)),
    "a speed that is a text": manifest(lambda content: content["about"].update(train_images_per_second="9")),
    "a form that is a number": manifest(lambda content: content["about"].update(form=1)),
    "another identity": manifest(lambda content: content | {"identity": "0" * 64}),
    "too few rows": other_rows,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.timeout(60)  # a pipe may not be waited for
def test_what_is_damaged_is_named_and_never_used(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path).write(frozen())
    place(tmp_path, "b", x=2).write(frozen(seed=1))
    DAMAGE[damage](place(tmp_path))
    capsys.readouterr()
    assert place(tmp_path).read(6) is None
    said = capsys.readouterr().err
    assert said.startswith(f"the kept features {place(tmp_path).path} are damaged (")
    assert said.count("\n") == 1
    problem = place(tmp_path).write(frozen())
    if "folder" in damage:  # which may be somebody's, and stays
        assert problem
        return
    assert problem == ""
    found = place(tmp_path).read(6)
    assert found is not None
    assert (found.features == frozen().features).all()
    assert place(tmp_path, "b", x=2).read(6) is not None
    assert capsys.readouterr().err == ""


def test_scores_of_another_form_are_computed_anew() -> None:
    good = {"code": "c", "values": dict.fromkeys(SCORES, 0.5) | {"probe": None}, "notes": ["n"]}
    assert scored.known_scores(good, "c") == good["values"]
    for bad in (
        {},
        good | {"code": "d"},
        good | {"values": [1]},
        good | {"values": {"probe": 0.5}},
        good | {"values": dict.fromkeys(SCORES, "x")},
        good | {"values": dict.fromkeys(SCORES, float("inf"))},
        good | {"notes": [1]},
        good | {"notes": "n"},
    ):
        assert scored.known_scores(bad, "c") is None


def used(folder: Path) -> list[str]:
    return sorted(path.stem.partition("-")[0] for path in folder.rglob("*.npy"))


def test_the_longest_unused_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = frozen(1000)
    for age, name in enumerate("abcd"):
        each = place(tmp_path, name)
        assert each.write(one) == ""
        os.utime(each.path, (100 + age, 100 + age))
    assert place(tmp_path, "a").read(1000) is not None  # which is a use
    size = place(tmp_path).path.stat().st_size
    # all that is there counts as room: a tenth of 4 files and what is free are 3 files
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: Usage(0, 0, 26 * size + 100))  # type: ignore[attr-defined]
    assert place(tmp_path, "e").write(one) == ""
    assert used(tmp_path) == ["a", "d", "e"]
    assert len(list(tmp_path.rglob("*.json"))) == 3
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: Usage(0, 0, size))  # type: ignore[attr-defined]
    assert "is more than 10% of the disk's free room" in place(tmp_path, "f").write(one)
    assert used(tmp_path) == ["a", "d", "e"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing(ask: Asker, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    expected = ask.toy("--no-cache").rows[1:4]

    def refuse(path: Path) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(kept, "atomic", refuse)
    said = ask.toy()
    assert said.code == 0
    assert columns(said.rows[1:4]) == columns(expected)
    assert said.out.count("note       the features of ") == 3
    assert os.strerror(number) in said.out
    assert ask.kept == {}


def columns(rows: list[str]) -> list[list[str]]:
    """The rows of a table without what the clock says."""
    return [row.split()[:9] for row in rows]


def test_a_file_in_the_place_of_the_folder(ask: Asker) -> None:
    Path("data/toy/.cache").mkdir(parents=True)
    Path("data/toy/.cache/features").touch()
    said = ask.toy()
    assert (said.code, said.out.count("are not kept: ")) == (0, 3)


def test_without_a_cache_nothing_is_written(ask: Asker) -> None:
    said = ask.toy("--no-cache")
    assert said.code == 0
    assert ask.kept == {}
    assert not list(Path().rglob("*.npy"))


def test_a_second_question_computes_nothing(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask.toy()
    monkeypatch.setattr("ranking.frozen.build", lambda *_: pytest.fail("features are computed anew"))
    monkeypatch.setattr(scored, "all_scores", lambda *_: pytest.fail("scores are computed anew"))
    second = ask.toy()
    assert second.rows == first.rows
    assert "features   3 of 3 backbones: kept from before" in second.out
    assert second.err == ""


def test_scores_by_other_code_are_computed_anew_of_the_same_features(
    ask: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask.toy()
    monkeypatch.setattr("ranking.frozen.build", lambda *_: pytest.fail("features are computed anew"))
    monkeypatch.setattr(scored.sklearn, "__version__", "9.9")  # type: ignore[attr-defined]
    computed = mock.Mock(wraps=vars(scored)["all_scores"])
    monkeypatch.setattr(scored, "all_scores", computed)
    assert ask.toy().rows == first.rows
    assert computed.call_count == 3
    assert ask.toy().rows == first.rows
    assert computed.call_count == 3


def test_groups_of_images_are_part_of_the_scores(tmp_path: Path) -> None:
    codes = {scored.code_of_scores(0, groups) for groups in (None, ["a", "a", "b"], ["a", "b", "b"])}
    assert len(codes | {scored.code_of_scores(1, None)}) == 4


def replaced(**changes: Any) -> Callable[[Asker, pytest.MonkeyPatch], None]:
    def change(_: Asker, patch: pytest.MonkeyPatch) -> None:
        patch.setitem(common.BACKBONES, "tiny", replace(common.BACKBONES["tiny"], **changes))

    return change


def other_weights(ask: Asker, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(common.BACKBONES, "tiny", networks.entry(ask.weights, "tiny", seed=1))


def other_code(ask: Asker, patch: pytest.MonkeyPatch) -> None:
    """A builder of one's own, whose file has changed."""
    patch.setattr("ranking.frozen.code_of", lambda *_: {"engine": "the same", "backbone": "another"})


CHANGES: dict[str, tuple[str, Callable[[Asker, pytest.MonkeyPatch], None] | None]] = {
    "weights": ("", other_weights),
    "mean of the weights": ("", None),
    "size": ("--size 24", None),
    "precision": ("--precision bf16", None),
    "decoder": ("", lambda _, patch: patch.setattr("ranking.frozen.DECODER", 99)),
    "decoder of kept pixels": ("", lambda _, patch: patch.setattr("ranking.frozen.KEPT", 99)),
    "code of the builder": ("", other_code),
    "versions": ("", lambda _, patch: patch.setattr("ranking.frozen.versions", lambda _: {"torch": "9.9"})),
    "form of the files": ("", lambda _, patch: patch.setattr(kept, "FORM", 99)),
    "shots": ("--shots 9", None),
    "seed, of random weights": ("--weights none --seed 1", None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_features_are_computed_anew(ask: Asker, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    line, change = CHANGES[what]
    models = "tiny flat"
    if "random" in what:
        assert ask.toy("--weights none", models).code == 0
    else:
        assert ask.toy("", models).code == 0
    before = ask.kept
    if what.startswith("mean"):
        weights = replace(common.BACKBONES["tiny"].weights, mean=(0.1, 0.2, 0.3))  # type: ignore[type-var]
        change = replaced(weights=weights)
    if change:
        change(ask, monkeypatch)
    passes = mock.Mock(wraps=vars(scored)["frozen"])
    monkeypatch.setattr(scored, "frozen", passes)
    assert ask.toy(line, models).code == 0
    built = [call.args[0].name for call in passes.call_args_list]
    assert "tiny" in built
    if what.partition(" ")[0] in ("weights", "mean"):
        assert built == ["tiny"]  # what is the other's stays
    assert {*before} < {*ask.kept}


def test_the_same_names_in_another_split_are_other_features(ask: Asker) -> None:
    """A part of the training images that depends on the seed."""
    few = ask.toy("--shots 9")
    assert "note       This is an order for 24 training images alone" in few.out
    before = ask.kept
    ask.toy("--shots 9 --seed 1")
    assert len(ask.kept) == 2 * len(before)


def test_a_damaged_file_leads_to_the_same_answer(ask: Asker) -> None:
    first = ask.toy()
    for path, damage in zip(sorted(Path().rglob("*.npy")), (-1, 20, 90), strict=True):
        flip(path, damage)
    second = ask.toy()
    assert second.code == 0
    assert (
        len(
            re.findall(
                r"^the kept features .* are damaged \(it is not what was written\): computed anew$", second.err, re.M
            )
        )
        == 3
    )
    assert columns(second.rows[1:4]) == columns(first.rows[1:4])
    assert ask.toy().err == ""


def _write(folder: Path, seed: int, rounds: int) -> None:
    for _ in range(rounds):
        assert place(folder).write(frozen(3000, seed)) == ""


def _write_half(folder: Path) -> None:
    def end(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    vars(kept)["write_json"] = end
    place(folder).write(frozen(seed=5))


def start(work: Callable[..., None], *given: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    return process


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Each finds its own features or the other's, which are the same, or nothing: never a mixture."""
    processes = [start(_write, tmp_path, 0, 20) for _ in range(2)]
    while any(process.is_alive() for process in processes):
        found = place(tmp_path).read(3000)
        assert found is None or (found.features == frozen(3000).features).all()
    assert [process.exitcode for process in processes] == [0, 0]
    assert place(tmp_path).write(frozen(3000)) == ""
    assert place(tmp_path).read(3000) is not None
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_kill_in_the_middle_leaves_nothing_that_is_used(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        place(tmp_path).write(frozen())
    process = start(_write_half, tmp_path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert place(tmp_path).path.is_file()  # it came so far
    assert place(tmp_path).read(6) is None
    assert place(tmp_path).write(frozen()) == ""
    assert place(tmp_path).read(6) is not None
