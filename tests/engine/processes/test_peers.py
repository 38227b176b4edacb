"""Several processes that train a run together, as torchrun starts them: on this processor, by gloo."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

import grid
from engine import INTERRUPTED
from engine.cli import Parser
from engine.data.batches import Batches, nothing, usable_batch_size
from engine.data.part import Part, RawSplits
from engine.errors import UserError
from engine.models.structure import batch_statistics, trains_batch_norm
from engine.paths import PROJECT
from engine.processes import exchange, peers
from engine.records.schema import json_schema
from engine.training import head
from engine.training.evaluation import predict
from engine.training.plan import Plan
from engine.training.step import Step
from tests import toy
from tests.conftest import Command, only_run

QUICK = "-bs 16 --weights none --plan off --epochs 2"
LONG = "-bs 16 --weights none --plan off --epochs 200 --patience 200"
SECONDS = 60.0
PLAN = Plan("cpu", "this one", "fp32", "", 1)


STORES: list[Any] = []  # torchrun keeps the one of its processes as long as it lives


def places(count: int) -> list[dict[str, str]]:
    """What torchrun puts into the environment of each process."""
    STORES[:] = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(STORES[0].port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


class Together:
    """A command of tests/toy.py, given to several processes in `folder`; `first` is done in each before all else."""

    def __init__(self, line: str, folder: Path, count: int, first: Callable[[], object] = nothing) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = []
        for rank, environment in enumerate(places(count)):
            with mock.patch.dict(os.environ, environment):
                files = (f"printed{rank}.txt", f"problems{rank}.txt")
                for file in files:
                    (folder / file).unlink(missing_ok=True)
                self.processes.append(toy.Process(line, folder, *files, first=first))

    def wait(self) -> list[int]:
        """Their exit codes."""
        return [process.wait(SECONDS) for process in self.processes]

    def send(self, number: signal.Signals, *ranks: int) -> None:
        """A signal to those of such ranks."""
        for rank in ranks:
            self.processes[rank].send(number)

    def until(self, words: str) -> None:
        """Wait until the first has printed that."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with_output = (self.processes[0]._printed).exists()
            if with_output and words in self.processes[0].printed:
                return
            assert self.processes[0].runs, self.problems
            time.sleep(0.02)
        raise AssertionError(f"{words!r} does not come: {self.processes[0].printed}")

    @property
    def problems(self) -> str:
        """What all of them have said on stderr."""
        return "".join(process.problems for process in self.processes)


def record_in(out: Path) -> dict[str, Any]:
    """That of the only run."""
    record: dict[str, Any] = json.loads((only_run(out) / "record.json").read_text())
    return record


# -- what each takes


def shares(images: int, batch_size: int, count: int, augment: bool = True) -> list[Batches]:
    part = toy.part(images, 1, "train")
    usual = Batches("train", part, batch_size, (16, 16), (0.5,) * 3, (0.2,) * 3, "cpu", augment=augment)
    return [usual.__class__(**{**vars(usual), "process": rank, "processes": count}) for rank in range(count)]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("images", "batch_size"), [(60, 16), (54, 10), (33, 16), (21, 64), (49, 7)])
