"""Everything that can be wrong with a command: one message that says what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.predicting.conftest import Ask, picture

RUN = "{run}"
MISTAKES = [
    ("", "the following arguments are required: RUN"),
    (f"{RUN}", "no images are given. Expected files, a folder, a pattern in quotes, or - for paths on stdin"),
    ("'' pets", "the path of the run is empty: is a shell variable not set?"),
    ("nowhere pets", "nowhere: no such run. Expected runs/DATASET/BACKBONE/RUN, or the checkpoint.pt in it"),
    (f"{RUN},nowhere pets", "nowhere is not there"),
    ("empty pets", "empty holds no checkpoint.pt, and no run that has one"),
    ("pets pets", "pets holds no checkpoint.pt, and no run that has one"),
    ("text.pt pets", "text.pt is no checkpoint that a run has left"),
    ("cut.pt pets", "cut.pt is no checkpoint that a run has left"),
    ("evil.pt pets", "evil.pt is no checkpoint that a run has left"),
    ("weights.pt pets", "weights.pt is no checkpoint that a run has left"),
    ("unfinished pets", "checkpoint.pt is of a run that has not ended. Let its own command finish it first"),
    ("only_unfinished pets", "none of 1 run in it has ended"),
    ("swapped pets", "is not the checkpoint that"),
    ("runs pets", "holds runs of several backbones or datasets. Name one of them:"),
    (f"{RUN},other pets", "can't be taken together: 3 classes of the first alone, such as cat"),
    (f"{RUN},larger pets", "images are decoded to 16x16 for the one and to 20x20 for the other"),
    ("mixed pets", "holds runs of different settings (epochs)"),
    (f"{RUN} nowhere.jpg", "nowhere.jpg: no such file or folder"),
    (f"{RUN} pets/test/cat/15.pn", "Did you mean 15.png?"),
    (f"{'a' * 300} pets", "no such run"),
    (f"{RUN},{'a' * 300} pets", "is not there"),
    (f"{RUN} {'a' * 300}", "no such file or folder"),
    (f"{RUN} empty", "empty holds no image"),
    (f"{RUN} '*.tif'", "*.tif matches no image"),
    (f"{RUN} -", "nothing came from stdin. Expected paths of images, one a line"),
    (f"{RUN} pipe.jpg", "pipe.jpg: not a regular file"),
    (f"{RUN} /dev/null", "/dev/null: not a regular file"),
    (f"{RUN} ''", "is a shell variable not set?"),
    (f"{RUN} my photos", "A path with a space in it must be in quotes: 'my photos'"),
    (f"{RUN} pets --top 0", "'0' is not a whole number from 1"),
    (f"{RUN} pets --top 4", "--top 4: the model knows 3 classes"),
    (f"{RUN} pets --top many", "'many' is not a whole number"),
    (f"{RUN} pets --reject 1.5", "'1.5' is not a probability: a number from 0 to 1"),
    (f"{RUN} pets --reject nan", "'nan' is not a probability"),
    (f"{RUN} pets -bs 0", "'0' is not a whole number from 1"),
    (f"{RUN} pets --csv --json", "not allowed with argument --csv"),
    (f"{RUN} pets --out nowhere/x.csv", "there is no folder nowhere. Make it first: mkdir -p nowhere"),
    (f"{RUN} pets --out empty --csv", "--out empty is a folder"),
    (f"{RUN} pets --out x.xlsx", "--out x.xlsx: its name does not say in which form. Add --csv, --json or --jsonl"),
    (f"{RUN} pets --out /dev/null --csv", "--out /dev/null is no regular file"),
    (f"{RUN} pets --out pets/test/cat/15.png --csv", "the file is there, and is none that predict.py wrote"),
    (f"{RUN} pets --out {RUN}/record.json", "the file is there, and is none that predict.py wrote"),
    (f"{RUN} --suspects --out {RUN}/history.csv", "the file is there, and is none that predict.py wrote"),
    (f"{RUN} pets --labels strange.csv --out strange.csv", "the file is there, and is none that predict.py wrote"),
    (f"{RUN} --suspects --raw --top 2", "--suspects takes no --top and no --raw"),
    (f"{RUN},{RUN} pets", "twice. Name each run once"),
    (f"{RUN} pets --labels nowhere.csv", "--labels nowhere.csv: no such file"),
    (f"{RUN} pets --labels strange.csv", "none of its 2 labels is a class of the model: it has ant, bee, say"),
    (f"{RUN} pets --labels columns.csv", "columns.csv"),
    (f"{RUN} pets --explain text.pt", "text.pt is a file. Expected a folder"),
    (f"{RUN} pets --explain pets", "--explain pets: there is something in it"),
    ("runs/folder-pets/tiny pets --explain new", "--explain is for one checkpoint, and"),
    (f"{RUN} pets --suspects", "--suspects is of the images that the run held out, and takes no others"),
    (f"{RUN} pets --tops 3", "unknown flag --tops. Did you mean --top?"),
    (f"{RUN} pets --device tpu", "invalid choice: 'tpu'"),
]


class Evil:
    """What a pickle runs when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def keep(folder: str, record: dict[str, Any]) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder, "record.json").write_text(json.dumps(record))


@pytest.fixture
def place(run: Path) -> Path:
    """What the commands name."""
    Path("empty").mkdir()
    os.mkfifo("pipe.jpg")
    picture(Path("my photos/1.png"), 0)
    checkpoint = (run / "checkpoint.pt").read_bytes()
    Path("text.pt").write_text("no checkpoint")
    Path("cut.pt").write_bytes(checkpoint[: len(checkpoint) // 2])
    Path("evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"x": torch.ones(2)}, "weights.pt")
    (birds,) = Path("runs/folder-birds/tiny").iterdir()
    shutil.copytree(birds, "other")
    shutil.copytree(run, "swapped")
    shutil.copy(birds / "checkpoint.pt", "swapped")
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    saved = {name: content[name] for name in ("model", "state")}
    record = {name: value for name, value in content.items() if name not in ("model", "state", "seen")}
    Path("unfinished").mkdir()
    rest: dict[str, object] = {name: {} for name in ("best", "optimizer", "scaler", "random")}
    torch.save({**saved, **rest, "unfinished": record}, "unfinished/checkpoint.pt")
    told = json.loads((run / "record.json").read_text())
    del told["checksum"]
    keep("only_unfinished/a", {**told, "status": "running"})
    keep("mixed/a", told)
    keep("mixed/b", {**told, "config": {**told["config"], "epochs": 2}})
    content["config"] = {**content["config"], "size": [20, 20]}
    content["dataset"] = {**content["dataset"], "stored_size": [20, 20]}
    torch.save(content, "larger")
    Path("strange.csv").write_text("file,label\n15.png,ant\n16.png,bee\n")
    Path("columns.csv").write_text("a,b,c\n1,2,3\n")
    return run


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_one_message_says_what_to_do(ask: Ask, place: Path, line: str, message: str) -> None:
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    said = ask(line.replace(RUN, str(place)))
    assert said.problems.startswith("error: ")
    assert message in said.problems
    assert (said.code, said.out) == (2, "")
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before
    assert "Traceback" not in said.problems
