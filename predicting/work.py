"""What predict.py does: images -> batches -> probabilities -> rows, and at the end what these come to."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from engine.console import bar, fit_to_show
from engine.errors import counted
from engine.processes.heartbeat import alive
from engine.training.metrics import METRICS, evaluate
from predicting.answers import Answer, Probabilities, likeliest, probabilities
from predicting.decoding import Batch, Stream
from predicting.inputs import Found, Inputs
from predicting.network import Network, on_device
from predicting.outputs import Form, Write
from predicting.overlays import Overlays
from predicting.truth import Truth

UNREADABLE = 3  # the exit code where an image could not be read, or a run failed
SMALLEST = 1e-300  # of a probability whose logarithm is taken


class Predicted(NamedTuple):
    """A batch with what the models say of its readable images."""

    batch: Batch
    logits: list[npt.NDArray[np.float32]]  # (N, C) of each network; of their mirror images after that


@dataclass(frozen=True)
class Work:
    """What is to be done."""

    networks: Sequence[Network]  # of one image size and the same classes
    temperatures: Sequence[float]  # of each
    form: Form
    reject: float | None  # the probability below which a prediction is rejected
    truth: Truth | None
    overlays: Overlays | None
    flip: bool = False  # whether mirror images are asked, too
    seen: frozenset[str] = frozenset()  # digests of images that trained or chose a network, where labels are known


@dataclass
class Tally:
    """What came of all images."""

    images: int = 0
    unreadable: int = 0
    rejected: int = 0
    seconds: float = 0.0
    logits: list[npt.NDArray[np.float32]] = field(default_factory=list)  # of those whose label is a class: log(p)
    labels: list[int] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)  # whether these are not rejected
    seen: int = 0  # of those, the ones that trained or chose a network

    @property
    def metrics(self) -> dict[str, Any] | None:
        """As evaluate() has them, with the coverage and top-1 of what is not rejected; None: no label is known."""
        if not self.labels:
            return None
        logits, labels, kept = np.concatenate(self.logits), np.array(self.labels, np.int64), np.array(self.kept)
        right = logits.argmax(axis=1) == labels
        of_kept = {"coverage": float(kept.mean()), "top1_of_kept": float(right[kept].mean()) if kept.any() else None}
        return evaluate(logits, labels) | of_kept | {"seen": self.seen}


def predicted(
    networks: Sequence[Network], stream: Stream, inputs: Iterable[Found], flip: bool = False
) -> Generator[Predicted, None, None]:
    """Each batch with its logits; a device is at work on one while the next is gathered."""
    waiting: tuple[Batch, list[torch.Tensor]] | None = None
    with closing(stream.batches(iter(inputs))) as batches:
        for batch in batches:
            begun: list[torch.Tensor] = []
            if len(batch.pixels):
                stored = on_device(batch.pixels, networks[0].plan.device)
                turned = [stored, stored.flip(2)] if flip else [stored]
                begun = [network.logits(images) for images in turned for network in networks]
            if waiting:
                yield _finished(*waiting)
            waiting = batch, begun
    if waiting:
        yield _finished(*waiting)


def _finished(batch: Batch, logits: Sequence[torch.Tensor]) -> Predicted:
    return Predicted(batch, [each.cpu().numpy() for each in logits])


def answer_all(work: Work, stream: Stream, inputs: Inputs, write: Write, head: str) -> Tally:
    """Predict every image, and write a row of it, after the `head`; those that can't be read are named on stderr, too.

    UserError: there is none, of which nothing is written.
    """
    tally, start = Tally(), time.perf_counter()
    shown = bar(desc="predicting", total=inputs.number, unit=" images", leave=False)
    # closed at once, whatever comes: what is decoded ahead would go on
    with shown, closing(predicted(work.networks, stream, inputs, work.flip)) as batches:
        for each in batches:
            answers = _answers(work, each, tally)
            first = tally.images == 0
            write((head if first else "") + work.form.rows(answers, first))
            for answer in answers:
                if answer.problem:
                    tqdm.write(fit_to_show(f"{answer.path}: {answer.problem}"), file=sys.stderr)
            tally.images += len(answers)
            shown.update(len(answers))
            alive(f"predicting: {tally.images:,} images")
    tally.seconds = time.perf_counter() - start
    return tally


def _answers(work: Work, of: Predicted, tally: Tally) -> list[Answer]:
    """The answers of a batch, in its order, which `tally` takes in."""
    classes = work.networks[0].trained.classes
    temperatures = [*work.temperatures, *work.temperatures][: len(of.logits)]
    chances = probabilities(of.logits, temperatures) if of.logits else np.empty((0, len(classes)))
    order, highest = likeliest(chances, work.form.top)
    answers = []
    row = -1
    for found, problem, digest in of.batch.images:
        row += not problem
        if not problem and not np.isfinite(chances[row]).all():
            problem = "the model's outputs on it are not finite"
        label, number = work.truth.of(found) if work.truth else ("", None)
        if problem:
            tally.unreadable += 1
            answers.append(Answer(found.path, label=label, problem=problem))
            continue
        top = tuple((classes[index], float(chance)) for index, chance in zip(order[row], highest[row], strict=True))
        rejected = work.reject is not None and top[0][1] < work.reject
        tally.rejected += rejected
        if number is not None:
            _judge(tally, chances[row], number, not rejected)
            tally.seen += digest in work.seen
        if work.overlays:
            work.overlays.draw(tally.images + len(answers), found.path, of.batch.pixels[row], int(order[row, 0]))
        answers.append(Answer(found.path, top, label, rejected))
    return answers


def _judge(tally: Tally, chances: Probabilities, label: int, kept: bool) -> None:
    tally.logits.append(np.log(np.maximum(chances, SMALLEST)).astype(np.float32)[None])
    tally.labels.append(label)
    tally.kept.append(kept)


def summary_lines(tally: Tally, metrics: dict[str, Any] | None, reject: float | None, name: str) -> list[str]:
    """What is said at the end: how many images, how fast, how many were rejected, and the result where labels are."""
    speed = f", {tally.images / tally.seconds:,.1f} a second" if tally.seconds and tally.images > 1 else ""
    lines = [f"images     {tally.images:,}{speed}"]
    if tally.unreadable:
        lines[0] += f"; {tally.unreadable:,} of them could not be read"
    if reject is not None:
        readable = tally.images - tally.unreadable
        share = f" ({tally.rejected / readable:.1%})" if readable else ""
        lines.append(
            f"rejected   {tally.rejected:,} of {readable:,}{share}: the highest probability is below {reject:g}"
        )
    if metrics is None:
        return lines
    if reject is not None:
        kept = metrics["top1_of_kept"]
        right = "" if kept is None else f", top-1 of these {kept:.2%}"
        lines.append(
            f"kept       {metrics['coverage']:.2%} of {counted(metrics['images'], 'image')} with labels{right}"
        )
    if tally.seen:
        many = f"{tally.seen:,} of these {counted(metrics['images'], 'image')}"
        lines.append(f"note       {many} trained the network or chose its epoch, so that the result flatters")
    values = [METRICS[key].text(metrics[key]) for key in METRICS if metrics[key] is not None]
    return [*lines, f"{name}, {counted(metrics['images'], 'image')} with labels: {', '.join(values)}"]
