"""Forms of the training step against each other by the clock, and whether the clock was the machine's own."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.data.decode_pool import cpus
from engine.device import free_memory, synchronize
from engine.errors import out_of_memory
from engine.training.agreement import Candidate

LEAST_ROUNDS, MOST_ROUNDS = 2, 5
HOPELESS = 1.5  # times as slow as the fastest: not tried a third time
LEAST_GAIN = 1.03  # less may be noise
STEPS_OF_A_CARD = 10  # that are timed together: one alone may be shorter than what its host takes to ask for it
SECONDS_OF_A_CARD = 1.0  # but no longer than this

# What tells that others were at work. Of two threads on two cores, quiet, a step of resnet gets 0.97 to 1.00 of the
# processor's time, its usual sample takes 1.06 times the fastest (of mobilenet 1.25), and the system sees 0.00 to 0.02
# of the time in which something waits for a processor. With two other busy processes it is 0.33 to 0.54 (0.81 where
# they are nicer by 10), 1.9 to 10 times, and 0.5 to 1.0.
LEAST_SHARE, LEAST_SHARE_OF_ANY = 0.85, 0.6
MOST_SPREAD = 1.5
MOST_WAITING = 0.1
PRESSURE = Path("/proc/pressure/cpu")  # Linux: https://docs.kernel.org/accounting/psi.html

Work = Callable[[Candidate], None]


class Race:
    """Candidates that take turns at steps on one batch, (B, 3, H, W) and (B,).

    A form that fails, or that memory does not hold, is left out; where that leaves none, a lack of memory comes
    through.
    """

    def __init__(self, candidates: list[Candidate], images: torch.Tensor, labels: torch.Tensor) -> None:
        self.candidates = candidates
        self.left_out: dict[str, str] = {}  # form -> what is wrong with it
        self.images, self.labels = images, labels
        self.waiting = 0.0  # the share of the race in which something waited for a processor
        self._lack: BaseException | None = None

    def warm_up(self) -> None:
        """Let each take steps that don't count: in the first, kernels are chosen and memory is taken."""
        self._each(self.candidates, self._warm)

    def run(self, seconds: float) -> None:
        """Time the forms in turn, LEAST_ROUNDS to MOST_ROUNDS times as far as `seconds` go; the hopeless ones twice.

        Once the slowest sample of one is faster than the fastest of every other, more would tell nothing.
        """
        waiting = Waiting()
        deadline = time.perf_counter() + seconds
        running = list(self.candidates)
        for turn in range(MOST_ROUNDS):
            if turn >= LEAST_ROUNDS and (
                settled(running) or time.perf_counter() + sum(each.median * each.steps for each in running) > deadline
            ):
                break
            self._each(running[:: -1 if turn % 2 else 1], self._sample)
            best = min((candidate.median for candidate in self.candidates), default=0.0)
            # one slow step may be another program's doing
            hopeful = [each for each in self.candidates if not turn or each.fastest < HOPELESS * best]
            running = [candidate for candidate in running if candidate in hopeful]
        self.waiting = waiting.share()

    def disturbed(self, chosen: Candidate) -> bool:
        """Whether others were at work meanwhile, so that another time `chosen` need not be the best, or as fast."""
        shares = [statistics.median(each.shares) for each in self.candidates if each.shares]
        starved = bool(chosen.shares) and statistics.median(chosen.shares) < LEAST_SHARE
        starved |= min(shares, default=1.0) < LEAST_SHARE_OF_ANY
        return starved or chosen.spread > MOST_SPREAD or self.waiting > MOST_WAITING

    def _each(self, candidates: list[Candidate], work: Work) -> None:
        for candidate in candidates:
            try:
                work(candidate)
            except (RuntimeError, MemoryError) as problem:
                if out_of_memory(problem):
                    self._lack = problem.with_traceback(None)
                self.left_out[candidate.plan.form] = "does not fit" if out_of_memory(problem) else "fails"
            else:
                continue
            self.candidates = [each for each in self.candidates if each is not candidate]
            candidate.step.optimizer.zero_grad(set_to_none=True)
            free_memory(candidate.plan.device)
        if self._lack and not self.candidates:
            raise self._lack

    def _warm(self, candidate: Candidate) -> None:
        seconds_of(candidate, self.images, self.labels)
        if candidate.plan.device == "cuda":
            second = seconds_of(candidate, self.images, self.labels)
            candidate.steps = min(max(int(SECONDS_OF_A_CARD / max(second, 1e-9)), 1), STEPS_OF_A_CARD)

    def _sample(self, candidate: Candidate) -> None:
        own = time.process_time()
        if candidate.plan.device == "cuda":
            candidate.seconds.append(self._seconds_of_a_card(candidate))
            return
        seconds = seconds_of(candidate, self.images, self.labels)
        candidate.seconds.append(seconds)
        if candidate.plan.device == "cpu":
            candidate.shares.append((time.process_time() - own) / (seconds * candidate.plan.threads))

    def _seconds_of_a_card(self, candidate: Candidate) -> float:
        """How long a step takes by the card's own clock, with the next one already asked for."""
        images = self.images.contiguous(memory_format=candidate.plan.memory_format)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(candidate.steps):
            candidate.step(images, self.labels)
        end.record()
        end.synchronize()
        return max(float(begin.elapsed_time(end)) / 1000 / candidate.steps, 1e-9)


def settled(running: list[Candidate]) -> bool:
    """Whether one is the fastest beyond doubt, or alone."""
    if len(running) < 2:
        return True
    first, *others = sorted(running, key=lambda candidate: candidate.median)
    return len(first.seconds) > LEAST_ROUNDS and all(other.fastest > max(first.seconds) for other in others)


def ranked(candidates: list[Candidate], by: Callable[[Candidate], float]) -> list[Candidate]:
    """The fastest first; among those that noise may have put in order, as they were given.

    So the same machine chooses the same again, and on one that is not ours alone what is usual decides.
    """
    fastest = min(candidates, key=by, default=None)
    if fastest is None:
        return []
    doubt = max(LEAST_GAIN, fastest.spread)
    return sorted(candidates, key=lambda candidate: (by(candidate) > doubt * by(fastest)) * by(candidate))


def seconds_of(candidate: Candidate, images: torch.Tensor, labels: torch.Tensor) -> float:
    """How long one step takes, until the device has done it."""
    plan = candidate.plan
    images = images.contiguous(memory_format=plan.memory_format)
    plan.use_threads()
    synchronize(plan.device)
    start = time.perf_counter()
    candidate.step(images, labels)
    synchronize(plan.device)
    return max(time.perf_counter() - start, 1e-9)


class Waiting:
    """The share of the time since its creation in which something that could run waited for a processor.

    Where the system does not say, or counts processors that are not ours, nothing waited.
    """

    def __init__(self) -> None:
        self._start, self._before = time.perf_counter(), _waited()

    def share(self) -> float:
        """0 to 1."""
        after, seconds = _waited(), time.perf_counter() - self._start
        return 0.0 if after is None or self._before is None else (after - self._before) / max(seconds, 1e-9)


def _waited() -> float | None:
    """The seconds of all so far, as Linux's pressure stall information counts them; None: not known."""
    if cpus() != os.cpu_count():
        return None
    try:
        return int(PRESSURE.read_text().splitlines()[0].rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None
