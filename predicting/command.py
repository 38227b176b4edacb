"""One command of predict.py, from its flags to its last line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from engine.console import say
from engine.data.batches import EVALUATED
from engine.errors import UserError, counted
from engine.inference.checkpoint import Trained
from predicting.decoding import Stream
from predicting.forms import form_for
from predicting.inputs import Inputs
from predicting.members import Chosen, choose
from predicting.network import Network
from predicting.outputs import Form, writing
from predicting.overlays import Overlays
from predicting.truth import Folders, Listed, Truth
from predicting.work import UNREADABLE, Tally, Work, answer_all, summary_lines

TOP = 5  # classes an image, where nobody says otherwise


def run(options: argparse.Namespace, inputs: Inputs) -> int:
    """Predict, write, and say what it came to. The exit code."""
    with _notes(options):
        chosen = choose(options.run)
        if chosen.notes:
            say(*chosen.notes)
        work = _work(options, chosen, inputs)
    stored = chosen.members[0].preprocessing.stored_size
    stream = Stream(stored, max(each.batch_size for each in work.networks), bool(work.seen))
    with writing(options.out) as write, work.overlays.made() if work.overlays else nullcontext():
        head = work.form.head(_about(options.run, chosen, work.temperatures))
        tally = answer_all(work, stream, inputs, write, head)
        metrics = tally.metrics
        write(work.form.tail(_counts(tally, options.reject) | {"metrics": metrics}))
    with _notes(options):
        said = summary_lines(tally, metrics, options.reject, chosen.name)
        if work.truth and metrics:
            said[-1:-1] = work.truth.lines()
        if inputs.passed_over:
            said.insert(1, f"note       {inputs.passed_over.total():,} files are no images: {inputs.kinds_passed_over}")
        if work.overlays:
            said.insert(0, work.overlays.line)
        if options.out:
            said.insert(0, f"answers    {options.out}")
        say(*said, go_on=True)
    return UNREADABLE if tally.unreadable else 0


@contextmanager
def _notes(options: argparse.Namespace) -> Iterator[None]:
    """Let what is said go to stderr where stdout has rows that a program reads."""
    if options.out or options.form == "text":
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def _work(options: argparse.Namespace, chosen: Chosen, inputs: Inputs) -> Work:
    """What is to be done. UserError: a flag does not fit the checkpoint."""
    number = len(chosen.classes)
    if options.top and options.top > number:
        raise UserError(f"--top {options.top}: the model knows {counted(number, 'class')}. Expected at most so many.")
    if options.explain and len(chosen.members) > 1:
        raise UserError(f"--explain is for one checkpoint, and {options.run} is {len(chosen.members)}. Name one.")
    truth = _truth(options, chosen.classes, inputs)
    networks = [_network(each, options, inputs) for each in chosen.members]
    return Work(
        networks,
        [(None if options.raw else each.temperature) or 1.0 for each in chosen.members],
        Form(options.form, options.top or min(TOP, number), options.reject is not None),
        options.reject,
        truth,
        _overlays(options, networks[0]),
        options.tta == "flip",
        frozenset().union(*(each.seen_digests for each in chosen.members)) if truth else frozenset(),
    )


def _truth(options: argparse.Namespace, classes: Sequence[str], inputs: Inputs) -> Truth | None:
    if options.labels:
        return Truth(classes, Listed(options.labels, classes))
    return Truth(classes, Folders(classes)) if inputs.folders else None


def _network(trained: Trained, options: argparse.Namespace, inputs: Inputs) -> Network:
    form = form_for(trained, options.device, options.computed, inputs.first())
    return Network.of(trained, form, options.batch_size or EVALUATED * trained.record["batch_size"])


def _overlays(options: argparse.Namespace, network: Network) -> Overlays | None:
    if not options.explain:
        return None
    from predicting.explain import Explainer

    device = network.plan.device
    return Overlays(options.explain, Explainer(network.trained, network.trained.model().to(device), device))


def _about(run: str, chosen: Chosen, temperatures: Sequence[float]) -> Mapping[str, Any]:
    """What JSON says of the model."""
    return {
        "run": run,
        "model": chosen.name,
        "checkpoints": [str(each.path) for each in chosen.members],
        "classes": list(chosen.classes),
        "temperatures": list(temperatures),
    }


def _counts(tally: Tally, reject: float | None) -> dict[str, Any]:
    counts = {"images": tally.images, "unreadable": tally.unreadable}
    return counts if reject is None else counts | {"rejected": tally.rejected}
