"""The likely label errors of a run, or of all its folds: that changed labels are found, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import common
from common import Dataset, Part, RawSplits, ReadOptions
from engine.errors import UserError
from engine.files import json_digest
from predicting.suspects import show_suspects
from tests import toy

LINE = "-model tiny -bs 16 --weights none --plan off --precision fp32 --lr 0.02 --epochs 6 --augment none --device cpu "
LINE += "--no-cache"
CHANGED = ("train/10", "train/31", "train/52", "test/4", "test/23")  # images that get a wrong label


def mislabelled(folder: Path) -> Dataset:
    """Images of three shades, some of which have the label of the next one."""

    def part(images: int, seed: int, name: str) -> Part:
        right = toy.on_disk(toy.part(images, seed, name), folder)
        return replace(right, labels=(right.labels + np.isin(right.names, CHANGED)) % 3)

    def read(_: ReadOptions) -> RawSplits:
        return RawSplits(toy.CLASSES, part(180, 1, "train"), part(60, 2, "test"))

    return replace(toy.dataset(180, 60), read=read, own_folder=folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, and of the two folds of another."""
    out, dataset = tmp_path_factory.mktemp("runs"), mislabelled(tmp_path_factory.mktemp("images"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(common.BACKBONES, "tiny", toy.TINY)
        for more in ("", "--folds 2"):
            with pytest.raises(SystemExit) as ended:
                common.main(dataset, shlex.split(f"{LINE} --out {out} {more}"))
            assert ended.value.code == 0
    return out / "toy" / "tiny"


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(runs, tmp_path / "toy" / "tiny")


def one(runs: Path) -> Path:
    (folder,) = (path for path in runs.iterdir() if "fold" not in path.name)
    return folder


def fold(runs: Path, number: int = 1) -> Path:
    (folder,) = runs.glob(f"*fold{number}of2*")
    return folder


def test_changed_labels_are_found_in_the_test_part(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_suspects(one(runs), None, "jsonl")
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    found = [row for row in rows if row["file"] in CHANGED]
    assert found
    for row in found:
        right = int(row["file"].partition("/")[2]) % 3
        assert (row["given"], row["suggested"]) == (toy.CLASSES[(right + 1) % 3], toy.CLASSES[right])
        assert row["probability_given"] < row["probability_suggested"]
    assert [row["rank"] for row in rows] == [*range(1, len(rows) + 1)]
    assert not any(row["file"].startswith("train/") for row in rows)
    assert "only the 60 test images were looked at" in said.err
    assert "look at the other 180, too" in said.err


def test_of_a_fold_all_images_are_looked_at(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for number in (1, 2):
        show_suspects(fold(runs, number), None, "jsonl")
        said = capsys.readouterr()
        found.append(said.out)
        assert f"suspects   {len(said.out.splitlines())} of 240 images: tiny on Toy, seed 0, 2 folds" in said.err
        assert "were looked at" not in said.err
    assert found[0] == found[1]
    files = [json.loads(line)["file"] for line in found[0].splitlines()]
    assert files[0] in CHANGED
    assert len({*files} & {*CHANGED}) >= 3
    assert {file.partition("/")[0] for file in files} == {"train", "test"}


def test_every_form_says_the_same(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for form in ("", "csv", "json", "jsonl"):
        show_suspects(one(runs), None, form)
        said = capsys.readouterr()
        show_suspects(one(runs), tmp_path / f"out.{form}", form)
        texts[form] = (tmp_path / f"out.{form}").read_text("utf-8")
        assert f"written    {tmp_path / f'out.{form}'}" in capsys.readouterr().out
        assert said.out.endswith(texts[form])
        assert bool(said.err) == bool(form)
    rows = json.loads(texts["json"])
    assert [json.loads(line) for line in texts["jsonl"].splitlines()] == rows
    assert [row["file"] for row in csv.DictReader(io.StringIO(texts["csv"]))] == [row["file"] for row in rows]
    assert [line.split()[-1] for line in texts[""].splitlines()[1:]] == [row["file"] for row in rows]


def test_the_checkpoint_names_its_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_suspects(one(runs), None, "csv")
    first = capsys.readouterr().out
    show_suspects(one(runs) / "checkpoint.pt", None, "csv")
    assert capsys.readouterr().out == first


def test_names_of_files_give_a_terminal_no_commands(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_predictions(one(copied), lambda kept: kept | {"names": np.char.add(kept["names"], "\x1b[2J\nx")})
    show_suspects(one(copied), None, "")
    assert "\x1b" not in capsys.readouterr().out


def change_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let the record say something else, and seal it again."""
    record = json.loads((folder / "record.json").read_text())
    record.pop("checksum")
    change(record)
    (folder / "record.json").write_text(json.dumps({**record, "checksum": json_digest(record)}))


def change_predictions(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the predictions be others, which no record names."""
    with np.load(folder / "predictions.npz") as kept:
        content = change(dict(kept))
    np.savez(folder / "predictions.npz", **content)
    change_record(folder, lambda record: record["files"].pop("predictions.npz"))


def overwritten(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def not_finite(kept: dict[str, Any]) -> dict[str, Any]:
    return kept | {"logits": np.full_like(kept["logits"], np.nan)}


def of_kind(kind: str) -> Callable[[Path], object]:
    return lambda folder: change_predictions(folder, lambda kept: kept | {"logits": kept["logits"].astype(kind)})


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_names_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(UserError, match="is not there"):
        show_suspects(Path(name), None, "")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "is not there. Expected the folder of a finished run"),
        (lambda folder: (folder / "record.json").unlink(), "has no record.json in it"),
        (overwritten("record.json", b"{"), "not readable JSON"),
        (overwritten("record.json", b'{"schema": 99, "run": "x"}'), "has schema 99"),
        (lambda folder: change_record(folder, lambda record: record.update(status="running")), "has not ended"),
        (lambda folder: change_record(folder, lambda record: record.update(calibration=5)), "calibration is 5"),
        (lambda folder: (folder / "predictions.npz").unlink(), "predictions.npz is not there"),
        (overwritten("predictions.npz", b"PK no zip"), "it is not the file that the record names"),
        (
            lambda folder: shutil.copy(fold(folder.parent) / "predictions.npz", folder),
            "it is not the file that the record names",
        ),
        (lambda folder: change_predictions(folder, lambda kept: {"names": kept["names"]}), "is damaged"),
        (lambda folder: change_predictions(folder, lambda kept: kept | {"logits": kept["logits"][:, :2]}), "3 classes"),
        (lambda folder: change_predictions(folder, lambda kept: kept | {"labels": kept["labels"] + 1}), "labels must"),
        (lambda folder: change_predictions(folder, lambda kept: kept | {"names": kept["names"][1:]}), "names (59,)"),
        (lambda folder: change_predictions(folder, not_finite), "are not finite"),
        (of_kind("U20"), "logits <U20, expected text and numbers"),
        (of_kind("c16"), "logits complex128, expected text and numbers"),
    ],
)
def test_what_a_run_lacks_or_has_wrong(copied: Path, harm: Callable[[Path], object], says: str) -> None:
    folder = one(copied)
    harm(folder)
    with pytest.raises(UserError) as refused:
        show_suspects(folder, None, "")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "harm",
    [
        shutil.rmtree,
        lambda folder: (folder / "record.json").write_text("{"),
        lambda folder: change_record(folder, lambda record: record.update(status="failed")),
        lambda folder: change_record(folder, lambda record: record["dataset"].update(division="0" * 64)),
        lambda folder: change_record(folder, lambda record: record["config"].update(seed=1)),
    ],
    ids=["gone", "damaged", "failed", "other images", "other seed"],
)
def test_a_fold_that_is_missing_is_named_with_the_command(copied: Path, harm: Callable[[Path], object]) -> None:
    harm(fold(copied, 2))
    with pytest.raises(UserError) as refused:
        show_suspects(fold(copied), None, "")
    assert "1 fold is not finished beside it (2)" in str(refused.value)
    assert "without --fold: python " in str(refused.value)


def test_predictions_of_a_sibling_fold_that_are_damaged(copied: Path) -> None:
    (fold(copied, 2) / "predictions.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"fold2of2.*not the file that the record names"):
        show_suspects(fold(copied), None, "")


def test_where_it_can_not_be_written(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "nowhere" / "out.csv", tmp_path / "file" / "out.csv"):
        with pytest.raises(UserError, match=r"can't write .*: .* Make room"):
            show_suspects(one(runs), out, "csv")
    assert (tmp_path / "file").read_text() == "mine"
