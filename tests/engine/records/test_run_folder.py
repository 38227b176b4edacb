"""Which folder is a run's own: also one that an earlier version named, or that a record of schema 1 lies in."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import digits
import grid
from engine.errors import UserError
from engine.paths import PROJECT
from engine.records.identity import identity_of
from engine.records.run_folder import Run
from tests.conftest import Command, only_run
from tests.engine.records.kept import LINE, SCHEMA_1, SCHEMA_2, as_schema_1, content
from tests.engine.records.test_resume import outcome

QUICK = "-model tiny -bs 16 --weights none --plan off --epochs 2"
EARLIER = "honest-seed1-0123456789"  # what an earlier version called a folder


def identity(**changes: Any) -> dict[str, Any]:
    """That of the kept records, of the version that wrote schema 2."""
    return identity_of(content(SCHEMA_2)) | changes


def put(record: Path | dict[str, Any], out: Path, name: str = EARLIER) -> Path:
    """Let a run of the kept records' dataset and backbone have left a record; its folder."""
    found = record if isinstance(record, dict) else content(record)
    folder = out / "digits" / "shufflenet" / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(found | {"run": name}))
    return folder


def test_a_new_run_is_named_by_what_it_is_alone(tmp_path: Path) -> None:
    given = {"asked": {"model": "tiny", "size": [16, 16]}, "dataset": "toy", "lr": 0.001, "decoder": 1}
    run = Run(tmp_path, given)
    assert run.id == "honest-seed0-051bb3471e"
    assert run.folder == tmp_path / "toy" / "tiny" / run.id
    assert not run.record
    assert not run.done
    assert not run.interrupted
    # the order says nothing
    again = Run(tmp_path, dict(reversed(given.items())) | {"asked": {"size": [16, 16], "model": "tiny"}})
    assert again.id == run.id
    paper = Run(tmp_path, given | {"asked": {"model": "tiny", "protocol": "paper", "seed": 7}})
    assert paper.id.startswith("paper-seed7-")
    ids = {Run(tmp_path, given | change).id for change in ({"lr": 0.5}, {"decoder": 2}, {"split": "x"}, {})}
    assert len(ids) == 4


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    Run(tmp_path / "runs", identity())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kept", [SCHEMA_1, SCHEMA_2], ids=["schema 1", "schema 2"])
def test_a_folder_under_an_earlier_name_is_the_runs_own(tmp_path: Path, kept: Path) -> None:
    folder = put(kept, tmp_path)
    run = Run(tmp_path, identity())
    assert (run.folder, run.id) == (folder, EARLIER)
    assert run.done
    assert run.record["test"]["top1"] == content(kept)["test"]["top1"]
    assert Run(tmp_path, identity(), rerun=True).folder == folder


def test_another_run_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = put(SCHEMA_1, tmp_path)
    asked = identity()["asked"]
    for change in (
        {"split": "0"},
        {"batch_size": 8},
        {"lr": 0.5},
        {"version": "2"},
        {"weights": "0"},
        {"asked": asked | {"tune": "linear"}},
        {"asked": asked | {"seed": 2}},
        {"asked": asked | {"protocol": "paper"}},
    ):
        assert Run(tmp_path, identity(**change)).folder != folder, change


def test_a_folder_under_todays_name_comes_first(tmp_path: Path) -> None:
    put(SCHEMA_1, tmp_path)
    (tmp_path / "other").mkdir()
    todays = Run(tmp_path / "other", identity()).id
    folder = put(SCHEMA_2, tmp_path, todays)
    assert Run(tmp_path, identity()).folder == folder


def broken(**changes: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(content(SCHEMA_2) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        os.mkfifo,
        Path.mkdir,
        broken(schema=3),
        broken(status=None),
        broken(schema=1),
        broken(config={}),
        broken(dataset={"key": "digits"}),
        broken(backbone={}),
        broken(config=3),
    ],
    ids=[
        "broken",
        "list",
        "pipe",
        "folder",
        "schema 3",
        "no status",
        "no schema 1",
        "flags",
        "data",
        "backbone",
        "number",
    ],
)
def test_a_neighbour_that_is_no_record_is_passed_over(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    neighbour = put(SCHEMA_2, tmp_path, "honest-seed1-0000000000") / "record.json"
    neighbour.unlink()
    damage(neighbour)
    folder = put(SCHEMA_1, tmp_path)
    assert Run(tmp_path, identity()).folder == folder


def test_a_record_of_ones_own_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    own = Run(tmp_path, identity())
    own.folder.mkdir(parents=True)
    (own.folder / "record.json").write_text("{")
    with pytest.raises(
        UserError, match=r"record\.json is not a readable record: not readable JSON: .*--rerun"
    ) as caught:
        Run(tmp_path, identity())
    assert str(own.folder) in str(caught.value)
    assert not Run(tmp_path, identity(), rerun=True).record


@pytest.mark.parametrize(
    ("status", "harm"),
    [
        ("done", {"test": {"top1": 1.0}}),
        ("done", {"backbone": {"name": "x"}}),
        ("done", {"status": []}),
        ("running", {"plan": {}}),
        ("running", {"lr": None}),
        ("running", {"resumed": "x"}),
        ("running", {"sweep": 7}),
        ("running", {"resumed": [5]}),
        ("running", {"lr": 10**400}),
        ("done", {"environment": {"code": "x"}}),
    ],
)
def test_a_record_of_ones_own_that_is_damaged_is_named(tmp_path: Path, status: str, harm: dict[str, Any]) -> None:
    folder = put(SCHEMA_2, tmp_path, Run(tmp_path, identity()).id)
    (folder / "checkpoint.pt").touch()
    path = folder / "record.json"
    path.write_text(json.dumps(content(SCHEMA_2) | {"status": status} | harm), "utf-8")
    with pytest.raises(UserError, match=r"record\.json is (a|not a readable record: a) damaged record.*--rerun"):
        Run(tmp_path, identity())


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ({}, True),
        ({"seed": None}, False),
        ({"plan": {"layout": "NCWH"}}, False),
        ({"plan": {"memory": 5}}, False),
        ({"plan": {"unheard": 1}}, False),
    ],
    ids=str,
)
def test_the_plan_of_another_seed_is_taken_only_where_it_is_one(
    tmp_path: Path, harm: dict[str, Any], found: bool
) -> None:
    of_another = identity()
    of_another["asked"] = of_another["asked"] | {"seed": 7}
    record = content(SCHEMA_2)
    plan = record["plan"] | harm.pop("plan", {})
    folder = put(SCHEMA_2, tmp_path)
    (folder / "checkpoint.pt").touch()
    (folder / "record.json").write_text(json.dumps(record | harm | {"plan": plan}), "utf-8")
    other = Run(tmp_path, of_another).other_seed(record["plan"]["device_name"])
    assert (other is not None) == found


