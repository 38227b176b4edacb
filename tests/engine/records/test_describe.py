"""What a record says of a run, and the images of its worst errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import Dataset, RawSplits, ReadOptions
from engine.data.part import Part
from engine.records.describe import TILE, Outcome, results, tiles_of_errors
from engine.records.mistakes import WORST, worst_rows
from engine.training.state import State
from tests import toy
from tests.conftest import Command, only_run

SPEED = {"seconds": 2.0, "images_per_second": 50.0, "compute_images_per_second": 60.0, "data_wait_share": 0.1}


def outcome(images: int = 21) -> Outcome:
    logits = np.random.default_rng(0).normal(size=(images, 3)).astype(np.float32)
    return Outcome(toy.part(images, 2, "test"), logits, SPEED)


def trained(*seconds: float, energy: float | None = None) -> State:
    """Of epochs that took so long; the second is the best."""
    state = State(peak_memory_mib=512.0, energy_joules=energy)
    for number, each in enumerate(seconds):
        row = {"stage": "adamw" if number < 2 else "sgd"} | SPEED | {"seconds": each, "images_per_second": 100 / each}
        top1 = 0.5 if number == 1 else 0.1
        state.record_epoch(row | {"val_top1": top1, "test_top1": top1}, top1, latest_of_equals=False)
    return state


def begun(protocol: str = "honest", sweep: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"protocol": protocol, "sweep": sweep, "dataset": {"counts": {"train": 54}}}


def test_selection_and_costs() -> None:
    given = outcome()
    selection, test, costs = results(begun(), trained(1.0, 4.0, 2.0), given)
    assert selection == {"part": "val", "top1": 0.5, "epoch": 2, "stage": "adamw"}
    assert test["images"] == 21
    assert test["top1"] == pytest.approx((given.logits.argmax(1) == given.test.labels).mean())
    assert costs == {
        "images": 3 * 54,
        "epochs": 3,
        "train_seconds": 7.0,
        "epoch_seconds": 2.0,
        "train_images_per_second": 50.0,
        "train_compute_images_per_second": 60.0,
        "data_wait_share": 0.1,
        "test_images_per_second": 50.0,
        "test_compute_images_per_second": 60.0,
        "save_seconds": 0.0,
        "peak_memory_mib": 512.0,
        "resident_memory_mib": 0.0,
        "energy_joules": None,
    }


def test_under_the_paper_protocol_test_chose_the_epoch() -> None:
    assert results(begun("paper"), trained(1.0, 1.0), outcome())[0]["part"] == "test"


def test_a_sweep_costs_too() -> None:
    rows = [{"images": 100, "seconds": 3.0, "energy_joules": 5.0}, {"images": 20, "seconds": 1.0, "energy_joules": 2.0}]
    _, _, costs = results(begun(sweep=rows), trained(1.0, 1.0, energy=10.0), outcome())
    assert (costs["images"], costs["epochs"], costs["train_seconds"]) == (2 * 54 + 120, 2, 6.0)
    assert costs["energy_joules"] == 17.0
    rows[0]["energy_joules"] = None  # type: ignore[assignment]
    assert results(begun(sweep=rows), trained(1.0, 1.0, energy=10.0), outcome())[2]["energy_joules"] is None


def test_the_speed_is_that_of_images_where_features_are_trained_on() -> None:
    """Rows of features a second would say that images went through the body each epoch."""
    state = trained(5.0, 0.01, 0.01)
    state.speed_of_features = SPEED | {"images_per_second": 20.0, "compute_images_per_second": 30.0}
    costs = results(begun(), state, outcome())[2]
    assert (costs["train_images_per_second"], costs["train_compute_images_per_second"]) == (20.0, 30.0)
    assert (costs["epoch_seconds"], costs["train_seconds"]) == (0.01, pytest.approx(5.02))


def test_the_surest_errors_come_first() -> None:
    labels = np.zeros(40, np.int64)
    logits = np.zeros((40, 3), np.float32)
    logits[:, 1] = np.arange(40) % 20
    logits[::2, 0] = 30  # every other one is right
    rows = worst_rows(logits, labels)
    assert len(rows) == WORST
    assert rows.tolist()[:4] == [19, 39, 17, 37]
    assert (np.diff(logits[rows, 1]) <= 0).all()
    assert worst_rows(logits[::2], labels[::2]).tolist() == []
    huge = np.array([[1e38, -1e38], [-1e38, 1e38]], np.float32)
    assert worst_rows(huge, np.array([0, 0])).tolist() == [1]


@pytest.mark.parametrize(("sides", "tiles"), [((160, 80), (64, 32)), ((8, 8), (8, 8)), ((100, 1), (64, 1))])
def test_their_images_are_small(sides: tuple[int, int], tiles: tuple[int, int]) -> None:
    labels = np.array([0, 0, 1])
    pixels = np.arange(3, dtype=np.uint8).repeat(sides[0] * sides[1] * 3).reshape(3, *sides, 3) * 100
    part = Part(pixels, labels, ["a", "b", "c"])
    found = tiles_of_errors(Outcome(part, np.array([[1, 0], [0, 1], [9, 0]], np.float32), SPEED))
    assert found is not None
    assert found["rows"].tolist() == [2, 1]
    assert found["tiles"].shape == (2, *tiles, 3)
    assert max(tiles) <= TILE
    assert [int(tile.mean()) for tile in found["tiles"]] == [200, 100]


def test_where_nothing_is_wrong_there_is_nothing_to_show() -> None:
    part = toy.part(6, 1, "test")
    assert tiles_of_errors(Outcome(part, np.eye(3, dtype=np.float32)[part.labels], SPEED)) is None


def test_what_is_known_before_the_run_begins(command: Command, tmp_path: Path) -> None:
    """Read from a run that was cut off in its first epoch."""
    plain = toy.dataset()

    def read(options: ReadOptions) -> RawSplits:
        return replace(plain.read(options), val=toy.part(9, 3, "val"), notes=("leaks",))

    def cut_off(*_: Any) -> Any:
        raise KeyboardInterrupt

    with_validation: Dataset = replace(plain, read=read, val_images=9, subjects="patients")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.fit", cut_off)
        assert command("-model tiny -bs 500 --weights none --plan off --tune linear", with_validation) == 130
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    dataset = record["dataset"]
    assert dataset["counts"] == {"available": 60, "train": 60, "val": 9, "test": 21}
    assert dataset["own_validation"] is True
    assert (dataset["subjects"], dataset["notes"], dataset["partial"]) == ("patients", ["leaks"], False)
    assert (record["batch_size"], record["config"]["batch_size"]) == (60, 500)
    assert record["costs"].keys() == {"parameters", "trained_parameters", "macs"}
    assert record["costs"]["trained_parameters"] == 33 * 3
    assert record["backbone"] == {
        "name": "tiny",
        "builder": "tiny",
        "weights": "none",
        "weights_sha256": None,
        "weights_run": None,
    }
    assert (record["lr"], record["epochs"], record["sweep"]) == (1e-3, None, None)
