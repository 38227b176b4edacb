"""A search at work: rungs, ties, failures, stops, kills, budgets that run out, what is kept of it."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine.errors import RunError, UserError
from engine.processes.heartbeat import SEARCH
from engine.records.schema import json_schema
from grids.cells import Cell
from grids.devices import Slots
from grids.offer import Offer
from grids.worker import Worker
from ranking.budget import Budget
from ranking.search import run_search
from ranking.search_result import SearchResult
from ranking.trainings import train_winner
from reporting.search_results import as_search
from tests import toy
from tests.ranking.fake_cells import (
    FULL,
    IMAGES,
    MODELS,
    in_another_process,
    prepare,
    request,
    search,
    started,
)

# of four: 4 for 2 epochs and 2 for 4; a quarter of 80 epochs are 20, so that the last two get 6
FLAT = {name: {"scores": {"else": score}} for name, score in zip(MODELS, (0.9, 0.8, 0.7, 0.6), strict=True)}
QUARTER = Budget(images=20 * IMAGES)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grids.running.MOMENT", 0.02)
    monkeypatch.setattr("ranking.halving.SHORTEST", FULL)  # of a first rung: one epoch, so that there are several rungs
    prepare(tmp_path, FLAT)


def changed(**changes: Any) -> dict[str, Any]:
    return {name: {**FLAT[name], **changes.get(name, {})} for name in FLAT}


def ledger() -> Path:
    (path,) = Path("runs/rank").glob("*.ledger.json")
    return path


def records() -> dict[str, Any]:
    """By backbone and epochs."""
    found = {}
    for path in Path("runs/digits").glob("*/*/record.json"):
        record = json.loads(path.read_text())
        found[f"{path.parent.parent.name} {path.parent.name.rpartition('-e')[2]}"] = record
    return found


def decided(found: SearchResult) -> list[Any]:
    """What must be the same, whatever happened meanwhile."""
    rungs = [[(each.name, each.score, rung.epochs) for each in rung.candidates] for rung in found.rungs]
    return [rungs, found.recommendation, found.runner_up, found.told_apart, found.tied, found.stopped_early]


def test_a_search(capsys: Any) -> None:
    found = search()
    assert started()[:4] == [f"{name} 2 rung 1 of 2" for name in MODELS]
    assert started()[4:] == ["resnet 6 rung 2 of 2", "swin 6 rung 2 of 2"]
    assert [[each.name for each in rung.candidates] for rung in found.rungs] == [list(MODELS), ["resnet", "swin"]]
    assert (found.recommendation, found.runner_up, found.told_apart) == ("resnet", "swin", True)
    assert (found.images, found.full_grid_images, found.epochs) == (20 * IMAGES, 80 * IMAGES, 6)
    assert found.complete
    assert found.exit_code == 0
    assert found.left_out == {
        "regnet": "number 3 after 2 epochs: 70.0 %",
        "mobilenet": "number 4 after 2 epochs: 60.0 %",
    }
    assert json.loads(json.dumps(found.as_json()))["rungs"][1]["candidates"][0]["epoch"] == 6
    printed = capsys.readouterr().out
    assert "answer     Take resnet: 90.0 % of 1,000 validation images right after 6 epochs." in printed
    assert "rung 1     resnet, swin, regnet, mobilenet: 2 epochs of 1,000 images each" in printed
    assert "stay       resnet, swin" in printed
    assert "cost       20,000 training images, 25% of the 80,000 of the full grid" in printed
    assert {name: record["search"] for name, record in records().items()} == {
        **{f"{name} 2": "rung 1 of 2" for name in MODELS},
        "resnet 6": "rung 2 of 2",
        "swin 6": "rung 2 of 2",
    }


def test_the_same_command_again_does_nothing() -> None:
    first, before = search(), len(started())
    again = search()
    assert len(started()) == before
    assert decided(again) == decided(first)
    assert (again.images, again.seconds) == (first.images, first.seconds)
    smaller = search(Budget(images=9 * IMAGES))
    assert len(started()) == before
    assert decided(smaller) == decided(first)


def test_the_report_reads_what_a_search_comes_to() -> None:
    found = search()
    read = as_search(json.loads(json.dumps(found.as_json())))
    assert (read.budget, read.spent_images, read.spent_seconds) == (found.budget, found.images, found.seconds)
    assert (read.full_grid_images, read.recommendation, read.runner_up) == (80 * IMAGES, "resnet", "swin")
    assert (read.told_apart, read.complete, read.stopped_early) == (found.told_apart, True, False)
    assert [(rung.epochs, rung.kept) for rung in read.rungs] == [(2, ("resnet", "swin")), (6, ())]
    first = read.rungs[0].candidates[0]
    assert (first.name, first.status, first.score) == ("resnet", "done", 0.9)
    assert (first.low, first.high) == found.rungs[0].candidates[0].interval


def test_no_other_can_win(capsys: Any) -> None:
    """The leader of two rungs beyond all others: the third is not trained."""
    five = (*MODELS, "densenet")
    curves = changed() | {"densenet": {"scores": {"else": 0.3}}}
    curves |= {name: {"scores": {"else": 0.5}} for name in ("swin", "regnet", "mobilenet")}
    prepare(Path(), curves)
    found = search(Budget(images=25 * IMAGES), models=five)
    assert [rung.epochs for rung in found.rungs] == [1, 2]
    assert found.stopped_early
    assert found.complete
    assert "no other can win at 95 %" in capsys.readouterr().out
    assert found.images == (5 + 4 * 2) * IMAGES  # one more than half of them, which is tied
    again = search(Budget(images=10**6), models=five)
    assert decided(again) == decided(found)
    assert "the larger budget changes nothing" in capsys.readouterr().out


def test_ties_are_kept_and_named(capsys: Any) -> None:
    close = {name: {"scores": {"else": 0.9 - 0.001 * place}} for place, name in enumerate(MODELS)}
    prepare(Path(), close)
    found = search()
    assert [len(rung.candidates) for rung in found.rungs] == [4, 3]
    assert found.told_apart is False
    assert found.tied == ["swin", "regnet", "mobilenet"]
    printed = capsys.readouterr().out
    assert "stay       resnet, swin; and regnet, not to be told from swin by so few images" in printed
    assert (
        "out        mobilenet; of these, mobilenet can't be told from swin either: the budget is too small" in printed
    )
    assert "tied       regnet, mobilenet can't be told from it either, in the last rung that both were in" in printed
    assert "swin, 89.9 % after 4 epochs: they can't be told apart" in printed


def test_a_candidate_that_fails_drops_out(capsys: Any) -> None:
    prepare(Path(), changed(swin={"fails": "the loss became nan in epoch 1"}))
    found = search()
    assert found.recommendation == "resnet"
    assert found.runner_up == "regnet"
    assert found.left_out["swin"].startswith(
        "failed: the loss became nan in epoch 1; log runs/grid/digits-swin-seed0-all-"
    )
    assert "left out   swin (failed: the loss became nan in epoch 1; log " in capsys.readouterr().out
    assert found.images == 20 * IMAGES  # what it went through nobody knows: all is counted
    assert len([line for line in started() if line.startswith("swin")]) == 1


def test_a_full_disk_ends_the_command_and_costs_no_candidate() -> None:
    full = "the record can't be written to runs/digits: no space left on device. What was saved before is whole."
    prepare(Path(), changed(resnet={"fails": full}))
    with pytest.raises(RunError, match=r"resnet.* could not be ended: .*no space left on device"):
        search()
    assert not json.loads(ledger().read_text())["rungs"][0]["results"]
    before = started()
    prepare(Path(), FLAT)
    again = search()
    assert [line for line in started()[len(before) :] if " rung 1 " in line] == ["resnet 2 rung 1 of 2"]
    assert (again.recommendation, again.runner_up) == ("resnet", "swin")


def test_one_that_is_left_alone_is_the_answer(capsys: Any) -> None:
    fails = {"fails": "the loss became nan"}
    prepare(Path(), changed(resnet=fails, swin=fails, mobilenet=fails))
    found = search()
    assert (found.recommendation, found.runner_up, found.told_apart) == ("regnet", None, None)
    assert len(found.rungs) == 1
    assert "all others have failed" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "kind"), [(2, UserError), (3, RunError)])
def test_all_fail(code: int, kind: type[Exception]) -> None:
    fails = {"fails": "no images here", "code": code}
    prepare(Path(), changed(**dict.fromkeys(MODELS, fails)))
    with pytest.raises(kind, match="all 4 backbones failed, the first so: no images here"):
        search()
    prepare(Path(), FLAT)
    if code == 2:  # mended: the same command goes on
        assert search().recommendation == "resnet"


def test_a_rung_whose_runs_lie_there_costs_nothing(capsys: Any) -> None:
    first = search()
    ledger().unlink()
    for path in Path("runs/digits").glob("*/*/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"search": None}))
    capsys.readouterr()
    again = search()
    assert len(started()) == 6
    assert decided(again) == decided(first)
    assert (again.images, again.seconds) == (0, 0)
    assert all(each.lay_there for rung in again.rungs for each in rung.candidates)
    assert "trained already: resnet, swin, regnet, mobilenet" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "null", '{"schema": 1}', "changed"])
def test_a_damaged_ledger_is_named_and_made_anew(damage: str, capsys: Any) -> None:
    first = search()
    text = ledger().read_text()
    ledger().write_text(text.replace('"resnet"', '"swin"', 1) if damage == "changed" else damage)
    capsys.readouterr()
    again = search()
    assert len(started()) == 6
    assert decided(again) == decided(first)
    assert again.images == first.images
    printed = capsys.readouterr().out
    assert "is damaged" in printed
    assert f"set aside as {ledger().name}.damaged" in printed
    assert ledger().with_name(f"{ledger().name}.damaged").exists()


def test_another_search_has_another_ledger() -> None:
    search()
    other = search(identity={"split": "y"})
    assert len(list(Path("runs/rank").glob("*.ledger.json"))) == 2
    assert len(started()) == 6
    assert other.images == 0  # what the first trained cost this one nothing


def test_the_order_that_was_decided_by_is_kept() -> None:
    first = search()
    assert decided(search(models=MODELS[::-1])) == decided(first)
    assert len(started()) == 6


def test_a_larger_budget_extends_a_finished_search(capsys: Any) -> None:
    prepare(Path(), changed(swin={"scores": {"else": 0.89}}))
    search()
    more = search(Budget(images=44 * IMAGES))
    assert [rung.epochs for rung in more.rungs] == [2, 6, 12]
    assert started()[6:] == ["resnet 12 rung 3 of 3", "swin 12 rung 3 of 3"]
    assert "the larger budget pays for one rung more, of over 6 epochs" in capsys.readouterr().out
    search(Budget(images=45 * IMAGES))
    assert "the larger budget changes nothing" in capsys.readouterr().out
    full = search(Budget(images=10**6))
    assert full.rungs[-1].epochs == FULL
    assert started()[8:] == ["resnet 20 ", "swin 20 "]  # ordinary runs, without a mark
    search(Budget(images=10**7))
    assert "the larger budget changes nothing" in capsys.readouterr().out
    assert len(started()) == 10


def test_the_winner_in_full_is_an_ordinary_run() -> None:
    search()
    assert train_winner(request(), "resnet").status == "done"
    assert started()[6:] == ["resnet 20 "]
    assert records()["resnet 20"]["search"] is None
    assert records()["resnet 20"]["config"]["epochs"] is None
    assert train_winner(request(), "resnet").status == "done"
    assert len(started()) == 7
    prepare(Path(), changed(swin={"fails": "the loss became nan"}))
    with pytest.raises(RunError, match="swin, seed 0 failed: the loss became nan"):
        train_winner(request(), "swin")


def interrupt_when(condition: Callable[[], object], *, again: bool = False) -> None:
    """Ctrl-C, once it has come to that."""

    def work() -> None:
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        if again:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c(again: bool, capsys: Any) -> None:
    undisturbed = decided(search())
    Path("runs").rename("old")
    Path("started.txt").unlink()
    prepare(Path(), {name: {**each, "seconds": 0.3} for name, each in FLAT.items()})
    interrupt_when(lambda: len(started()) == 2, again=again)
    stopped = search()
    assert stopped.exit_code == 130
    assert (stopped.recommendation, stopped.complete) == (None, False)
    assert stopped.images >= 2 * IMAGES
    assert "interrupted in rung 1: the same command continues" in capsys.readouterr().out
    Path("fast").touch()
    found = search()
    assert decided(found) == undisturbed
    assert [line for line in started() if line.startswith("resnet 2")] == ["resnet 2 rung 1 of 2"]


def slow(seconds: float = 0.2) -> None:
    prepare(Path(), {name: {**each, "seconds": seconds} for name, each in FLAT.items()})


def test_seconds_that_run_out_in_the_middle_of_a_rung(capsys: Any) -> None:
    """Trainings are thought to be far faster than they are; the plan is kept, and a larger budget goes on with it."""
    # 0.3 s an epoch, so that 6 s are thought to pay for 20 epochs
    slow(2.5)
    begin = time.monotonic()
    out = search(Budget(seconds=6.0), speed=10000 / 3)
    assert time.monotonic() - begin < 6 * 1.1 + 3
    assert not out.complete
    assert out.exit_code == 0
    assert (out.recommendation, out.rungs) == (None, [])
    assert "the budget ran out in rung 1, which is not finished and not counted" in capsys.readouterr().out
    before = len(started())
    again = search(Budget(seconds=6.0), speed=10000 / 3)
    assert len(started()) == before
    assert "the budget ran out in rung 1" in capsys.readouterr().out
    assert again.seconds == out.seconds
    Path("fast").touch()
    more = search(Budget(seconds=500.0), speed=10000 / 3)
    assert more.complete
    Path("runs").rename("old")
    undisturbed = search(Budget(seconds=6.0), speed=10000 / 3)
    assert decided(more) == decided(undisturbed)


def test_seconds_that_run_out_later_leave_the_answer_of_the_rung_before(capsys: Any) -> None:
    """0.4 s an epoch are thought to pay for 4 of 2 epochs and 2 of 4; in the second rung it is 2 s."""
    budget = Budget(seconds=8.0)
    Path("fast").touch()
    undisturbed = search(budget, speed=2.5e3)
    assert [rung.epochs for rung in undisturbed.rungs] == [2, 5]
    Path("runs").rename("old")
    Path("fast").unlink()
    prepare(Path(), {name: {**each, "seconds_in": {"5": 2.0}} for name, each in FLAT.items()})
    out = search(budget, speed=2.5e3)
    assert out.seconds < 1.1 * 8 + 1
    assert [rung.epochs for rung in out.rungs] == [2]
    assert (out.recommendation, out.runner_up, out.complete) == ("resnet", "swin", False)
    assert out.images >= 9 * IMAGES  # with what the second rung went through
    printed = capsys.readouterr().out
    assert "the budget ran out in rung 2, which is not finished and not counted" in printed
    assert "Take resnet: 90.0 % of 1,000 validation images right after 2 epochs" in printed
    before = len(started())
    assert decided(search(budget, speed=2.5e3)) == decided(out)
    assert len(started()) == before
    Path("fast").touch()
    more = search(Budget(seconds=60.0), speed=2.5e3)
    assert more.complete
    assert decided(more) == decided(undisturbed)
    assert "the same command again goes on with the rest" not in capsys.readouterr().out  # no other can win
    assert [line for line in started()[before:] if not line.startswith(("resnet 5", "swin 5"))] == []


def test_what_a_budget_of_seconds_leaves_is_looked_at_before_each_rung(capsys: Any) -> None:
    """Each process is thought to take nothing, and takes some tenths of a second; those of the first rung tell."""
    slow(0.3)
    found = search(Budget(seconds=6.0), speed=4e3)
    assert found.seconds <= 6.6
    assert found.recommendation == "resnet"


def test_without_speeds_there_is_no_budget_of_seconds() -> None:
    plain = request()
    bare = replace(plain, candidates=[replace(each, images_per_second=None) for each in plain.candidates])
    with pytest.raises(UserError, match="how fast mobilenet, regnet, resnet, swin would train could not"):
        run_search(bare, Budget(seconds=60))
    with pytest.raises(UserError, match="Give --budget in images, such as images:20000, or"):
        run_search(bare, Budget(seconds=60))


def test_too_small_a_budget() -> None:
    with pytest.raises(UserError, match="Give images:2000 or more"):
        search(Budget(images=1999))
    assert not list(Path("runs/rank").glob("*.ledger.json"))
    assert search(Budget(images=2000)).complete


def test_a_folder_that_can_not_be_made() -> None:
    Path("runs").mkdir()
    Path("runs/rank").touch()
    with pytest.raises(UserError, match="a search can't be kept in"):
        search()


def killed(kills: int, seed: int, until: float) -> None:
    """A search that is killed so often, at random, comes to what an undisturbed one does, and each run is made once."""
    undisturbed = decided(search())
    Path("runs").rename("old")
    Path("started.txt").unlink()
    slow(0.25)
    moments, hits = random.Random(seed), 0
    for _ in range(kills):
        process = in_another_process(QUARTER)
        time.sleep(moments.uniform(0, until))
        hits += process.is_alive()
        process.kill()
        process.join()
    assert hits >= kills // 2, Path("printed.txt").read_text()
    last = in_another_process(QUARTER)
    last.join(120)
    assert last.exitcode == 0, Path("printed.txt").read_text()
    found = search()
    assert decided(found) == undisturbed
    assert found.images == 20 * IMAGES
    assert set(records()) == {*(f"{name} 2" for name in MODELS), "resnet 6", "swin 6"}


def test_killed_at_random() -> None:
    killed(5, 1, 1.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_twenty_times(seed: int) -> None:
    killed(20, seed, 0.9)


def test_two_at_once_make_each_run_once() -> None:
    slow(0.1)
    both = [in_another_process(QUARTER) for _ in range(2)]
    for each in both:
        each.join(60)
    assert [each.exitcode for each in both] == [0, 0], Path("printed.txt").read_text()
    assert sorted(started()) == sorted(set(started()))
    assert len(started()) == 6
    assert "another search is at" in Path("printed.txt").read_text()


def test_a_larger_budget_in_the_middle_first_ends_the_plan_that_was_begun(capsys: Any) -> None:
    prepare(Path(), {name: {**each, "seconds": 0.2} for name, each in changed(swin={"scores": {"else": 0.89}}).items()})
    interrupt_when(lambda: len(started()) == 2)
    assert search().exit_code == 130
    Path("fast").touch()
    more = search(Budget(images=44 * IMAGES))
    assert [rung.epochs for rung in more.rungs] == [2, 6]
    assert "the same command again goes on with the rest" in capsys.readouterr().out
    assert [rung.epochs for rung in search(Budget(images=44 * IMAGES)).rungs] == [2, 6, 12]


def test_a_smaller_budget_in_the_middle_is_kept_too() -> None:
    prepare(Path(), {name: {**each, "seconds": 0.2} for name, each in FLAT.items()})
    interrupt_when(lambda: len(started()) == 5)
    assert search().exit_code == 130
    before = len(started())
    small = search(Budget(images=19 * IMAGES))  # the rung that was begun takes 20,000 with the one before
    assert len(started()) == before
    assert (small.recommendation, small.epochs, small.complete) == ("resnet", 2, False)
    assert small.why == "too little left"


def test_a_record_says_what_rung_it_was_begun_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a real training; the mark is no part of what the run is."""
    line = "-bs 16 --weights none --recipe cosine --epochs 1"

    def record_of(seed: int) -> Any:
        assert toy.Process(f"{line} --seed {seed}", tmp_path).wait() == 0
        (path,) = tmp_path.glob(f"runs/toy/tiny/*-seed{seed}-*/record.json")
        record = json.loads(path.read_text())
        jsonschema.validate(record, json_schema())
        return record

    monkeypatch.delenv(SEARCH, raising=False)
    plain = record_of(1)  # and the processes of later tests begin without the mark, too
    assert plain["search"] is None
    monkeypatch.setenv(SEARCH, "rung 1 of 3")
    marked = record_of(0)
    assert marked["search"] == "rung 1 of 3"
    assert record_of(1) == plain
    monkeypatch.delenv(SEARCH)
    assert record_of(0) == marked


