"""grid.py: from the command line to cells, what is done, and how long the rest takes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import grid
from engine.config import Config
from engine.errors import UserError
from engine.paths import PROJECT
from grids.cells import Cell, find_budgets, find_datasets, find_models, find_seeds
from grids.estimate import Speeds, duration, total
from grids.faults import shared_fault
from grids.ledger import Failure, by_key, keep_failure, make_folder, mark_retried, standing, standing_now, take

PUBLISHED = 11


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def cells(line: str) -> list[Cell]:
    return grid.cells_of(grid.parser().parse_args(line.split()))


def record_of(cell: Cell, status: str = "done", **changes: Any) -> dict[str, Any]:
    """What a run of `cell` might have left."""
    config = cell.config
    record = {
        "schema": 2,
        "run": "x",
        "status": status,
        "error": None,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:40+00:00",
        "resumed": [],
        "dataset": {
            "key": cell.dataset.key,
            "version": cell.dataset.version,
            "partial": False,
            "counts": {"available": 1000, "train": 900, "val": 100, "test": 200},
        },
        "backbone": {"name": config.model, "weights_sha256": None},
        "protocol": config.protocol,
        "recipe": config.recipe,
        "config": config.settings(),
        "plan": {"device_name": "this one"},
        "selection": {"part": "val"},
        "test": {"top1": 0.5},
        "costs": {
            "epochs": 10,
            "train_images_per_second": 100.0,
            "test_images_per_second": 400.0,
            "train_seconds": 90.0,
        },
        "environment": {"command": list(cell.command)},
    }
    return record | changes


def write(cell: Cell, record: dict[str, Any], name: str = "x") -> None:
    config = cell.config
    path = config.out / cell.dataset.key / config.model / f"honest-seed{config.seed}-{name}" / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_names_of_datasets(tmp_path: Path) -> None:
    found = find_datasets(["cifar10", "breakhis:200", "digits", "cifar10.py", "breakhis_40x"])
    assert [(chosen.dataset.key, chosen.script.name) for chosen in found] == [
        ("cifar10", "cifar10.py"),
        ("breakhis_200x", "breakhis.py"),
        ("digits", "digits.py"),
        ("breakhis_40x", "breakhis.py"),
    ]
    assert {chosen.script.parent for chosen in found} == {PROJECT}
    assert len(find_datasets(["breakhis"])) == 4
    assert len(find_datasets(["all", "digits"])) == 20
    (tmp_path / "pets").mkdir()
    (pets,) = find_datasets(["folder:pets", "folder:./pets/"])
    assert pets.dataset.place == (tmp_path / "pets").resolve()
    assert pets.script == PROJECT / "folder.py"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cifar1", "Did you mean cifar10?"),
        ("breakhis:41", "breakhis:40, breakhis:100"),
        ("cifar10:5", "Known: cifar10."),
        ("folder", "folder:DIR"),
        ("folder:nowhere", "nowhere does not exist"),
    ],
)
def test_unknown_datasets(name: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        find_datasets([name])


def test_two_folders_of_one_name_would_share_their_records(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(UserError, match="same name"):
        find_datasets(["folder:a/pets", "folder:b/pets"])


def test_names_of_backbones_seeds_and_budgets() -> None:
    assert len(find_models(["all"])) == PUBLISHED
    assert "inception" not in find_models(["all"])
    assert find_models(["resnet50", "inception", "resnet"]) == ["resnet", "inception"]
    assert find_seeds(["0-4"]) == [0, 1, 2, 3, 4]
    assert find_seeds(["0", "2", "5-7", "6"]) == [0, 2, 5, 6, 7]
    assert find_budgets(None, None) == [("all", "")]
    assert find_budgets(["10", "50", "all"], None) == [("all", ""), ("shots", "10"), ("shots", "50")]
    assert find_budgets(["10"], ["0.1"]) == [("shots", "10"), ("fraction", "0.1")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--seeds 4-0", "ends before it begins"),
        ("--seeds 0-9999999", "at most 10,000"),
        ("--seeds x", "'x' is not a whole number"),
        ("--seeds -1", "not a whole number"),
        ("--shots 0", "--shots: '0'"),
        ("--fraction 2", "--fraction: '2'"),
        ("--models resnot", "Did you mean resnet?"),
        ("--weights IMAGENET1K_V7", "for resnet not one of"),
        ("--device cuda", "finds none here, only "),
        ("--per-gpu 2 --device cpu", "one at a time"),
        ("--per-gpu 0", "whole number"),
        ("--stall-minutes 0", "above 0"),
        ("--epochs 0", "whole number"),
        ("--size 1 2 3", "a height and a width"),
        ("--check", "unrecognized"),
        ("--rerun", "unrecognized"),
        ("--seed 1", "unrecognized"),
        ("-model resnet", "unrecognized"),
        ("--recipe cosine --patience 3", "can't be used"),
        ("--out file", "can't be written to"),
        ("--out nowhere/x --datasets folder:.", "lies in"),
    ],
)
def test_a_wrong_value_is_told_before_anything_starts(
    line: str, says: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("grids.running.start", lambda *_: pytest.fail("it was started"))
    (tmp_path / "file").touch()
    assert grid.main(["--datasets", "digits", "--models", "resnet", *line.split()]) == 2
    problem = capsys.readouterr().err
    assert problem.startswith("error: ")
    assert says in problem
    assert not (tmp_path / "runs").exists()


def test_flags_of_the_scripts_are_those_of_the_scripts() -> None:
    text = grid.parser().format_help()
    for f in fields(Config):
        given = f.metadata["names"][-1] in re.findall(r"--?[a-z-]+", text)
        assert given == (f.name not in ("model", "seed", "check", "rerun")), f.name
    assert "the dataset's" in text
    assert not re.search(r"\{(size|augment|recipe|data_dir|backbones)\}", text)
    (cell,) = cells(
        "--datasets breakhis:40 --models resnet50 -bs 16 --epochs 2 --lr 1e-3 --size 64 96 --weights none "
        "--allow-partial --data-dir d --seeds 3 --shots 5"
    )
    assert cell.config == Config(
        **vars(cell.config)
        | {"model": "resnet", "batch_size": 16, "epochs": 2, "lr": 1e-3, "size": (64, 96), "seed": 3, "shots": 5}
        | {"weights": "none", "allow_partial": True, "data_dir": Path("d/breakhis")}
    )
    script, *rest = cell.command
    assert Path(script).name == "breakhis.py"
    assert rest[:6] == ["--magnification", "40", "-model", "resnet", "--seed", "3"]
    assert cell.title == "breakhis_40x resnet, seed 3, shots 5"


def test_the_first_seed_and_all_data_come_first() -> None:
    order = [
        (c.config.seed, c.budget, c.dataset.key, c.config.model)
        for c in cells("--datasets digits eurosat --models resnet swin --seeds 1 0 --shots 5 all")
    ]
    assert order[:5] == [
        (1, "all", "digits", "resnet"),
        (1, "all", "digits", "swin"),
        (1, "all", "eurosat", "resnet"),
        (1, "all", "eurosat", "swin"),
        (1, "shots 5", "digits", "resnet"),
    ]
    assert order[8][:2] == (0, "all")
    assert len(order) == len(set(order)) == 16


def test_ids_tell_apart_what_can_change_a_number(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    base = "--datasets digits --models resnet"
    lines = [base, f"{base} --recipe cosine", f"{base} --shots 5", f"{base} --fraction 0.5", f"{base} --seeds 1"]
    lines += [f"--models resnet --datasets folder:{place}/pets" for place in "ab"]
    ids = [cell.id for line in lines for cell in cells(line)]
    assert len(set(ids)) == len(lines)
    assert cells(f"{base} --out elsewhere --no-cache")[0].id == ids[0]


def test_what_is_done(tmp_path: Path) -> None:
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    assert standing_now(cell).status == "new"
    others = [
        record_of(cell, dataset=record_of(cell)["dataset"] | change)
        for change in ({"key": "eurosat"}, {"version": "0"}, {"partial": True})
    ]
    others += [
        record_of(cell, config=cell.config.settings() | change)
        for change in ({"model": "swin"}, {"seed": 1}, {"batch_size": 8}, {"size": [32, 32]}, {"shots": 5})
    ]
    for number, record in enumerate(others):
        write(cell, record, str(number))
    assert standing_now(cell).status == "new"
    write(cell, record_of(cell, "running"), "own")
    assert standing_now(cell).status == "interrupted"
    keep_failure(cell, Failure.of(cell, 3, "no memory", ["a"]))
    assert standing_now(cell).status == "failed"
    (path,) = (tmp_path / "runs" / "grid").glob("*.json")
    kept = json.loads(path.read_text())
    assert kept.keys() == {
        *("cell", "dataset", "model", "seed", "budget", "exit_code", "reason", "tail", "at", "command", "retried")
    }
    assert path.stem == kept["cell"] == cell.id
    settings = cell.config.settings() | {"data_dir": "elsewhere", "out": "other", "no_cache": True}
    write(cell, record_of(cell, config=settings), "finished")
    assert standing_now(cell).status == "done"


def test_a_retry_that_was_cut_off_goes_on_by_itself() -> None:
    """The script has not got as far as to say that it runs: its record still says "failed"."""
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    write(cell, record_of(cell, "failed", error="RunError: the loss"), "own")
    failure = Failure.of(cell, 3, "the loss", [])
    keep_failure(cell, failure)
    assert standing_now(cell).status == "failed"
    mark_retried(cell, failure)
    assert standing_now(cell).status == "interrupted"


def test_a_weights_file_that_changed_is_another_run(tmp_path: Path) -> None:
    weights = tmp_path / "some.pt"
    weights.write_bytes(b"first")
    (cell,) = cells(f"--datasets digits --models resnet --weights {weights}")
    make_folder(cell.config.out)
    backbone = {"name": "resnet", "weights_sha256": hashlib.sha256(b"first").hexdigest()}
    write(cell, record_of(cell, backbone=backbone), "own")
    assert standing_now(cell).status == "done"
    write(cell, record_of(cell, backbone=backbone | {"weights_sha256": "0" * 64}), "own")
    assert standing_now(cell).status == "new"


def test_a_shared_mistake_is_of_the_seed_only_where_it_draws_the_images() -> None:
    first, second, other = (
        cells(f"--datasets digits --models {name} --shots 5")[0] for name in ("resnet", "swin", "regnet")
    )
    (later,) = cells("--datasets digits --models regnet --shots 5 --seeds 1")
    failures = [Failure.of(cell, 2, "no", ["error: no validation part"]) for cell in (first, second)]
    fault = shared_fault(second, failures[1], [(first, failures[0])])
    assert fault is not None
    assert fault.concerns(other)
    assert not fault.concerns(later)


def test_a_record_that_lacks_a_newer_flag_had_its_default() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    settings = {name: value for name, value in cell.config.settings().items() if name != "shots"}
    assert standing(cell, by_key([record_of(cell, config=settings)]).get(cell.key, ())).status == "done"


def test_partial_data_count_where_they_were_asked_for() -> None:
    (cell,) = cells("--datasets digits --models resnet --allow-partial")
    record = record_of(cell, dataset=record_of(cell)["dataset"] | {"partial": True})
    assert standing(cell, [record]).status == "done"


def test_a_run_that_failed_without_a_grid() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    now = standing(cell, [record_of(cell, "failed", error="RunError: nan")])
    assert now.status == "failed"
    assert now.failure is not None
    assert now.failure.reason == "RunError: nan"


def test_folders_of_one_name_are_told_apart_by_the_command(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    a, b = (cells(f"--models resnet --datasets folder:{place}/pets")[0] for place in "ab")
    assert a.key == b.key
    assert standing(a, [record_of(a)]).status == "done"
    assert standing(b, [record_of(a)]).status == "new"
    by_hand = record_of(a, environment={"command": ["folder.py", "-model", "resnet", "a/pets"]})
    assert standing(a, [by_hand]).status == "done"


def test_a_cell_is_taken_once() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    held = take(cell)
    assert held is not None
    assert take(cell) is None
    os.close(held)
    again = take(cell)
    assert again is not None
    os.close(again)


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
    # 18,900 images, a tenth of them selects; 10 epochs recorded
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


def test_the_time_that_an_interrupted_run_lay_there_does_not_count() -> None:
    first, second = cells("--datasets digits --models resnet --seeds 0-1")
    speeds = Speeds("this one")
    speeds.add(record_of(first, resumed=[{}], finished="2026-01-05T00:00:00+00:00"))
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
    assert [duration(seconds) for seconds in (0.2, 89, 600, 11520)] == ["0 s", "89 s", "10 min", "3.2 h"]


def test_a_dry_run_prints_the_plan_and_does_nothing(capsys: Any, tmp_path: Path) -> None:
    line = "--datasets digits eurosat --models resnet swin --seeds 0-1 --device cpu"
    one, two, three, *_ = cells(line)
    write(one, record_of(one))
    write(two, record_of(two, "running"))
    make_folder(one.config.out)
    keep_failure(three, Failure.of(three, 3, "no memory", []))
    before = sorted(tmp_path.rglob("*"))
    assert grid.main([*line.split(), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for words in (
        r"^digits +4 +1 +0 +1 +3 ",
        r"^eurosat +4 +0 +1 +0 +3 ",
        r"^cells +8, one at a time",
        r"^done +1$",
        r"^failed +1, kept as they are: --retry-failed",
        r"^to do +6, ",
    ):
        assert re.search(words, printed, re.MULTILINE), words
    assert sorted(tmp_path.rglob("*")) == before
    assert grid.main([*line.split(), "--dry-run", "--retry-failed"]) == 0
    assert re.search(r"^to do +7", capsys.readouterr().out, re.MULTILINE)


def test_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert grid.find_slots("cuda", 1) == ["0", "1"]
    assert grid.find_slots("cuda", 2) == ["0", "1", "0", "1"]
    assert grid.find_slots("cpu", 1) == [None]
    assert grid.find_slots("mps", 2) == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab")
    assert grid.find_slots("cuda", 1) == ["5", "GPU-ab"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert grid.find_slots("cuda", 2) == ["5", "5"]


OWN_SCRIPT = """
from dataclasses import replace
import digits
from common import main

