"""How long cells take, from records of this device alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.console import duration
from grids.cells import Cell
from grids.estimate import Speeds, total
from grids.forecast import Estimate, forecast
from grids.work import work_of
from tests.grids.cells import cells, record_of

BESIDE = 7  # seconds that the runs of record_of() take beside training, and evaluating in 3


def relative(estimate: Estimate) -> float:
    """The upper end of its interval over the time itself."""
    return forecast([estimate], 1).high / estimate.seconds


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
    assert found.seconds == pytest.approx(17010 * 10 / 100 + (1890 * 10 + 8100) / 400 + BESIDE)

    larger, shots, linear = (
        cells(f"--datasets digits --models resnet --epochs 5 {more}")[0]
        for more in ("--size 96", "--shots 20", "--tune linear")
    )
    assert speeds.estimate(linear) is None  # what a frozen body takes is another thing
    found = speeds.estimate(shots)  # 20 of each of 10 classes; the part to test is the recorded one
    assert found is not None
    assert found.seconds == pytest.approx(180 * 10 / 100 + (20 * 10 + 200) / 400 + BESIDE)

    of_another_size, of_another_backbone = speeds.estimate(larger), speeds.estimate(swin0)
    assert of_another_size is not None
    assert of_another_backbone is not None
    assert (of_another_size.basis, of_another_backbone.basis) == ("sizes", "backbones")
    work = tuple(work_of(name, (side, side), 64) for name, side in (("resnet", 96), ("swin", 64), ("resnet", 64)))
    assert None not in work
    alone = 100 - BESIDE
    assert of_another_size.seconds == pytest.approx(alone * work[0] / work[2] + BESIDE)  # type: ignore[operator]
    assert of_another_backbone.seconds == pytest.approx(alone * work[1] / work[2] + BESIDE)  # type: ignore[operator]
    assert relative(of_another_backbone) > relative(of_another_size) > relative(found)


def test_epochs_that_nobody_recorded_are_bounded_by_the_command() -> None:
    done, bounded, unbounded, cosine, fast = (
        cells(f"--datasets digits --models resnet {more}")[0]
        for more in ("--epochs 5", "--epochs 3", "", "--recipe cosine --epochs 7", "--recipe fast --epochs 7")
    )
    speeds = Speeds("this one")
    speeds.add(record_of(done))
    per_epoch, test = 900 / 100 + 100 / 400, 200 / 400
    for cell, epochs in ((bounded, 6), (cosine, 7), (fast, 8)):
        found = speeds.estimate(cell)
        assert found is not None
        assert found.seconds == pytest.approx(epochs * per_epoch + test + BESIDE, rel=0.1)
        assert found.epochs is None
    found = speeds.estimate(unbounded)  # two stages, each of ten epochs that bring no gain after one that does
    assert found is not None
    assert found.epochs == (22, 66)
    assert found.seconds == pytest.approx(38.1 * per_epoch + test + BESIDE, rel=0.01)
    speeds.add(record_of(unbounded, costs={**record_of(unbounded)["costs"], "epochs": 30}))
    (other,) = cells(f"--datasets eurosat --models resnet --size {unbounded.config.size[0]}")
    recorded = speeds.estimate(other)
    assert recorded is not None
    assert recorded.epochs is None
    assert recorded.seconds == pytest.approx(17010 * 30 / 100 + (1890 * 30 + 8100) / 400, rel=0.1)


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
    basis = "1 from other seeds, 1 from recorded speeds, 2 never measured and not counted"
    assert told.startswith("about 2.0 h (")
    assert told.endswith(f"; {basis})")
    alone = [replace(each, errors=()) for each in (known, replace(known, basis="speeds", seconds=7100))]
    assert total([*alone, None, None], 2) == f"about 2.0 h ({basis})"
    assert total([], 1) == "nothing"
    assert total([None], 1) == "not measured yet"
    assert [duration(seconds) for seconds in (0.2, 89, 600, 11520)] == ["0.2 s", "89 s", "10 min", "3.2 h"]
    assert [duration(days * 86400) for days in (2.9, 3.5, 40)] == ["69.6 h", "3.5 days", "40 days"]


def test_a_fold_takes_as_long_as_the_others(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    first, second, _ = cells("--datasets folder:pets --models resnet --folds 3")
    (plain,) = cells("--datasets folder:pets --models resnet")
    speeds = Speeds("this one")
    speeds.add(record_of(first))
    found = speeds.estimate(second)
    assert found is not None
    assert (found.seconds, found.basis) == (100.0, "folds")
    assert speeds.estimate(plain) is None
    assert total([replace(found, errors=())], 1) == "about 2 min (1 from other folds)"


def test_nothing_is_computed_twice_for_cells_that_differ_in_their_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    many = cells("--datasets digits eurosat --models resnet swin --seeds 0-499 --shots 5 10 all --epochs 5 --size 64")
    assert len(many) == 2 * 2 * 500 * 3
    speeds = Speeds("this one")
    speeds.add(record_of(many[0]))
    computed: list[Cell] = []
    alone = speeds._estimate

    def counted(cell: Cell) -> Estimate | None:
        computed.append(cell)
        return alone(cell)

    monkeypatch.setattr(speeds, "_estimate", counted)
    first = [speeds.estimate(cell) for cell in many]
    assert len(computed) == 2 * 2 * 3
    speeds.add(record_of(many[1]))  # more is known: once again, and once for each
    second = [speeds.estimate(cell) for cell in many]
    assert len(computed) == 2 * 2 * 2 * 3
    assert None not in first + second
    assert first != second


def test_what_a_few_steps_reach_is_taken_until_there_is_a_record() -> None:
    digits, swin = cells("--datasets digits --models resnet swin --epochs 5 --size 64")
    speeds = Speeds("this one", start_seconds=5.0)
    assert not speeds.knows(digits)
    assert speeds.estimate(digits) is None
    speeds.add_now(digits, 50.0, disturbed=False)
    measured, other = speeds.estimate(digits), speeds.estimate(swin)
    assert measured is not None
    assert other is not None
    assert (measured.basis, other.basis) == ("now", "backbones")
    assert relative(other) > relative(measured)
    speeds.add(record_of(digits))
    recorded = speeds.estimate(digits)
    assert recorded is not None
    assert (recorded.seconds, recorded.basis) == (105.0, "seeds")  # with the start of a process
    assert speeds.knows(digits)


def test_records_that_differ_widen_the_interval() -> None:
    first, second, third, fourth = cells("--datasets digits --models resnet --seeds 0-3")
    steady, unsteady = Speeds("this one"), Speeds("this one")
    for cell, minute, hour in ((first, "01:40", "00"), (second, "01:42", "00"), (third, "01:38", "02")):
        steady.add(record_of(cell, finished=f"2026-01-01T00:{minute}+00:00"))
        unsteady.add(record_of(cell, finished=f"2026-01-01T{hour}:{minute}+00:00"))
    one, other = steady.estimate(fourth), unsteady.estimate(fourth)
    assert one is not None
    assert other is not None
    assert relative(other) > 1.5 * relative(one)


def test_images_of_ones_own_are_counted_where_no_record_says(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    digits, own, few, fold = (
        cells(f"--datasets {more} --models resnet --epochs 5 --recipe adamw-sgd --size 64")[0]
        for more in ("digits", "folder:pets", "folder:pets --shots 10", "folder:pets --folds 5")
    )
    speeds = Speeds("this one")
    speeds.add(record_of(digits))
    assert speeds.estimate(own) is None
    counts = {"train": 400, "val": 0, "test": 100, "classes": 4}
    for cell in (own, fold):
        speeds.add_counts(cell, counts)
    expected = {own.id: (360, 40, 100), few.id: (36, 4, 100), fold.id: (360, 40, 100)}
    for cell in (own, few, fold):
        found = speeds.estimate(cell)
        assert found is not None
        train, val, test = expected[cell.id]
        assert found.seconds == pytest.approx(train * 10 / 100 + (val * 10 + test) / 400 + BESIDE)
