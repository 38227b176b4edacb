"""predict.py: what it says of images is what the run said of its own, in whatever form."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from common import load
from engine.data.batches import EVALUATED
from engine.inference.checkpoint import Trained
from engine.records.schema import read_record
from predicting.decoding import Stream
from predicting.forms import form_for
from predicting.inputs import Inputs
from predicting.network import Network
from predicting.work import predicted
from tests.predicting.conftest import CLASSES, Ask, Said, picture


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def test_logits_are_those_of_the_run_bit_for_bit(run: Path) -> None:
    trained = load(run)
    network = Network.of(trained, form_for(trained, "cpu", "run", []), EVALUATED * trained.record["batch_size"])
    stream = Stream(trained.preprocessing.stored_size, network.batch_size)
    answers = [*predicted([network], stream, Inputs(["pets/test"], io.BytesIO()))]
    kept = np.load(run / "predictions.npz")
    assert [len(answer.batch.images) for answer in answers] == [16, 5]
    paths = [image.found.path for answer in answers for image in answer.batch.images]
    assert paths == [f"pets/{name}" for name in kept["names"]]
    np.testing.assert_array_equal(np.concatenate([answer.logits[0] for answer in answers]), kept["logits"])


def test_csv(ask: Ask, run: Path) -> None:
    said = ask(f"{run} pets/test --csv --form run")
    assert said.code == 0
    rows = table(said.out)
    kept = np.load(run / "predictions.npz")
    chances = softmax(kept["logits"])
    order = np.argsort(-chances, axis=1)
    for row, chance, ranks, label in zip(rows, chances, order, kept["labels"], strict=True):
        assert [row["class"], row["class_2"], row["class_3"]] == [CLASSES[index] for index in ranks]
        assert float(row["probability_3"]) == pytest.approx(chance[ranks[2]], abs=1e-6)
        assert (row["label"], row["error"]) == (CLASSES[label], "")


def test_the_metrics_are_those_of_the_record(ask: Ask, run: Path) -> None:
    said = ask(f"{run} pets/test --json --form run")
    found = json.loads(said.out)
    record = read_record(run / "record.json")
    assert record
    expected = dict(record["test"])
    metrics = found["metrics"]
    for name in ("images", "top1", "balanced_accuracy", "macro_f1", "confusion"):
        assert metrics[name] == expected[name]
    for name in ("auroc", "nll", "ece"):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
    assert found["classes"] == list(CLASSES)
    assert "top-1" in said.problems


def table(text: str) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return [*csv.DictReader(io.StringIO(text))]


def entries(said: Said) -> list[dict[str, Any]]:
    """The rows of a JSON text a line."""
    return [json.loads(line) for line in said.out.splitlines()]


def test_the_fastest_form_is_the_runs_but_for_rounding(ask: Ask, run: Path) -> None:
    fastest, exact = (entries(ask(f"{run} pets/test --jsonl {flag}")) for flag in ("", "--form run"))
    for one, other in zip(fastest, exact, strict=True):
        chances = [[each["probability"] for each in row["predictions"]] for row in (one, other)]
        assert chances[0] == pytest.approx(chances[1], abs=1e-5)
        assert one["path"] == other["path"]


def test_lines_for_people(ask: Ask, run: Path) -> None:
    said = ask(f"{run} pets/test/cat --top 1 --reject 1")
    row, *_, counted, kept, result = said.out.splitlines()
    assert re.fullmatch(r"pets/test/cat/14\.png  (cat|dog|owl) \d+\.\d\d%  rejected  \[cat\]", row)
    assert counted == "rejected   7 of 7 (100.0%): the highest probability is below 1"
    assert kept == "kept       0.00% of 7 images with labels"
    assert result.startswith("tiny, 7 images with labels: top-1 ")


def test_rejected_in_every_form(ask: Ask, run: Path) -> None:
    limit = sorted(row["predictions"][0]["probability"] for row in entries(ask(f"{run} pets/test --jsonl")))[10]
    line = f"{run} pets/test --reject {limit}"
    rows = entries(ask(f"{line} --jsonl"))
    marks = [row["rejected"] for row in rows]
    assert sum(marks) in (10, 11)  # the limit is rounded
    assert [row["rejected"] == "1" for row in table(ask(f"{line} --csv").out)] == marks
    document = json.loads(ask(f"{line} --json").out)
    assert [row["rejected"] for row in document["predictions"]] == marks
    assert document["rejected"] == sum(marks)
    kept = [row for row in rows if not row["rejected"]]
    right = sum(row["predictions"][0]["class"] == row["label"] for row in kept)
    assert document["metrics"]["coverage"] == len(kept) / 21
    assert document["metrics"]["top1_of_kept"] == right / len(kept)


def test_what_can_not_be_read_is_named_and_the_rest_goes_on(ask: Ask, run: Path) -> None:
    Path("pets/test/cat/15.png").write_bytes(b"\x89PNG no more")
    Path("pets/test/dog/15.png").write_text("text")
    said = ask(f"{run} pets/test --csv --out answers.csv")
    rows = table(Path("answers.csv").read_text("utf-8"))
    assert said.code == 3
    assert len(rows) == 21
    broken = {row["path"]: row["error"] for row in rows if row["error"]}
    assert broken.keys() == {"pets/test/cat/15.png", "pets/test/dog/15.png"}
    assert broken["pets/test/dog/15.png"] == "text, no image"
    assert all(f"{path}: {reason}" in said.problems for path, reason in broken.items())
    assert [row["class"] for row in rows if row["error"]] == ["", ""]
    assert "images     21" in said.out
    assert "2 of them could not be read" in said.out
    assert "19 images with labels" in said.out


def test_nothing_but_what_can_not_be_read(ask: Ask, run: Path) -> None:
    for form in ("", "--json", "--csv", "--jsonl"):
        said = ask(f"{run} - {form}", b"nowhere.png\n")
        assert said.code == 3
        assert "nowhere.png" in said.out
        assert "nowhere.png: no such file" in said.problems


def test_an_ensemble_is_the_mean_of_its_members(ask: Ask) -> None:
    runs = sorted(Path("runs/folder-pets/tiny").iterdir())
    assert len(runs) == 2
    expected = np.mean([softmax(np.load(run / "predictions.npz")["logits"]) for run in runs], axis=0)
    both = "runs/folder-pets/tiny", ",".join(map(str, runs))
    for named in both:
        rows = entries(ask(f"{named} pets/test --jsonl"))
        for row, chances in zip(rows, expected, strict=True):
            found = {each["class"]: each["probability"] for each in row["predictions"]}
            assert [found[name] for name in CLASSES] == pytest.approx(chances, abs=1e-5)


def test_a_run_of_the_folder_that_has_not_ended_is_left_out(ask: Ask, run: Path) -> None:
    content = json.loads((run / "record.json").read_text())
    del content["checksum"]
    (run / "record.json").write_text(json.dumps(content | {"status": "failed"}))
    said = ask(f"{run.parent} pets/test --json")
    assert said.code == 0
    assert f"left out   {run}: it has not ended" in said.problems
    assert len(json.loads(said.out)["checkpoints"]) == 1


def test_probabilities_are_calibrated_by_the_temperature_of_the_run(ask: Ask, run: Path) -> None:
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    content["calibration"] = {"temperature": 2.5, "ece_before": 0.1, "ece_after": 0.05, "images": 5}
    torch.save(content, "calibrated.pt")
    logits = np.load(run / "predictions.npz")["logits"]
    for flag, temperature in (("", 2.5), ("--raw", 1.0)):
        rows = entries(ask(f"calibrated.pt pets/test --jsonl --top 1 {flag}"))
        found = [row["predictions"][0]["probability"] for row in rows]
        assert found == pytest.approx(softmax(logits / temperature).max(axis=1), abs=1e-5)


def test_flipped(ask: Ask, run: Path) -> None:
    Path("mirrored").mkdir()
    for number in range(5):
        path = Path("small", f"{number}.png")
        picture(path, number, (16, 16))  # not resized, which would round
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(Path("mirrored", path.name))
    one, other, both = (
        [{each["class"]: each["probability"] for each in row["predictions"]} for row in entries(ask(f"{run} {line}"))]
        for line in ("small --jsonl", "mirrored --jsonl", "small --jsonl --tta flip")
    )
    for first, second, mean in zip(one, other, both, strict=True):
        assert all(mean[name] == pytest.approx((first[name] + second[name]) / 2, abs=1e-5) for name in CLASSES)


def test_labels_of_a_file(ask: Ask, run: Path) -> None:
    lines = [f"test/{name}/{index}.png,{name}" for name in CLASSES for index in range(14, 20)]
    Path("labels.csv").write_text("\n".join(["file,label", *lines, "15.jpg,cat", "birds.png,jay"]))
    Path("x").mkdir()
    shutil.copy("pets/test/cat/15.png", "x/birds.png")
    said = ask(f"{run} pets/test x --labels labels.csv --json")
    document = json.loads(said.out)
    assert document["metrics"]["images"] == 18
    assert "3 images without a label by labels.csv" in said.problems
    assert "1 image is of 1 class that the model does not know (jay): not in the result" in said.problems
    assert document["predictions"][-1]["label"] == "jay"


def test_images_that_trained_the_network_are_said(ask: Ask, run: Path) -> None:
    said = ask(f"{run} pets/train --json")
    metrics = json.loads(said.out)["metrics"]
    assert metrics["seen"] == metrics["images"] > 0
    assert (
        f"{metrics['seen']} of these {metrics['images']} images trained the network or chose its epoch" in said.problems
    )
    said = ask(f"{run} pets/test --json")
    assert json.loads(said.out)["metrics"]["seen"] == 0
    assert "trained the network" not in said.problems


def test_a_folder_of_no_class_has_no_metrics(ask: Ask, run: Path) -> None:
    shutil.copytree("pets/test/cat", "photos")
    said = ask(f"{run} photos --json")
    assert json.loads(said.out)["metrics"] is None
    assert "with labels" not in said.problems


def test_explained(ask: Ask, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[int, ...], int]] = []

    class Explainer:
        def __init__(self, trained: Trained, model: torch.nn.Module, device: str) -> None:
            assert (trained.classes, model.training, device) == (CLASSES, False, "cpu")

        def overlay(self, stored: np.ndarray, label: int) -> Image.Image:
            seen.append((stored.shape, label))
            return Image.fromarray(stored)

    monkeypatch.setitem(sys.modules, "predicting.explain", SimpleNamespace(Explainer=Explainer))
    shutil.copy("pets/test/cat/15.png", "../ü &.png")
    (Path("pets") / "broken.png").write_bytes(b"")
    said = ask(f"{run} pets/test/cat/15.png pets/test/dog/15.png pets/broken.png '../ü &.png' --explain new --jsonl")
    names = ["000001-15.png.png", "000002-15.png.png", "000004-___.png.png"]
    assert sorted(path.name for path in Path("new").iterdir()) == names
    rows = [row for row in entries(said) if not row["error"]]
    assert seen == [((16, 16, 3), CLASSES.index(row["predictions"][0]["class"])) for row in rows]


def test_suspects_are_shown_by_their_own_module(ask: Ask, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    module = SimpleNamespace(show_suspects=lambda *given: asked.extend(given))
    monkeypatch.setitem(sys.modules, "predicting.suspects", module)
    assert ask(f"{run} --suspects --csv --out suspects.csv").code == 0
    assert asked == [run, Path("suspects.csv"), "csv"]


def test_names_of_any_kind(ask: Ask, run: Path) -> None:
    names = ["a\nb.png", 'c,"d".png', "\x1b[2Je.png", "\udcff.png", "f g.png"]
    for name in names:
        Path("odd").mkdir(exist_ok=True)
        shutil.copy("pets/test/cat/15.png", Path("odd") / name)
    paths = [f"odd/{name}" for name in sorted(names)]
    assert [row["path"] for row in entries(ask(f"{run} odd --jsonl"))] == paths
    assert ask(f"{run} odd --csv --out odd.csv").code == 0
    shown = [path.replace("\udcff", r"\udcff") for path in paths]
    assert [row["path"] for row in table(Path("odd.csv").read_text("utf-8"))] == shown
    text = ask(f"{run} odd").out
    assert "\x1b" not in text
    assert r"a\nb.png" in text


def test_an_empty_stdin_and_one_that_is_closed(ask: Ask, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing came from stdin" in ask(f"{run} -").problems
    monkeypatch.setattr(sys, "stdin", None)
    assert predict.main([str(run), "pets/test/cat/15.png", "--device", "cpu"]) == 0


def test_images_may_stand_before_and_behind_flags(ask: Ask, run: Path) -> None:
    names = [f"pets/test/cat/{number}.png" for number in range(14, 18)]
    said = ask(f"{run} --jsonl {names[0]} --top 1 {names[1]} {names[2]} --raw -- {names[3]}")
    assert [row["path"] for row in entries(said)] == names