def test_shares_of_training_batches_are_the_batches_of_one_process(images: int, batch_size: int, count: int) -> None:
    whole = list(shares(images, batch_size, 1)[0].shuffled(3, 5))
    divided = [list(each.shuffled(3, 5)) for each in shares(images, batch_size, count)]
    assert {len(each) for each in divided} == {len(whole)}
    for number, (pixels, labels) in enumerate(whole):
        parts = [each[number] for each in divided]
        if len(labels) >= 2 * count:
            assert torch.equal(torch.cat([some for some, _ in parts]), pixels)
            assert torch.equal(torch.cat([some for _, some in parts]), labels)
            sizes = [len(some) for _, some in parts]
            assert max(sizes) - min(sizes) <= 1
        else:
            assert all(torch.equal(some, pixels) for some, _ in parts)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_evaluation_is_divided_in_whole_batches(count: int) -> None:
    for images in (1, 21, 60, 97):
        part = toy.part(images, 2, "test")
        rows = [each.for_evaluation("test", part).evaluated for each in shares(40, 8, count)]
        assert np.array_equal(np.sort(np.concatenate([some for some in rows if some is not None])), np.arange(images))
        for some in rows:
            assert some is not None
            for batch in np.unique(some // 16):
                assert np.count_nonzero(some // 16 == batch) == min(16, images - 16 * batch)


def test_a_process_without_two_images_a_step_is_refused() -> None:
    assert usable_batch_size(4, 100, True, 2) == 4
    with pytest.raises(UserError, match=r"-bs 3 for 2 processes.*2 images or more for each"):
        usable_batch_size(3, 100, False, 2)
    with pytest.raises(UserError, match="5 training images for 3 processes"):
        usable_batch_size(64, 5, False, 3)


# -- what they make of it


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(32, 3),
    )  # fmt: skip


def in_processes(work: Callable[[Path], object], folder: Path, count: int) -> None:
    """Let so many processes, which have joined, do `work` in `folder`."""
    context = toy._context()
    started = [context.Process(target=_joined, args=(work, folder, each), daemon=True) for each in places(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
        assert process.exitcode == 0


def _joined(work: Callable[[Path], object], folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    with peers.together("cpu"):
        work(folder)


def evaluated(images: int, part: Part | None = None) -> np.ndarray[Any, Any]:
    here = peers.place()
    usual = shares(40, 8, here.count)[here.rank]
    logits, _ = predict(network(), usual.for_evaluation("val", part or toy.part(images, 2, "val")), PLAN)
    return logits


def evaluate(folder: Path, sizes: Sequence[int]) -> None:
    np.savez(folder / f"{peers.place().rank}.npz", *[evaluated(images) for images in sizes])


@pytest.mark.parametrize("count", [2, 3])
def test_evaluation_gives_the_bits_of_one_process(count: int, tmp_path: Path) -> None:
    sizes = (3, 21, 60, 97)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = [evaluated(images) for images in sizes]
    torch.set_num_threads(threads)
    in_processes(partial(evaluate, sizes=sizes), tmp_path, count)
    for rank in range(count):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for one, other in zip(expected, found.values(), strict=True):
                assert np.array_equal(one, other)


def steps(batches: Batches, step: Step, recipe_seed: int = 0) -> float:
    """An epoch; its loss, added up."""
    total = torch.zeros(())
    for number, (images, labels) in enumerate(batches.shuffled(recipe_seed, 0)):
        loss = step(images, labels, batches.weight(number, len(labels)))
        total += loss * batches.in_batch(number) / batches.processes
    return float(exchange.add_up(total))


WEIGHTS = (0.5, 1.0, 2.5)


def train(folder: Path, images: int, batch_size: int) -> None:
    here, model = peers.place(), network()
    model.train()
    own = shares(images, batch_size, here.count, augment=False)[here.rank]
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), PLAN, own.whole_share, WEIGHTS, together=True)
    loss = steps(own, step)
    torch.save((loss, [parameter.detach() for parameter in model.parameters()]), folder / f"{here.rank}.pt")


@pytest.mark.parametrize(("count", "images", "batch_size"), [(2, 32, 16), (3, 30, 15), (2, 28, 16), (3, 26, 16)])
def test_a_step_is_that_of_accumulated_micro_batches(count: int, images: int, batch_size: int, tmp_path: Path) -> None:
    """Batches that are divided equally, and not; a last one that is smaller."""
    model = network()
    model.train()
    (alone,) = shares(images, batch_size, 1, augment=False)
    plan = Plan("cpu", "this one", "fp32", "", 1, micro_batch=-(-batch_size // count))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    total = 0.0
    for some, labels in alone.shuffled(0, 0):
        # in as many pieces as there are processes, whatever the plan makes of a smaller batch
        step = Step(model, optimizer, plan, batch_size, WEIGHTS)
        step.most = -(-len(labels) // count)
        assert step._pieces(len(labels)) == count
        total += float(step(some, labels)) * len(labels)
    in_processes(partial(train, images=images, batch_size=batch_size), tmp_path, count)
    for rank in range(count):
        loss, parameters = torch.load(tmp_path / f"{rank}.pt")
        assert loss == pytest.approx(total, rel=1e-5)
        for mine, theirs in zip(model.parameters(), parameters, strict=True):
            torch.testing.assert_close(theirs, mine.detach(), rtol=1e-5, atol=1e-6)


def train_few(folder: Path) -> None:
    here, model = peers.place(), network()
    model.train()
    own = shares(3, 16, here.count, augment=False)[here.rank]
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), PLAN, own.whole_share, together=True)
    loss = steps(own, step)
    torch.save((loss, model.state_dict()), folder / f"{here.rank}.pt")


def test_a_batch_too_small_to_be_divided_is_that_of_one_process(tmp_path: Path) -> None:
    model = network()
    model.train()
    (alone,) = shares(3, 16, 1, augment=False)
    expected = steps(alone, Step(model, torch.optim.SGD(model.parameters(), 0.1), PLAN, 16))
    in_processes(train_few, tmp_path, 2)
    for rank in range(2):
        loss, state = torch.load(tmp_path / f"{rank}.pt")
        assert loss == pytest.approx(expected, rel=1e-6)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-7)


def test_synchronised_batch_statistics_leave_a_checkpoint_as_it_is() -> None:
    model, converted = network(), nn.SyncBatchNorm.convert_sync_batchnorm(network())
    assert model.state_dict().keys() == converted.state_dict().keys()
    assert trains_batch_norm(converted)
    assert len(batch_statistics(converted.train())) == 2
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(model.eval()(images), converted.eval()(images))


# -- whole runs


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_run_of_several_processes(count: int, tmp_path: Path) -> None:
    run = Together(f"{QUICK} --lr-sweep", tmp_path, count)
    assert run.wait() == [0] * count, run.problems
    record = record_in(tmp_path / "runs")
    jsonschema.validate(record, json_schema())
    assert record["status"] == "done"
    assert record["batch_size"] == 16
    images = [8, 8] if count == 2 else [6, 5, 5]
    assert record["plan"]["device_name"].startswith(f"{count} x ")
    assert record["environment"]["processes"] == {"count": count, "images": images, "sync_batch_norm": False}
    assert record["costs"]["images"] == 4 * 54 + sum(row["images"] for row in record["sweep"])
    assert f"processes  {count}, which take" in run.processes[0].printed
    assert "top-1" in run.processes[0].printed.splitlines()[-1]
    assert not any(process.printed for process in run.processes[1:])
    assert not run.problems
    again = Together(f"{QUICK} --lr-sweep", tmp_path, count)
    assert again.wait() == [0] * count
    assert again.processes[0].printed.splitlines()[-1] == run.processes[0].printed.splitlines()[-1]


def test_a_deterministic_run_of_several_processes(tmp_path: Path) -> None:
    run = Together(f"{QUICK} --deterministic", tmp_path, 2)
    assert run.wait() == [0, 0], run.problems
    assert record_in(tmp_path / "runs")["plan"]["not_deterministic"] == []


def idle_parameter() -> None:
    usual = toy.tiny

    def tiny() -> nn.Module:
        model = usual()
        model.register_parameter("idle", nn.Parameter(torch.zeros(2)))
        return model

    toy.TINY = replace(toy.TINY, builder=tiny)


def test_a_parameter_that_is_not_used_is_named(tmp_path: Path) -> None:
    run = Together(QUICK, tmp_path, 2, idle_parameter)
    assert run.wait() == [2, 2], run.problems
    assert run.problems.count("error:") == 1
    assert "do not depend on its parameter idle, so" in run.problems


def run_after_run(folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    for word in ("one", "two"):
        with peers.together("cpu"):
            found = peers.from_first(lambda word=word: word)  # type: ignore[misc]
            with (folder / f"{peers.place().rank}.txt").open("a") as file:
                file.write(f"{found} {sum(exchange.gathered(1))}\n")


def test_a_script_has_several_runs_one_after_the_other(tmp_path: Path) -> None:
    context = toy._context()
    started = [context.Process(target=run_after_run, args=(tmp_path, each), daemon=True) for each in places(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
        assert process.exitcode == 0
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["one 2\ntwo 2\n"] * 2


def images_in_files() -> None:
    """Of which the first process decodes, or looks at, all before the others do."""
    toy.DATASET = toy.dataset()
    read = toy.DATASET.read

    def read_files(options: Any) -> RawSplits:
        raw = read(options)
        return replace(raw, train=on_disk(raw.train, "train"), test=on_disk(raw.test, "test"))

    def on_disk(part: Part, name: str) -> Part:
        folder = Path("images", name)
        if folder.exists():
            paths = [folder.absolute() / f"{each.replace('/', '-')}.png" for each in part.names]
            return Part(paths, part.labels, part.names)
        return toy.on_disk(part, folder.absolute())

    toy.DATASET = replace(toy.DATASET, read=read_files)


@pytest.mark.parametrize("flag", ["", "--no-cache"])
def test_images_in_files(flag: str, tmp_path: Path) -> None:
    run = Together(f"{QUICK} --cache-dir cache {flag}", tmp_path, 2, images_in_files)
    assert run.wait() == [0, 0], run.problems
    assert record_in(tmp_path / "runs")["status"] == "done"
    assert (tmp_path / "cache").exists() == (not flag)


def test_a_head_on_frozen_features_is_as_one_process_trains_it(tmp_path: Path, command: Command) -> None:
    line = f"{QUICK} --tune linear --augment none"
    run = Together(line, tmp_path / "two", 2)
    assert run.wait() == [0, 0], run.problems
    assert command(f"-model tiny --device cpu {line}") == 0
    one, two = record_in(tmp_path / "runs"), record_in(tmp_path / "two" / "runs")
    assert two["test"]["nll"] == pytest.approx(one["test"]["nll"], rel=1e-3)


def rounds_otherwise() -> None:
    """Lets the second process come to another solution, as a processor with other instructions does."""
    usual = head._Probe.folded

    def folded(probe: Any) -> Any:
        weight, bias = usual(probe)
        return (weight, bias) if peers.is_first() else (weight + 1, bias)

    mock.patch.object(head._Probe, "folded", folded).start()


def test_a_head_that_is_solved_for_is_the_first_processes(tmp_path: Path, command: Command) -> None:
    assert command(f"-model tiny --device cpu {QUICK} --out {tmp_path / 'before'}") == 0
    line = f"-bs 16 --plan off --recipe fast --epochs 2 --weights {only_run(tmp_path / 'before') / 'checkpoint.pt'}"
    assert command(f"-model tiny --device cpu {line} --out {tmp_path / 'one'}") == 0
    run = Together(line, tmp_path / "two", 2, first=rounds_otherwise)
    assert run.wait() == [0, 0], run.problems
    first, second = (
        (only_run(out) / "history.csv").read_text().splitlines()[1].split(",")[1:6]
        for out in (tmp_path / "one", tmp_path / "two" / "runs")
    )
    assert first[:2] == second[:2] == ["head", "0.0"]
    assert [float(value) for value in second[2:]] == pytest.approx([float(value) for value in first[2:]], rel=1e-4)


def test_a_stop_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """SIGUSR1 to one of them ends all, after the epoch."""
    epochs: list[int] = []
    for count, last in ((2, False), (3, False), (1, True)):
        line = LONG.replace("200", "40")
        run = Together(line, tmp_path, count)
        if last:
            assert run.wait() == [0], run.problems
        else:
            run.until("(goes on from where it was)" if epochs else " adamw ")
            run.until(f"\n{(epochs or [0])[-1] + 2:>6}  adamw")
            run.send(signal.SIGUSR1, count - 1)
            assert run.wait() == [INTERRUPTED] * count, run.problems
            assert record_in(tmp_path / "runs")["status"] == "running"
        history = (only_run(tmp_path / "runs") / "history.csv").read_text().splitlines()
        epochs.append(len(history) - 1)
    assert epochs == sorted(set(epochs))
    assert epochs[-1] == 80
    record = record_in(tmp_path / "runs")
    jsonschema.validate(record, json_schema())
    assert record["environment"]["processes"]["count"] == 2
    assert [each["environment"].get("processes", {}).get("count") for each in record["resumed"]] == [3, None]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_that_is_killed_ends_all(rank: int, tmp_path: Path) -> None:
    run = Together(LONG, tmp_path, 3)
    run.until("\n     2  adamw")
    run.send(signal.SIGKILL, rank)
    codes = run.wait()
    assert codes[rank] == -signal.SIGKILL
    assert {code for number, code in enumerate(codes) if number != rank} == {3}
    assert run.problems.count("another of the 3 processes is gone") >= 1
    again = Together(LONG, tmp_path, 2)
    again.until("(goes on from where it was)")
    again.until(" adamw ")
    again.send(signal.SIGINT, 0, 1)
    assert again.wait() == [INTERRUPTED] * 2


def impatient() -> None:
    peers.PATIENCE = timedelta(seconds=2)


def test_one_that_hangs_ends_all(tmp_path: Path) -> None:
    run = Together(LONG, tmp_path, 2, impatient)
    run.until("\n     2  adamw")
    run.send(signal.SIGSTOP, 1)
    try:
        assert run.processes[0].wait(SECONDS) == 3
        assert "gave no sign of life" in run.processes[0].problems
    finally:
        run.send(signal.SIGKILL, 1)
    assert run.processes[1].wait() == -signal.SIGKILL
    assert record_in(tmp_path / "runs")["status"] == "failed"


def full_disk() -> None:
    from engine.records.run_folder import Run

    save = Run.save

    def fail(self: Run, snapshot: Any) -> None:
        if snapshot["state"]["epochs"] > 2:
            raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")
        save(self, snapshot)

    Run.save = fail  # type: ignore[method-assign]


def test_a_full_disk_ends_all_with_one_message(tmp_path: Path) -> None:
    run = Together(LONG, tmp_path, 3, full_disk)
    assert run.wait() == [3, 3, 3]
    assert run.problems.count("error:") == 1
    assert "no space left on device" in run.processes[0].problems.lower()
    record = record_in(tmp_path / "runs")
    assert record["status"] == "failed"
    again = Together(LONG.replace("200", "3"), tmp_path / "other", 2)
    assert again.wait() == [0, 0]


def broken_card() -> None:
    from engine.training.step import Step

    if peers.place().rank == 1:
        Step.__call__ = mock.Mock(side_effect=RuntimeError("CUDA error: an illegal memory access"))  # type: ignore[method-assign]


def test_what_fails_in_one_is_said_there_and_recorded(tmp_path: Path) -> None:
    run = Together(QUICK, tmp_path, 2, broken_card)
    assert run.wait() == [3, 3]
    assert "illegal memory access" in run.processes[1].problems
    assert "process 2 of 2: error: " in run.processes[1].problems
    assert not run.processes[0].problems
    assert "process 2 of 2 failed: CUDA error" in record_in(tmp_path / "runs")["error"]


@pytest.mark.parametrize(("number", "ranks"), [(signal.SIGINT, (0, 1)), (signal.SIGTERM, (1,))])
def test_an_interruption_ends_all(number: signal.Signals, ranks: tuple[int, ...], tmp_path: Path) -> None:
    run = Together(LONG, tmp_path, 2)
    run.until("\n     2  adamw")
    run.send(number, *ranks)
    assert run.wait() == [INTERRUPTED] * 2
    assert run.problems.count("error:") == 1
    assert "the same command goes on" in run.processes[0].problems
    assert record_in(tmp_path / "runs")["status"] == "running"


def other_images() -> None:
    if peers.place().rank == 1:
        toy.DATASET = toy.dataset(train=63)


@pytest.mark.parametrize(
    ("line", "first", "says"),
    [
        ("-bs 3 --weights none", nothing, "-bs 3 for 2 processes"),
        ("-bs 16 --weights none --sync-batch-norm", nothing, "on cards alone"),
        ("-bs 16 --weights nowhere.pth", nothing, "no such file"),
        (QUICK, other_images, "do not have the same images and weights"),
        ("-bs 16", nothing, "tiny"),  # weights that nobody can download
    ],
)
def test_a_mistake_is_told_once(line: str, first: Callable[[], object], says: str, tmp_path: Path) -> None:
    run = Together(line, tmp_path, 2, first)
    assert run.wait() == [2, 2], run.problems
    assert says in run.problems
    assert run.problems.count("error:") == 1
    assert not (tmp_path / "runs").exists() or not [*(tmp_path / "runs").rglob("record.json")]


def test_check_needs_one_process(tmp_path: Path) -> None:
    run = Together(f"{QUICK} --check", tmp_path, 2)
    assert run.wait() == [0, 0]
    assert not run.problems
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "changes", [{"RANK": "x"}, {"RANK": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}, {"LOCAL_RANK": "1"}]
)
def test_an_environment_that_makes_no_sense(changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**places(2)[0], **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="Expected what torchrun sets"):
        peers.place()


@pytest.mark.parametrize(("rank", "local", "speaks"), [(0, 0, True), (1, 1, False), (2, 0, True), (3, 1, False)])
def test_the_first_of_each_machine_says_what_is_wrong_before_they_have_joined(
    rank: int, local: int, speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**places(4)[rank], "LOCAL_RANK": str(local)}.items():
        monkeypatch.setenv(name, value)
    assert peers.speaks() == speaks


def test_more_processes_than_cards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**places(2)[0], "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with (
        pytest.raises(UserError, match="2 processes on this machine, and 1 card: each needs one"),
        peers.together("cuda"),
    ):
        pass
    with pytest.raises(UserError, match="can't train together on mps"), peers.together("mps"):
        pass


def test_help_is_printed_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for environment, printed in zip(places(2), (True, False), strict=True):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        Parser(prog="cifar10.py").print_help()
        assert ("usage: cifar10.py" in capsys.readouterr().out) == printed


def test_other_programs_work_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in places(2)[0].items():
        monkeypatch.setenv(name, value)
    assert grid.main(["--datasets", "digits", "--dry-run"]) == 2
    assert "torchrun is for the datasets' scripts" in capsys.readouterr().err


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in peers.NEEDED:
        monkeypatch.delenv(name, raising=False)


def test_one_process_is_the_first(alone: None) -> None:
    assert peers.place() == peers.ALONE
    assert peers.is_first()
    assert peers.from_first(lambda: 3) == peers.in_turns(lambda: 3) == 3
    assert exchange.gathered(2) == [2]
    assert exchange.total_of(None) is None
    assert exchange.total_of(2.5) == 2.5


def test_torchrun_itself(tmp_path: Path) -> None:
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc_per_node=2", PROJECT / "tests" / "toy.py", "-model", "tiny", *QUICK.split()]
    done = subprocess.run(
        [*map(str, command), "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("top-1") == 2  # the head of a column, and the result
    assert record_in(tmp_path / "runs")["environment"]["processes"]["count"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can do that")
def test_a_kill_of_torchrun_ends_its_processes(tmp_path: Path) -> None:
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc_per_node=2", PROJECT / "tests" / "toy.py", "-model", "tiny", *LONG.split()]
    printed = tmp_path / "printed.txt"
    with printed.open("w") as file, (tmp_path / "problems.txt").open("w") as problems:
        started = subprocess.Popen(
            [*map(str, command), "--device", "cpu"], cwd=tmp_path, stdout=file, stderr=problems, start_new_session=True
        )
    end = time.monotonic() + SECONDS
    while "adamw " not in printed.read_text().partition("epoch")[2]:
        assert started.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    started.kill()
    started.wait()
    while True:  # until nobody is left of its session
        try:
            os.killpg(started.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < end
        time.sleep(0.1)


def test_torchrun_starts_again_what_was_killed(tmp_path: Path) -> None:
    torchrun, script = Path(sys.executable).with_name("torchrun"), tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(PROJECT)!r})\n"
        "from engine.training import saving\n"
        "from tests import toy\n"
        "saving.MOST_LOST = 0.0\n"
        "number = iter(range(9))\n"
        "if os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "    import engine.training.loop as loop\n"
        "    usual = loop.train_epoch\n"
        "    def train_epoch(*given):\n"
        "        if next(number) == 2:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return usual(*given)\n"
        "    loop.train_epoch = train_epoch\n"
        "toy.main()\n"
    )
    command = [torchrun, "--max-restarts=1", "--nproc_per_node=2", script, "-model", "tiny", *QUICK.split()]
    done = subprocess.run(
        [*map(str, command), "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "(goes on from where it was)" in done.stdout
    record = record_in(tmp_path / "runs")
    assert (record["status"], len(record["resumed"])) == ("done", 1)
