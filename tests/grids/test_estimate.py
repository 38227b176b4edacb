"""How long cells take, from records of this device alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.console import duration
from grids.estimate import Estimate, Speeds, total
from tests.grids.cells import cells, record_of


def test_estimates_rest_on_what_was_measured_here() -> None:
    line = "--datasets digits eurosat --models resnet swin --seeds 0-1 --epochs 5 --size 64"
    digits0, swin0, eurosat0, _, digits1, *_ = cells(line)
    speeds = Speeds("this one")
    assert all(speeds.estimate(cell) is None for cell in cells(line))
    speeds.add(record_of(digits0, plan={"device_name": "another one"}))
    speeds.add(record_of(digits0, "running"))
    speeds.add({"status": "done"})
    assert speeds.estimate(digits1) is None

    speeds.add(record_of(digits0))
    found = speeds.estimate(digits1)
    assert found is not None
    assert (found.seconds, found.basis) == (100, "seeds")
    # 18,900 images, a tenth of them val; 10 epochs recorded
    found = speeds.estimate(eurosat0)
    assert found is not None
    assert found.basis == "speeds"
    assert found.seconds == pytest.approx(17010 * 10 / 100 + (1890 * 10 + 8100) / 400)
    assert speeds.estimate(swin0) is None

    larger, shots, linear = (
        cells(f"--datasets digits --models resnet --epochs 5 {more}")[0]
        for more in ("--size 96", "--shots 20", "--tune linear")
    )
    assert speeds.estimate(larger) is None
    assert speeds.estimate(linear) is None
    found = speeds.estimate(shots)  # 20 of each of 10 classes; the part to test is the recorded one
    assert found is not None
    assert found.seconds == pytest.approx(180 * 10 / 100 + (20 * 10 + 200) / 400)


def test_epochs_that_nobody_recorded_are_bounded_by_the_command() -> None:
    done, bounded, unbounded, cosine = (
        cells(f"--datasets digits --models resnet {more}")[0]
        for more in ("--epochs 5", "--epochs 3", "", "--recipe cosine --epochs 7")
    )
    speeds = Speeds("this one")
    speeds.add(record_of(done))
    per_epoch, test = 900 / 100 + 100 / 400, 200 / 400
    for cell, epochs in ((bounded, 6), (cosine, 7)):
        found = speeds.estimate(cell)
        assert found is not None
        assert found.seconds == pytest.approx(epochs * per_epoch + test, rel=0.1)
    assert speeds.estimate(unbounded) is None


def test_records_that_say_nothing_of_speed_or_time_end_nothing() -> None:
    done, other = (cells(f"--datasets digits --models resnet {more}")[0] for more in ("--epochs 5", "--epochs 3"))
    speeds = Speeds("this one")
    for name in ("train_images_per_second", "test_images_per_second"):
        speeds.add(record_of(done, costs={**record_of(done)["costs"], name: 0}))
    speeds.add_around(record_of(done, finished="yesterday"), 5)
    assert speeds.estimate(other) is None


def test_the_time_that_an_interrupted_run_lay_there_does_not_count() -> None:
    first, second = cells("--datasets digits --models resnet --seeds 0-1")
    speeds = Speeds("this one")
    speeds.add(record_of(first, resumed=[{"environment": {}}], finished="2026-01-05T00:00:00+00:00"))
    found = speeds.estimate(second)
    assert found is not None
    assert found.seconds == pytest.approx(90 + (100 * 10 + 200) / 400)


def test_what_processes_take_beside_their_runs_is_added() -> None:
    first, second = cells("--datasets digits --models resnet --seeds 0-1")
    speeds = Speeds("this one")
    speeds.add(record_of(first))
    speeds.add_around(record_of(first), 107.0)
    found = speeds.estimate(second)
    assert found is not None
    assert found.seconds == pytest.approx(107)


def test_what_an_estimate_rests_on_is_said() -> None:
    (cell, *_) = cells("--datasets digits --models resnet --seeds 0-1")
    speeds = Speeds("this one")
    speeds.add(record_of(cell))
    known = speeds.estimate(cell)
    assert known is not None
    told = total([known, replace(known, basis="speeds", seconds=7100), None, None], 2)
    assert told == "about 2.0 h (1 from other seeds, 1 from recorded speeds, 2 never measured and not counted)"
    assert total([None], 1) == "not measured yet"
    assert [duration(seconds) for seconds in (0.2, 89, 600, 11520)] == ["0.2 s", "89 s", "10 min", "3.2 h"]


def test_a_fold_takes_as_long_as_the_others(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    first, second, _ = cells("--datasets folder:pets --models resnet --folds 3")
    (plain,) = cells("--datasets folder:pets --models resnet")
    speeds = Speeds("this one")
    speeds.add(record_of(first))
    found = speeds.estimate(second)
    assert found == Estimate(100.0, "folds")
    assert speeds.estimate(plain) is None
    assert total([found], 1) == "about 2 min (1 from other folds)"
