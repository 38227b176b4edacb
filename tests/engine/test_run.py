"""A whole command: what it prints, what it leaves behind, and that doing it again does the right thing."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import jsonschema
import numpy as np
import pytest
import torch
from torchvision.models import VisionTransformer

import common
from common import Dataset, Part, RawSplits, ReadOptions
from engine.config import asked_settings
from engine.records.identity import codes_of
from engine.records.schema import json_schema
from engine.training.evaluation import predict
from engine.training.loop import fit
from engine.training.metrics import evaluate
from engine.training.plan import Plan
from tests import toy
from tests.conftest import Command, only_run

QUICK = "-model tiny -bs 16 --weights none --plan off --epochs 2"


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return record


def test_a_run_leaves_a_whole_record(command: Command, tmp_path: Path) -> None:
    assert command(QUICK) == 0
    folder = only_run(tmp_path / "runs")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "record.json",
        "history.csv",
        "checkpoint.pt",
        "predictions.npz",
        "errors.npz",
        "split.json",
    }
    assert folder.parent == tmp_path / "runs" / "toy" / "tiny"
    record = record_of(folder)
    jsonschema.validate(record, json_schema())
    assert record["status"] == "done"
    assert record["dataset"]["counts"] == {"available": 60, "train": 54, "val": 6, "test": 21}
    assert record["costs"]["parameters"] == 3 * 8 * 9 + 8 + 16 + 33 * 3
    assert record["costs"]["macs"] == 7 * 7 * 8 * 27 + 32 * 3
    assert record["normalisation"]["mean"] == [0.485, 0.456, 0.406]

    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["stage"] for row in history] == ["adamw", "adamw", "sgd", "sgd"]
    assert record["selection"]["top1"] == max(float(row["val_top1"]) for row in history)

    predictions = np.load(folder / "predictions.npz")
    assert list(predictions["names"]) == [f"test/{i}" for i in range(21)]
    assert evaluate(predictions["logits"], predictions["labels"]) == record["test"]

    split = json.loads((folder / "split.json").read_text())
    assert split["hash"] == record["dataset"]["split"]
    assert {part: len(rows) for part, rows in split["parts"].items()} == {"train": 54, "val": 6, "test": 21}


def test_the_checkpoint_alone_gives_the_same_predictions(command: Command, tmp_path: Path) -> None:
    assert command(f"{QUICK} --precision fp32") == 0
    folder = only_run(tmp_path / "runs")
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    model = common.build_model("tiny", len(checkpoint["dataset"]["classes"]), "none")
    model.load_state_dict(checkpoint["model"])
    test = toy.part(21, 2, "test")
    pixels = torch.from_numpy(test.pixels()).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, checkpoint["config"]["size"], mode="bilinear", antialias=True)
    mean, std = (torch.tensor(checkpoint["normalisation"][key]).reshape(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        logits = model.eval()((pixels - mean) / std)
    np.testing.assert_allclose(logits, np.load(folder / "predictions.npz")["logits"], atol=1e-5)


def test_what_is_printed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command(QUICK)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Toy: train 60 (54 to train + 6 val), test 21, 3 classes"
    assert [line.split()[0] for line in lines[1:7]] == [
        "backbone",
        "recipe",
        "training",
        "protocol",
        "record",
        "plan",
    ]
    assert len({len(line) for line in lines[7:12]}) == 1  # columns that line up
    assert lines[-1].startswith("tiny on Toy, 21 test images: top-1 ")
    assert lines[-1].endswith("[not pretrained]")
    assert "top-5" not in lines[-1]


def test_done_prints_its_record_and_trains_nothing(command: Command, tmp_path: Path, capsys: Any) -> None:
    command(QUICK)
    first = capsys.readouterr().out.splitlines()
    before = {path: path.read_bytes() for path in only_run(tmp_path / "runs").iterdir()}
    assert command(QUICK) == 0
    assert capsys.readouterr().out.splitlines() == first[-3:]
    assert {path: path.read_bytes() for path in only_run(tmp_path / "runs").iterdir()} == before


def test_rerun_starts_over_and_ends_the_same(command: Command, tmp_path: Path) -> None:
    command(QUICK)
    folder = only_run(tmp_path / "runs")
    before, started = (folder / "checkpoint.pt").stat().st_mtime_ns, record_of(folder)
    assert command(f"{QUICK} --rerun") == 0
    assert (folder / "checkpoint.pt").stat().st_mtime_ns > before
    assert record_of(folder)["test"] == started["test"]


OTHERS = (
    "-bs 8",
    "--seed 1",
    "--lr 1e-4",
    "--protocol paper",
    "--tune linear",
    "--size 24",
    "--augment none",
    "--epochs 3",
    "--shots 5",
    "--recipe cosine",
)


def test_another_command_is_another_run(command: Command, tmp_path: Path) -> None:
    for number, other in enumerate(("", *OTHERS), 1):
        assert command(f"{QUICK} {other}") == 0
        assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == number, other


def test_where_things_lie_does_not_make_another_run(command: Command, tmp_path: Path) -> None:
    command(QUICK)
    assert command(f"{QUICK} --data-dir elsewhere --allow-partial") == 0
    assert only_run(tmp_path / "runs")


def test_changed_data_is_another_run(command: Command, tmp_path: Path) -> None:
    command(QUICK)
    plain = toy.dataset()

    def read(source: ReadOptions) -> RawSplits:
        raw = plain.read(source)
        assert isinstance(raw.train.images, np.ndarray)
        raw.train.images[7, 0, 0, 0] ^= 1
        return raw

    command(QUICK, replace(plain, read=read))
    assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == 2


def test_partial_data_is_refused_then_marked(command: Command, tmp_path: Path, capsys: Any) -> None:
    declared = replace(toy.dataset(), train_images=70)
    assert command(QUICK, declared) == 2
    assert "60 train images instead of 70" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert command(f"{QUICK} --allow-partial", declared) == 0
    record = record_of(only_run(tmp_path / "runs"))
    assert record["dataset"]["partial"] is True
    assert record["dataset"]["differences"] == ["60 train images instead of 70"]
    assert "partial data: not to be compared" in capsys.readouterr().out.splitlines()[-1]


def test_two_classes(command: Command, tmp_path: Path) -> None:
    assert command(QUICK, toy.dataset(classes=2)) == 0
    metrics = record_of(only_run(tmp_path / "runs"))["test"]
    assert metrics["top5"] is None
    assert 0 <= metrics["auroc"] <= 1


@pytest.mark.parametrize(("train", "batch_size", "steps"), [(20, 17, 1), (20, 6, 3), (19, 64, 1)])
def test_a_last_batch_of_one_image_is_left_out(command: Command, train: int, batch_size: int, steps: int) -> None:
    """20 images less 2 or 3 of val leave 18 or 17 to train: with batches of 17, one image stays alone."""
    seen = []

    def counting() -> torch.nn.Module:
        model = toy.tiny()
        model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])) if module.training else None)
        return model

    common.BACKBONES["tiny"] = replace(toy.TINY, builder=counting)
    assert (
        command(f"-model tiny -bs {batch_size} --weights none --epochs 1 --plan off", toy.dataset(train=train, test=6))
        == 0
    )
    assert seen
    assert min(seen) > 1
    assert len(seen) == 2 * steps


def test_a_second_process_at_the_same_run_is_turned_away(command: Command, tmp_path: Path, capsys: Any) -> None:
    command(QUICK)
    folder = only_run(tmp_path / "runs")
    with filelock.FileLock(folder / ".lock"):
        assert command(f"{QUICK} --rerun") == 2
    assert "another process" in capsys.readouterr().err
    assert record_of(folder)["status"] == "done"


def test_check_leaves_nothing_behind(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command(f"{QUICK} --check") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("ok")][-1] == (
        "ok: saving and loading"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_only_the_model_itself_refuses(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The entry of a backbone of one's own may not say which sizes it takes."""

    def transformer() -> torch.nn.Module:
        sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8}
        model: torch.nn.Module = VisionTransformer(image_size=48, patch_size=16, **sizes)
        return model

    monkeypatch.setitem(common.BACKBONES, "vit", common.Backbone(transformer, toy.TINY.weights, "heads.head"))
    line = QUICK.replace("-model tiny", "-model vit")
    assert command(line) == 2
    assert "can't take images of 16x16 pixels" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert command(f"{line} --size 48") == 0