DATASET = replace(digits.DATASET, key={key!r}, name="Pets")
if __name__ == "__main__":
    main(DATASET)
"""


def test_a_script_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    script = tmp_path / "mine" / "pets.py"
    script.write_text(OWN_SCRIPT.format(key="pets"))
    for name in ("mine/pets.py", str(script), "./mine/../mine/pets.py"):
        (cell,) = cells(f"--datasets {name} --models resnet --seeds 3 --data-dir d")
        assert cell.dataset.key == "pets"
        assert cell.command[0] == str(script.resolve())
        assert cell.config.data_dir == Path("d/pets")
        assert cell.title == "pets resnet, seed 3"
    assert [each.dataset.key for each in find_datasets(["digits", "mine/pets.py", str(script)])] == ["digits", "pets"]
    (tmp_path / "digits.py").write_text(OWN_SCRIPT.format(key="digits"))
    assert find_datasets(["digits.py"])[0].script == tmp_path / "digits.py"
    with pytest.raises(UserError, match="have the same name, 'digits'"):
        find_datasets(["digits", "digits.py"])
    with pytest.raises(UserError, match="unknown dataset 'mine/pets\\.py:5'"):
        find_datasets(["mine/pets.py:5"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("DATASET = 3", "DATASET is of type int"),
        ("", "is no dataset's script: AttributeError"),
        ("import nowhere_at_all", "is no dataset's script: ModuleNotFoundError"),
        ("DATASET = (", "is no dataset's script: SyntaxError"),
    ],
)
def test_a_script_that_declares_no_dataset(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "pets.py").write_text(content)
    with pytest.raises(UserError, match=says):
        find_datasets(["./pets.py"])
