"""What lies in a run's folder and is not what the run wrote there: it is named, and no number is made of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.files import digest
from engine.records.checkpoint import record_in
from engine.records.run_lock import RunLock
from engine.records.schema import RecordError, read_record
from engine.training.evaluation import predict
from tests.conftest import Command, only_run
from tests.engine.records.kept import content
from tests.engine.records.test_resume import QUICK, cut_off_before_test, outcome

Harm = Callable[[Path], object]


def run_of(tmp_path: Path) -> Path:
    return only_run(tmp_path / "runs")


@pytest.fixture
def expected(command: Command, tmp_path: Path) -> dict[str, Any]:
    """What comes of an undisturbed run."""
    assert command(f"{QUICK} --out undisturbed") == 0
    return outcome(tmp_path / "undisturbed")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def instead(make: Harm) -> Harm:
    def harm(path: Path) -> None:
        path.unlink()
        make(path)

    return harm


HARMS: list[Harm] = [zeroed, halved, instead(Path.touch), instead(os.mkfifo), instead(Path.mkdir)]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_save_falls_back_to_the_one_before(
    command: Command, tmp_path: Path, capsys: Any, expected: dict[str, Any], harm: Harm
) -> None:
    cut_off_before_test(command)
    path = run_of(tmp_path) / "checkpoint.pt"
    harm(path)
    capsys.readouterr()
    assert command(QUICK) == 0
    said = capsys.readouterr().out
    assert f"note       {path.relative_to(tmp_path)} can't be read" in said
    assert "it is checkpoint.pt.damaged now; the run goes on from the save before it" in said
    assert outcome(tmp_path / "runs") == expected
    assert path.with_name("checkpoint.pt.damaged").exists()
    assert not path.with_name("checkpoint.previous.pt").exists()  # the run is done


def test_a_kill_between_two_renames_loses_nothing(command: Command, tmp_path: Path, expected: dict[str, Any]) -> None:
    cut_off_before_test(command)
    (run_of(tmp_path) / "checkpoint.pt").unlink()
    assert command(QUICK) == 0
    assert content(run_of(tmp_path) / "record.json")["resumed"]
    assert outcome(tmp_path / "runs") == expected


@pytest.mark.parametrize("lost", [["checkpoint.pt", "checkpoint.previous.pt"], ["checkpoint.pt", "record.json"]])
def test_epochs_that_are_trained_again_since_nothing_is_left_of_them_are_not_silently_so(
    command: Command, tmp_path: Path, capsys: Any, expected: dict[str, Any], lost: list[str]
) -> None:
    if "record.json" in lost:
        assert command(QUICK) == 0
    else:
        cut_off_before_test(command)
    for name in lost:
        (run_of(tmp_path) / name).unlink()
    capsys.readouterr()
    assert command(QUICK) == 0
    said = capsys.readouterr().out
    (note,) = (line for line in said.splitlines() if line.startswith("note "))
    assert "holds epochs of this run" in note
    assert all(name in note for name in lost if "previous" not in name)
    assert outcome(tmp_path / "runs") == expected


def test_both_saves_that_are_damaged_are_named(command: Command, tmp_path: Path, capsys: Any) -> None:
    cut_off_before_test(command)
    paths = [run_of(tmp_path) / name for name in ("checkpoint.pt", "checkpoint.previous.pt")]
    for path in paths:
        halved(path)
    assert command(QUICK) == 2
    said = capsys.readouterr().err
    assert all(f"{path.relative_to(tmp_path)} can't be read" in said for path in paths)
    assert said.rstrip().endswith("Start the run over with --rerun.")


RECORD_HARMS: list[Harm] = [Path.unlink, zeroed, halved, instead(lambda path: path.symlink_to("gone")), *HARMS[3:]]


@pytest.mark.parametrize(
    ("harm", "finished"), [*((harm, True) for harm in RECORD_HARMS), (Path.unlink, False), (halved, False)]
)
def test_a_lost_or_damaged_record_is_made_anew_of_the_checkpoint(
    command: Command, tmp_path: Path, capsys: Any, expected: dict[str, Any], harm: Harm, finished: bool
) -> None:
    """No epoch is trained again that was saved."""
    if finished:
        assert command(QUICK) == 0
    else:
        cut_off_before_test(command)
    path = run_of(tmp_path) / "record.json"
    before = content(path)
    harm(path)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.loop.train_epoch", lambda *_: pytest.fail("an epoch is trained again"))
        assert command(QUICK) == 0
    assert "record.json is " in capsys.readouterr().out
    assert outcome(tmp_path / "runs") == expected
    if finished:
        assert content(path) == before
    else:
        assert len(content(path)["resumed"]) == 1
    assert command(QUICK) == 0
    assert "note" not in capsys.readouterr().out.partition("tiny on")[2]


def test_another_runs_files_are_not_taken_for_its_own(command: Command, tmp_path: Path, capsys: Any) -> None:
    cut_off_before_test(command)
    own = run_of(tmp_path)
    other = tmp_path / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert command(f"{QUICK} --seed 1 --out other") == 130
    for name in ("checkpoint.pt", "record.json"):
        whole = (own / name).read_bytes()
        (own / name).write_bytes((only_run(other) / name).read_bytes())
        capsys.readouterr()
        assert command(QUICK) == 2
        message = capsys.readouterr().err
        assert f"{name} is " in message
        assert "of another run ('honest-seed1-" in message
        (own / name).write_bytes(whole)
    # without its record, the checkpoint alone must not be thrown away either
    (own / "record.json").unlink()
    (own / "checkpoint.pt").write_bytes((only_run(other) / "checkpoint.pt").read_bytes())
    assert command(QUICK) == 2
    assert "holds the checkpoint.pt of another run" in capsys.readouterr().err
    assert record_in(own)
    saved = torch.load(own / "checkpoint.pt", weights_only=True)
    del saved["unfinished"]
    torch.save(saved, own / "checkpoint.pt")
    assert command(QUICK) == 2
    assert "does not say of what run it is, and no record.json" in capsys.readouterr().err
    assert command(f"{QUICK} --rerun") == 0


def flip(field: str, value: Any) -> Harm:
    def harm(path: Path) -> None:
        record = json.loads(path.read_text())
        part, _, name = field.partition(".")
        record[part][name] = value
        path.write_text(json.dumps(record))

    return harm


@pytest.mark.parametrize(("field", "value"), [("test.top1", 0.99), ("costs.train_seconds", 1.0), ("dataset.name", "x")])
def test_an_edited_record_is_no_result(command: Command, tmp_path: Path, capsys: Any, field: str, value: Any) -> None:
    assert command(QUICK) == 0
    path = run_of(tmp_path) / "record.json"
    before = content(path)
    flip(field, value)(path)
    capsys.readouterr()
    assert command(QUICK) == 0
    assert (
        "was changed after it was written (its checksum differs)), set aside as record.json.dam"
        in capsys.readouterr().out
    )
    assert content(path) == before
    (path.parent / "checkpoint.pt").unlink()
    flip(field, value)(path)
    assert command(QUICK) == 2
    message = capsys.readouterr().err
    assert "its checksum differs" in message
    assert "--rerun" in message


def test_a_number_beyond_all_others_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"schema": 2, "run": "x", "checksum": "y", "lr": 1e999}')
    with pytest.raises(RecordError, match="its checksum differs"):
        read_record(path)


@pytest.mark.parametrize("name", ["history.csv", "predictions.npz", "split.json", "checkpoint.pt"])
def test_a_damaged_file_beside_a_finished_record_is_named(
    command: Command, tmp_path: Path, capsys: Any, name: str
) -> None:
    assert command(QUICK) == 0
    path = run_of(tmp_path) / name
    assert command(QUICK) == 0
    assert "note" not in capsys.readouterr().out
    zeroed(path)
    assert command(QUICK) == 0
    assert f"note       {path.relative_to(tmp_path)} is damaged, or of another run" in capsys.readouterr().out
    path.unlink()  # whoever has no room may remove what he does not need
    assert command(QUICK) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("harm", [zeroed, Path.unlink])
def test_a_split_that_was_damaged_while_the_run_lasted_is_not_what_the_record_seals(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Harm
) -> None:
    def harmed(*given: Any) -> Any:
        if given[1].name == "test":
            path = run_of(tmp_path) / "split.json"
            kept.append(path.read_bytes())
            harm(path)
        return predict(*given)

    kept: list[bytes] = []
    monkeypatch.setattr("engine.run.predict", harmed)
    assert command(QUICK) == 0
    path = run_of(tmp_path) / "split.json"
    assert [path.read_bytes()] == kept
    assert content(path.with_name("record.json"))["files"]["split.json"] == digest(path)


def test_the_metrics_are_those_of_the_predictions_as_they_are_read_again(
    command: Command, tmp_path: Path, capsys: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.records.run_folder.np.savez_compressed", lambda file, **_: file.write(b"nothing"))
        assert command(QUICK) == 3
    assert "predictions.npz can't be read after it was written" in capsys.readouterr().err
    assert command(QUICK) == 0
    record = read_record(run_of(tmp_path) / "record.json")
    assert record
    assert record["files"].keys() == {"history.csv", "predictions.npz", "errors.npz", "split.json", "checkpoint.pt"}


Change = Callable[[dict[str, Any]], object]


def moments(saved: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(saved["optimizer"]["state"].values()))
    return found


HOSTILE: dict[str, Change] = {
    "stage": lambda saved: saved["state"].update(stage=-1),
    "a stage beyond": lambda saved: saved["state"].update(stage=3),
    "score": lambda saved: saved["state"].update(best_score=2.0),
    "shape of moments": lambda saved: moments(saved).update(momentum_buffer=torch.zeros(1)),
    "type of moments": lambda saved: moments(saved).update(
        momentum_buffer=moments(saved)["momentum_buffer"].to(torch.int64)
    ),
    "moments": lambda saved: moments(saved).clear(),
    "no tensor": lambda saved: moments(saved).update(momentum_buffer=3),
    "parameter": lambda saved: saved["optimizer"]["state"].update({99: {}}),
    "optimizer": lambda saved: saved["optimizer"].update(state=7),
    "shape of weights": lambda saved: saved["model"].update({"0.weight": torch.zeros(1)}),
    "type of weights": lambda saved: saved["best"].update({"0.weight": saved["best"]["0.weight"].to(torch.int8)}),
    "weights not finite": lambda saved: saved["best"].update({"0.weight": saved["best"]["0.weight"] * torch.nan}),
    "no weights": lambda saved: saved.update(model=[]),
    "other weights": lambda saved: saved["model"].pop("0.weight"),
    "random": lambda saved: saved.update(random={"cpu": torch.zeros(3)}),
    "scaler": lambda saved: saved.update(scaler={"scale": -1}),
    "run": lambda saved: saved.update(unfinished=[]),
}


def test_a_strangers_checkpoint_is_refused_before_anything_computes_with_it(
    command: Command, tmp_path: Path, capsys: Any
) -> None:
    """Moments of another shape let PyTorch's fused optimizers write where nothing is theirs."""
    stops = iter([False, False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.loop.stop_asked_for", lambda: next(stops))
        assert command(QUICK) == 130
    path = run_of(tmp_path) / "checkpoint.pt"
    whole = path.read_bytes()
    path.with_name("checkpoint.previous.pt").unlink()
    for what, change in HOSTILE.items():
        saved = torch.load(path, weights_only=True)
        change(saved)
        torch.save(saved, path)
        capsys.readouterr()
        assert command(QUICK) == 2, what
        message = capsys.readouterr().err
        assert "checkpoint" in message, what
        assert "--rerun" in message, what
        path.write_bytes(whole)
    saved = torch.load(path, weights_only=True)
    for group in saved["optimizer"]["param_groups"]:
        group |= {"momentum": 0.0, "lr": 100.0, "weight_decay": 9.0}
    torch.save(saved, path)
    assert command(QUICK) == 0
    resumed = outcome(tmp_path / "runs")
    assert command(f"{QUICK} --out undisturbed") == 0
    assert resumed == outcome(tmp_path / "undisturbed")


@pytest.mark.parametrize("other", [False, True])
def test_whoever_removes_the_lock_lets_no_second_run_in(
    command: Command, tmp_path: Path, capsys: Any, other: bool
) -> None:
    """Where another one took it meanwhile, this one ends and leaves what the other writes."""
    taken: list[RunLock] = []

    def remove(*_: object) -> None:
        lock = run_of(tmp_path) / ".lock"
        if other and not taken:
            lock.unlink()
            taken.append(RunLock(lock))
            (lock.parent / "record.json").write_text("{}")
        elif not other:
            lock.unlink(missing_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.loop.require_finite", remove)
        assert command(QUICK) == (3 if other else 0)
    if other:
        assert "another process is at this run now" in capsys.readouterr().err
        assert (run_of(tmp_path) / "record.json").read_text() == "{}"
    else:
        assert (run_of(tmp_path) / ".lock").exists()
        assert content(run_of(tmp_path) / "record.json")["status"] == "done"


def test_a_file_system_without_locks_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert command(f"{QUICK} --no-cache") == 2
    assert "No locks available. --out chooses another folder." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["history.csv", "split.json"])
def test_a_folder_in_the_place_of_a_file_is_named(command: Command, tmp_path: Path, capsys: Any, name: str) -> None:
    cut_off_before_test(command)
    path = run_of(tmp_path) / name
    path.unlink()
    path.mkdir()
    assert command(QUICK) == 2
    assert f"{path.relative_to(tmp_path)} is a folder, where the run has a file. Remove it." in capsys.readouterr().err
    path.rmdir()
    assert command(QUICK) == 0