def test_a_non_finite_loss_fails_the_run_with_advice(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command(f"{QUICK} --lr 1e6 --precision fp32") == 3
    message = capsys.readouterr().err
    assert "--lr" in message
    assert "Traceback" not in message
    record = record_of(only_run(tmp_path / "runs"))
    jsonschema.validate(record, json_schema())
    assert record["status"] == "failed"
    assert "loss" in record["error"] or "outputs" in record["error"]
    assert command(f"{QUICK} --lr 1e6 --precision fp32") == 3  # the same command tries again


def test_memory_that_runs_out_fails_the_run_with_advice(command: Command, tmp_path: Path, capsys: Any) -> None:
    def greedy() -> torch.nn.Module:
        model = toy.tiny()

        def exhaust(module: torch.nn.Module, _: Any) -> None:
            if module.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

        model.register_forward_pre_hook(exhaust)
        return model

    common.BACKBONES["tiny"] = replace(toy.TINY, builder=greedy)
    assert command(QUICK) == 3
    assert "smaller -bs" in capsys.readouterr().err
    assert record_of(only_run(tmp_path / "runs"))["status"] == "failed"


def test_a_full_disk_fails_the_run_and_the_same_command_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = torch.save
    saves = []

    def save(content: Any, file: Any) -> None:
        saves.append(content)
        if len(saves) == 3:
            raise OSError(28, "No space left on device")
        real(content, file)

    monkeypatch.setattr(torch, "save", save)
    assert command(QUICK) == 3
    assert "make room" in capsys.readouterr().err
    assert command(QUICK) == 0
    resumed = record_of(only_run(tmp_path / "runs"))
    command(f"{QUICK} --out undisturbed")
    assert record_of(only_run(tmp_path / "undisturbed"))["test"] == resumed["test"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_dataset_is_one_file_and_a_backbone_one_entry(tmp_path: Path) -> None:
    """The toy is such a file; run it as a user would, whose terminal has no Unicode."""
    line = "-model tiny -bs 16 --weights none --epochs 1 --device cpu"
    done = subprocess.run(
        [sys.executable, toy.__file__, *line.split(), "--out", tmp_path / "ö"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record, _, result = done.stdout.splitlines()[-3:]
    assert record.startswith(f"record     {tmp_path}/\\xf6/toy/tiny/")
    assert result.startswith("tiny on Toy, 21 test images: top-1 ")


def test_honest_never_shows_test_to_fit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one image of the test part may pass through the model before the one time that it is scored."""
    data = toy.dataset()
    test_means = set(np.round(toy.part(21, 2, "test").pixels().mean((1, 2, 3)), 6))
    calls: list[str] = []

    def watched_fit(model: Any, train: Any, val: Any, *rest: Any) -> Any:
        for given in (train, val):
            assert not test_means & set(np.round(given.part.pixels().mean((1, 2, 3)), 6))
            assert not any(name.startswith("test/") for name in given.part.names)
        calls.append("fit")
        return fit(model, train, val, *rest)

    def watched_predict(model: Any, batches: Any, *rest: Any) -> Any:
        assert all(name.startswith("test/") == (batches.name == "test") for name in batches.part.names)
        calls.append(batches.name)
        return predict(model, batches, *rest)

    monkeypatch.setattr("engine.run.fit", watched_fit)
    monkeypatch.setattr("engine.run.predict", watched_predict)
    assert command(QUICK, data) == 0
    assert calls == ["fit", "val", "test"]


def test_test_labels_cannot_change_an_honest_run(command: Command, tmp_path: Path) -> None:
    """With other test labels, everything but the test metrics stays bit for bit the same."""
    plain = toy.dataset()

    def read(source: ReadOptions) -> RawSplits:
        raw = plain.read(source)
        return replace(raw, test=replace(raw.test, labels=(raw.test.labels + 1) % 3))

    command(f"{QUICK} --epochs 3")
    command(f"{QUICK} --epochs 3 --out other", replace(plain, read=read))
    first, second = only_run(tmp_path / "runs"), only_run(tmp_path / "other")
    assert record_of(first)["selection"] == record_of(second)["selection"]
    assert record_of(first)["test"] != record_of(second)["test"]
    logits = [np.load(folder / "predictions.npz")["logits"] for folder in (first, second)]
    np.testing.assert_array_equal(*logits)


def test_paper_trains_on_all_and_chooses_on_test(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command(f"{QUICK} --protocol paper") == 0
    out = capsys.readouterr().out
    assert "Toy: train 60, test 21 (also chooses the epoch), 3 classes" in out
    assert "optimistic: test chose the epoch" in out.splitlines()[-1]
    record = record_of(only_run(tmp_path / "runs"))
    assert record["dataset"]["counts"] == {"available": 60, "train": 60, "val": 21, "test": 21}
    assert record["selection"]["part"] == "test"
    assert record["selection"]["top1"] == record["test"]["top1"]
    with (only_run(tmp_path / "runs") / "history.csv").open() as file:
        columns = next(csv.reader(file))
    assert {"test_loss", "test_top1"} < set(columns)
    assert not any(column.startswith("val_") for column in columns)
    assert record["normalisation"] == {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}


def unequal() -> Dataset:
    """60 dark images to train on, 6 of the middle, 3 light ones; 42 of test, 2 and 2."""

    def of(counts: Sequence[int], seed: int, name: str) -> Part:
        labels = np.repeat(np.arange(3), counts)
        pixels = 60 * labels[:, None, None, None] + np.random.default_rng(seed).integers(0, 120, (len(labels), 8, 8, 3))
        return Part(pixels.clip(0, 255).astype(np.uint8), labels, [f"{name}/{i}" for i in range(len(labels))])

    def read(_: ReadOptions) -> RawSplits:
        return RawSplits(toy.CLASSES, of((60, 6, 3), 1, "train"), of((42, 2, 2), 2, "test"))

    return replace(toy.dataset(69, 46), read=read)


def test_classes_that_count_the_same_and_an_epoch_that_balanced_accuracy_chose(
    command: Command, tmp_path: Path, capsys: Any
) -> None:
    line = "-model tiny -bs 16 --weights none --plan off --epochs 3"
    assert command(f"{line} --out plain", unequal()) == 0
    assert "a class has 21 times the test images of another: judge by balanced accuracy" in capsys.readouterr().out
    settings = "--class-weights balanced --select balanced_accuracy"
    assert command(f"{line} {settings} --out own", unequal()) == 0
    out = capsys.readouterr().out
    assert "classes weighted to count the same, seed 0" in out
    assert "chooses the epoch by balanced accuracy; test is scored once" in out
    assert "val balanced     best" in out
    record, plain = record_of(only_run(tmp_path / "own")), record_of(only_run(tmp_path / "plain"))
    assert (asked_settings(plain["config"]).keys() | {"class_weights", "select"}) == asked_settings(
        record["config"]
    ).keys()
    assert (plain["class_weights"], plain["selection"].keys()) == (None, {"part", "top1", "epoch", "stage"})
    train = json.loads((only_run(tmp_path / "own") / "split.json").read_text())["parts"]["train"]
    images = np.bincount([label for _, label in train])
    assert record["class_weights"] == pytest.approx((len(train) / (3 * images)).tolist())
    torch.load(only_run(tmp_path / "own") / "checkpoint.pt", weights_only=True)  # or no interrupted run could go on
    with (only_run(tmp_path / "own") / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["val_balanced_accuracy"]) for row in rows]
    assert record["selection"]["epoch"] == 1 + scores.index(max(scores))
    assert record["selection"]["balanced_accuracy"] == max(scores)
    assert record["selection"]["top1"] == float(rows[record["selection"]["epoch"] - 1]["val_top1"])
    assert all(float(row["best_balanced_accuracy"]) == max(scores[: n + 1]) for n, row in enumerate(rows))
    jsonschema.validate(record, json_schema())


def test_a_sweep_chooses_by_what_chooses_the_epoch(command: Command, tmp_path: Path, capsys: Any) -> None:
    line = "-model tiny -bs 16 --weights none --plan off --recipe cosine --epochs 4 --lr-sweep --select macro_f1"
    assert command(line, unequal()) == 0
    record = record_of(only_run(tmp_path / "runs"))
    best = max(record["sweep"], key=lambda row: (row["macro_f1"], -row["loss"]))
    assert record["lr"] == best["lr"]
    assert f"learning rate {best['lr']:g} is best on val: " in capsys.readouterr().out
    jsonschema.validate(record, json_schema())


def test_a_broken_dataset_declaration_is_a_fault_of_the_program(command: Command, capsys: Any) -> None:
    def read(_: ReadOptions) -> RawSplits:
        raise ZeroDivisionError("a bug")

    broken: Dataset = replace(toy.dataset(), read=read)
    assert command(QUICK, broken) == 3
    assert "please report" in capsys.readouterr().err


def test_weights_of_an_earlier_run_on_the_same_data_are_told(command: Command, tmp_path: Path, capsys: Any) -> None:
    """They may have been trained, or chosen, on what now judges; and they bring their own normalisation."""
    assert command(f"{QUICK} --protocol paper --out earlier") == 0
    earlier = only_run(tmp_path / "earlier")
    capsys.readouterr()
    assert command(f"-model tiny -bs 16 --epochs 1 --weights {earlier / 'checkpoint.pt'}") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "its weights have seen 21 of the 21 test images" in last
    assert "not pretrained" in last
    record = record_of(only_run(tmp_path / "runs"))
    told = {"run": earlier.name, "dataset": "toy", "protocol": "paper", "seed": 0, "weights": "none", "seen": 21}
    assert record["backbone"]["weights_run"] == told
    assert record["normalisation"] == {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}
    jsonschema.validate(record, json_schema())


def test_other_class_names_are_another_run(command: Command, tmp_path: Path) -> None:
    plain = toy.dataset()
    command(QUICK)
    command(QUICK, replace(plain, read=lambda source: replace(plain.read(source), classes=("a", "b", "c"))))
    assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == 2


@pytest.mark.parametrize(
    "flags",
    [
        ("-bs 54", "-bs 500"),
        ("", "--lr 1e-3"),
        ("--recipe cosine --epochs 125", "--recipe cosine"),
        ("--weights a.pth", "--weights b.pth"),
    ],
    ids=["batch size", "learning rate", "epochs", "weights"],
)
def test_flags_that_come_to_the_same_are_the_same_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, str]
) -> None:
    def trained(model: Any, train: Any, val: Any, recipe: Any, plan: Any, *run: Any) -> Any:
        return fit(model, train, val, replace(recipe, epochs=1), plan, *run)

    monkeypatch.setattr("engine.run.fit", trained)
    torch.save(toy.tiny().state_dict(), "a.pth")
    shutil.copy("a.pth", "b.pth")
    for flag in flags:
        assert command(f"-model tiny -bs 16 --weights none --plan off {flag}") == 0
    assert only_run(tmp_path / "runs")


def test_the_final_checkpoint_says_done(command: Command, tmp_path: Path) -> None:
    command(QUICK)
    folder = only_run(tmp_path / "runs")
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    record = record_of(folder)
    del record["checksum"], record["files"]["checkpoint.pt"]  # which are not known before it is written
    assert {key: value for key, value in checkpoint.items() if key not in ("model", "state", "seen")} == record


def test_what_other_code_made_is_told(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed training loop: a finished run is shown, one that was begun goes on, neither without a word."""
    monkeypatch.setattr("engine.run.code_of", lambda *_: {"engine": "1", "script": "1", "backbone": "1"})
    assert command(QUICK) == 0
    with monkeypatch.context() as patch:
        patch.setattr("engine.run.predict", raise_interrupt)
        assert command(f"{QUICK} --seed 1") == 130
    capsys.readouterr()
    assert command(QUICK) == 0
    assert "other code" not in capsys.readouterr().out
    monkeypatch.setattr("engine.run.code_of", lambda *_: {"engine": "2", "script": "1", "backbone": "1"})
    for flag, what in (("", "this result was made"), ("--seed 1", "the epochs so far were trained")):
        assert command(f"{QUICK} {flag}") == 0
        printed = capsys.readouterr().out
        assert f"note       {what} by other code than what is here now (engine/ differs)" in printed
        assert "--rerun starts over" in printed
    finished, resumed = (record_of(path.parent) for path in sorted((tmp_path / "runs").glob("*/*/*/record.json")))
    assert [code["engine"] for code in codes_of(finished)] == ["1"]
    assert [code["engine"] for code in codes_of(resumed)] == ["1", "2"]
    jsonschema.validate(resumed, json_schema())
    assert command(f"{QUICK} --rerun") == 0
    assert "other code" not in capsys.readouterr().out
    assert codes_of(record_of(tmp_path / "runs" / "toy" / "tiny" / finished["run"])) == [
        {"engine": "2", "script": "1", "backbone": "1"}
    ]


def test_all_seeds_of_a_cell_have_one_plan(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured anew may come out otherwise, and the spread over seeds is then not of seeds alone."""
    forms = iter([("bf16", "NHWC"), ("fp32", "NCHW"), ("fp32", "NHWC")])

    def measure(plan: Plan, *_: Any) -> Plan:
        precision, layout = next(forms)
        return replace(plan, precision=precision, layout=layout, reason="it is faster")

    monkeypatch.setattr("engine.run.fastest_plan", measure)
    line = "-model tiny --weights none --epochs 1"
    for flags in ("-bs 16", "-bs 16 --seed 3", "-bs 20 --seed 3", "-bs 16 --rerun", "-bs 20 --lr 0.1"):
        assert command(f"{line} {flags}") == 0
    plans = [text for text in capsys.readouterr().out.splitlines() if text.startswith("plan ")]
    assert [text.rpartition("), ")[2] for text in plans] == [
        "bf16 NHWC: it is faster",
        "bf16 NHWC: as seed 0 was trained",
        "fp32 NCHW: it is faster",
        "bf16 NHWC: as seed 3 was trained",
        "fp32 NHWC: it is faster",
    ]
    for path in (tmp_path / "runs").glob("*/*/*/record.json"):
        jsonschema.validate(record_of(path.parent), json_schema())


def test_a_seed_on_another_machine_has_a_plan_of_its_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(plan: Plan, *_: Any) -> Plan:
        measured.append(plan.device_name)
        return plan

    monkeypatch.setattr("engine.run.fastest_plan", measure)
    for seed, name in enumerate(["a processor, 2 threads", "a processor, 1 thread", "another, 1 thread"]):
        monkeypatch.setattr("engine.training.plan.device_name", lambda _, name=name: name)
        assert command(f"-model tiny -bs 16 --weights none --epochs 1 --seed {seed}") == 0
    assert measured == ["a processor, 2 threads", "another, 1 thread"]


def test_paths_in_records_are_absolute(command: Command, tmp_path: Path) -> None:
    torch.save(toy.tiny().state_dict(), "own.pth")
    assert command("-model tiny -bs 16 --plan off --epochs 1 --weights own.pth --data-dir d") == 0
    record = record_of(only_run(tmp_path / "runs"))
    assert record["config"]["weights"] == str(tmp_path / "own.pth")
    assert [record["config"][name] for name in ("data_dir", "out")] == [str(tmp_path / "d"), str(tmp_path / "runs")]
    assert record["dataset"]["place"] == str(tmp_path / "d")
    assert record["environment"]["folder"] == str(tmp_path)


def raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_processor_memory_that_runs_out_is_told_as_such(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def exhaust(*_: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("engine.run.fit", exhaust)
    assert command(QUICK) == 3
    message = capsys.readouterr().err
    assert "smaller -bs" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("streams", "code"),
    [({"printed": ""}, 0), ({"problems": ""}, 0), ({"printed": "/dev/full"}, 3)],
    ids=["stdout closed", "stderr closed", "stdout full"],
)
def test_streams_that_are_closed_or_full(tmp_path: Path, streams: dict[str, Any], code: int) -> None:
    process = toy.Process("-bs 16 --weights none --plan off --epochs 1 --out .", tmp_path, **streams)
    assert process.wait() == code
    assert "problems" in streams or "Traceback" not in process.problems
    assert len(list(tmp_path.rglob("record.json"))) == (code == 0)