def test_a_ledger_that_is_damaged_in_the_middle_costs_no_training(capsys: Any) -> None:
    undisturbed = search()
    Path("runs").rename("old")
    Path("started.txt").unlink()
    prepare(Path(), {name: {**each, "seconds": 0.2} for name, each in FLAT.items()})
    interrupt_when(lambda: len(started()) == 6)
    assert search().exit_code == 130
    ledger().write_text(ledger().read_text()[:-100])
    Path("fast").touch()
    found = search()
    assert decided(found) == decided(undisturbed)
    assert found.images == undisturbed.images
    assert found.seconds > 4 * 2 * 0.2  # what the records of the first rung say is counted again
    assert len(started()) == 7  # the one that was stopped went on
    assert "made anew of the runs' records" in capsys.readouterr().out


def test_trainings_run_where_they_are_offered_a_place() -> None:
    """On the nodes of a Ray cluster, say: two at a time here."""
    taken: list[str] = []

    class Counted(Slots):
        def start(self, cell: Cell, lock: int, seeds: int) -> Worker:
            taken.append(cell.config.model)
            return super().start(cell, lock, seeds)

    found = search(offer=Offer(lambda _: Counted([None, None]), 2, "two at a time"))
    assert found.recommendation
    assert sorted(taken) == sorted(line.split()[0] for line in started())