def test_what_a_failed_run_left_is_no_matter_where_there_is_nothing_to_resume(tmp_path: Path) -> None:
    folder = put(SCHEMA_2, tmp_path, Run(tmp_path, identity()).id)
    for left in folder.glob("checkpoint.pt"):
        left.unlink()
    (folder / "record.json").write_text(json.dumps(content(SCHEMA_2) | {"status": "failed", "plan": {"x": 1}}), "utf-8")
    assert not Run(tmp_path, identity()).interrupted


@pytest.mark.parametrize("kept", [SCHEMA_1, SCHEMA_2], ids=["schema 1", "schema 2"])
def test_script_and_grid_find_a_finished_run_of_an_earlier_version(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, kept: Path
) -> None:
    folder = put(kept, tmp_path / "runs", content(kept)["run"])
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("engine.run.train_and_test", lambda *_: pytest.fail("it was trained again"))
    assert command(LINE, digits.DATASET) == 0
    record, to_predict, result = capsys.readouterr().out.splitlines()
    assert to_predict == f"predict    python {PROJECT / 'predict.py'} {folder.relative_to(tmp_path)} IMAGE"
    assert record == f"record     {folder.relative_to(tmp_path)}"
    assert result.startswith("shufflenet on Digits, 360 test images: top-1 98.06%, top-5 ")

    monkeypatch.setattr("grids.devices.start", lambda *_: pytest.fail("it was started again"))
    flags = LINE.replace("-model", "--models").replace("--seed", "--seeds")
    assert grid.main(["--datasets", "digits", *flags.split()]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 cell done, 0 failed, 0 left"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert only_run(tmp_path / "runs") == folder


def test_a_run_that_an_earlier_version_began_goes_on_to_the_same_end(command: Command, tmp_path: Path) -> None:
    """Interrupted after its last epoch but one; record and checkpoint are as that version left them."""
    stops = iter([False, False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.loop.stop_asked_for", lambda: next(stops))
        assert command(QUICK) == 130
    todays = only_run(tmp_path / "runs")
    folder = todays.rename(todays.with_name("honest-seed0-0123456789"))
    record = as_schema_1(content(folder / "record.json")) | {"run": folder.name}
    (folder / "record.json").write_text(json.dumps(record))
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    del checkpoint["unfinished"]
    state = checkpoint["state"]
    state["stale"] = state.pop("epochs_without_gain")
    state["history"] = [
        {name.replace("val_", "select_"): value for name, value in row.items()} for row in state["history"]
    ]
    torch.save(checkpoint, folder / "checkpoint.pt")

    assert command(QUICK) == 0
    assert only_run(tmp_path / "runs") == folder
    assert command(f"{QUICK} --out undisturbed") == 0
    found, expected = outcome(tmp_path / "runs"), outcome(tmp_path / "undisturbed")
    assert found.pop("id") == folder.name
    assert expected.pop("id") == todays.name
    assert found == expected
    whole = content(folder / "record.json")
    assert (whole["schema"], len(whole["resumed"])) == (2, 1)


def test_rerun_takes_the_place_of_what_an_earlier_version_left(command: Command, tmp_path: Path) -> None:
    assert command(QUICK) == 0
    todays = only_run(tmp_path / "runs")
    folder = todays.rename(todays.with_name("honest-seed0-0123456789"))
    assert command(f"{QUICK} --rerun") == 0
    assert only_run(tmp_path / "runs") == folder
    assert content(folder / "record.json")["run"] == folder.name


def test_defaults_that_are_spelled_out_are_no_other_run(command: Command, tmp_path: Path) -> None:
    assert command(QUICK) == 0
    spelled = "--seed 0 --protocol honest --recipe adamw-sgd --patience 10 --tune full --precision auto --compile auto"
    assert command(f"{QUICK} {spelled} --size 16 --augment trivial") == 0
    assert only_run(tmp_path / "runs")


def test_a_flag_that_is_gone_tells_a_run_from_todays(command: Command, tmp_path: Path) -> None:
    """A record of a version whose flag --ema was given is not that of the same command without it."""
    assert command(QUICK) == 0
    todays = only_run(tmp_path / "runs")
    earlier = todays.with_name("honest-seed0-0123456789")
    for ema, runs in ((True, 2), (False, 1)):
        shutil.rmtree(earlier, ignore_errors=True)
        todays.rename(earlier)
        record = content(earlier / "record.json")
        (earlier / "record.json").write_text(json.dumps(record | {"config": record["config"] | {"ema": ema}}))
        assert command(QUICK) == 0
        assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == runs
