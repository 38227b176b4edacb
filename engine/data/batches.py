"""Images -> batches on the device: in an order that depends on seed and epoch alone, augmented, resized, normalised."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from engine.data.augment import Draws, draw, trivial_augment
from engine.data.kept_pixels import KeptPixels
from engine.data.part import Part
from engine.device import copy_stream, free_for_images
from engine.errors import UserError, counted, out_of_memory

Item = TypeVar("Item")
Made = TypeVar("Made")
Batch = tuple[torch.Tensor, torch.Tensor]
Rows = npt.NDArray[np.int64]

# of a card's free memory: images that take no more are kept there. The rest is for others who come to the card, and for
# what the run itself asks for later: a larger last batch, another form of a convolution.
RESIDENT_SHARE = 0.5
EVALUATED = 2  # times the images of a training batch are evaluated at once
AT_HAND = (np.ndarray, KeptPixels)  # what pixels are read from; those of others are yet to be decoded
AHEAD = 2  # batches that are gathered while the device is at an earlier one


def nothing() -> None:
    """For whoever need not be told."""


@dataclass(frozen=True)
class Batches:
    """A part of a dataset, ready to be iterated as (images, labels) on `device`.

    images: float32 (B, 3, H, W), normalised, in `memory_format`; labels: int64 (B,). Whoever iterates can have
    `arrived` called once a batch, as soon as its stored pixels are on the device: what follows is the device's work.

    Pixels stay 8 bits until they are on the device. They come from the card's own memory, if they are cached there;
    else from main memory: on a processor as they are asked for, on a card a few batches ahead by a thread.
    """

    name: str  # "train", "val" or "test"
    part: Part
    batch_size: int
    size: tuple[int, int]  # height and width in pixels that the model is given
    mean: Sequence[float]
    std: Sequence[float]
    device: str
    augment: bool = False
    memory_format: torch.memory_format = torch.contiguous_format
    on_device: Batch | None = None  # all of the part's pixels, uint8 (N, H, W, 3), and labels
    layer: str = ""  # the dotted name of the layer that takes these batches; "": the model itself
    process: int = 0  # the rank of this one among those that train together, of which each takes a share of a batch
    processes: int = 1
    evaluated: Rows | None = None  # what this process takes of a part that is evaluated; None: all of it

    @property
    def steps(self) -> int:
        """How many batches make an epoch, a last one of a single image included."""
        return -(-len(self.part) // self.batch_size)

    @property
    def trained(self) -> int:
        """The images of an epoch: all, but for a last batch of a single one."""
        images = len(self.part)
        return images - 1 if images % self.batch_size == 1 and images > 1 else images

    @property
    def whole_share(self) -> int:
        """How many images of a whole batch this process takes."""
        return len(np.array_split(np.arange(self.batch_size), self.processes)[self.process])

    def in_batch(self, number: int) -> int:
        """How many images the training batch of that number, counted from 0, has in all processes together."""
        return min(self.batch_size, self.trained - number * self.batch_size)

    @property
    def alone(self) -> Batches:
        """The batches of the size that this process takes, as if it were the only one."""
        return replace(self, batch_size=self.whole_share, process=0, processes=1)

    @property
    def bytes_on_device(self) -> int | None:
        """What on() would take; None where the pixels are not at hand, or are not what these batches are made of."""
        images = self.part.images
        return len(self.part) * prod(images.shape[1:]) if isinstance(images, AT_HAND) and not self.layer else None

    @property
    def speed_of_features(self) -> dict[str, float] | None:
        """As Clock.stop() has it: of the one pass that made these batches out of images; None: they are images."""
        return None

    def for_evaluation(self, name: str, part: Part) -> Batches:
        """Another part of the same dataset, not augmented, in larger batches: no gradients take memory."""
        size = EVALUATED * self.batch_size
        evaluated = None
        if self.processes > 1:  # every so many-th batch: each is what it would be in one process
            rows = np.arange(len(part))
            evaluated = rows[rows // size % self.processes == self.process]
        return replace(self, name=name, part=part, batch_size=size, augment=False, on_device=None, evaluated=evaluated)

    def cached_on_device(self) -> Batches:
        """These batches with all pixels on the card, if they take at most RESIDENT_SHARE of its free memory."""
        return self.held_within(RESIDENT_SHARE * free_for_images(self.device))

    def held_within(self, room: float) -> Batches:
        """These batches with all pixels on the device, if they take at most `room` bytes there."""
        needed = self.bytes_on_device
        return self.on(self.device) if needed and needed <= room else self

    def on(self, device: str) -> Batches:
        """These batches with all pixels in the memory of `device`."""
        pieces = np.array_split(np.arange(len(self.part)), self.steps)
        first = torch.from_numpy(self.part.pixels(pieces[0][:1]))
        pixels = first.new_empty((len(self.part), *first.shape[1:]), device=device)
        for piece in pieces:
            pixels[piece[0] : piece[-1] + 1] = torch.from_numpy(self.part.pixels(piece)).to(device)
        return replace(self, on_device=(pixels, torch.from_numpy(self.part.labels).to(device)))

    def sequential(self, arrived: Callable[[], None] = nothing) -> Iterator[Batch]:
        """Every image once, in the order of the part, never augmented; of several processes, each has its own."""
        rows = np.arange(len(self.part)) if self.evaluated is None else self.evaluated
        return self._batches(rows, None, arrived)

    def shuffled(self, seed: int, epoch: int, arrived: Callable[[], None] = nothing) -> Iterator[Batch]:
        """Every image once, but for a last batch of a single image, which batch normalisation can't train on."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.part))[: self.trained]
        # numbers of their own, not the model's: how many its dropout draws does not change what an image gets
        draws = draw(len(order), np.random.default_rng([seed, epoch, 1])) if self.augment else None
        if self.processes > 1:
            own = self._own(len(order))
            mine = np.concatenate(own)
            return self._batches(order[mine], draws and draws[mine], arrived, [len(some) for some in own])
        return self._batches(order, draws, arrived)

    def _own(self, images: int) -> list[Rows]:
        """Which places in an epoch's order are this process's, by batch.

        Shares are equal but for an image. A last batch with less than two images for each process is all of everyone's,
        so that none is without, and batch normalisation has what it would have in one process.
        """
        return [
            np.array_split(batch, self.processes)[self.process] if self._is_divided(len(batch)) else batch
            for batch in cut(np.arange(images), self.batch_size)
        ]

    def _is_divided(self, images: int) -> bool:
        """Whether a batch of so many images is enough for all processes."""
        return images >= 2 * self.processes

    def weight(self, number: int, images: int) -> float:
        """What the mean loss of this process's `images` counts in the mean over processes: 1 where all have as many.

        So that mean is the mean loss of the batch of that number.
        """
        whole = self.in_batch(number)
        return images * self.processes / whole if self._is_divided(whole) else 1.0

    def _batches(
        self, order: Rows, draws: Draws | None, arrived: Callable[[], None], sizes: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """The images of that order in batches of such sizes, or of the usual one."""
        scale, shift = (tensor.to(self.device) for tensor in scale_and_shift(self.mean, self.std))
        start = 0
        for stored, labels in self._stored(cut(order, sizes or self.batch_size)):
            arrived()
            images = stored.permute(0, 3, 1, 2)
            if draws is not None:
                images = trivial_augment(images, draws[start : start + len(labels)])
            start += len(labels)
            yield _scaled(images, self.size, scale, shift, self.memory_format), labels

    def _stored(self, batches: Sequence[Rows]) -> Iterator[Batch]:
        """Batch by batch the pixels as they are stored, uint8 (B, H, W, 3), and the labels, on the device."""
        if self.on_device is not None:
            pixels, labels = self.on_device
            for chosen in on_device(pixels.device, batches):
                yield pixels[chosen], labels[chosen]
            return
        if self.device == "cuda":
            yield from self._copied(batches)
        else:
            # what must still be decoded is decoded meanwhile
            at_hand = isinstance(self.part.images, AT_HAND)
            for pixels, labels in map(self._gather, batches) if at_hand else ahead(self._gather, batches):
                yield pixels.to(self.device), labels.to(self.device)

    def _gather(self, chosen: Rows) -> Batch:
        return torch.from_numpy(self.part.pixels(chosen)), torch.from_numpy(self.part.labels[chosen])

    def _copied(self, batches: Iterable[Rows]) -> Iterator[Batch]:
        """Gathered and sent to the card by a thread, on a stream of its own, while the card computes."""
        stream = copy_stream()

        def send(chosen: Rows) -> tuple[Batch, torch.cuda.Event]:
            pixels, labels = self._gather(chosen)
            with torch.cuda.stream(stream):
                sent = (
                    pixels.pin_memory().to(self.device, non_blocking=True),
                    labels.pin_memory().to(self.device, non_blocking=True),
                )
            return sent, stream.record_event()

        for sent, arrived in ahead(send, batches):
            now = torch.cuda.current_stream()
            now.wait_event(arrived)
            for tensor in sent:
                tensor.record_stream(now)  # its memory is not to be used anew before this stream is done with it
            yield sent


class Resident:
    """The train and val batches of a run, and the only one that holds their pixels on the device.

    Whoever iterates over them takes them from here each time and keeps none, so that release() frees what they take.
    """

    def __init__(self, train: Batches, val: Batches) -> None:
        self.train, self.val = self._streamed = train, val
        self._asked = False

    @property
    def mib(self) -> float:
        """Of the pixels that are on the device, MiB."""
        held = [batches.on_device[0].nbytes for batches in (self.train, self.val) if batches.on_device]
        return sum(held) / 2**20

    def hold(self) -> None:
        """Hold train, then val, while they take at most RESIDENT_SHARE of the memory that is free at the first call.

        That is to be when training and evaluation have taken theirs. Another call does nothing.
        """
        if self._asked:
            return
        self._asked = True
        room = RESIDENT_SHARE * free_for_images(self.train.device)
        try:
            self.train = self.train.held_within(room)
            self.val = self.val.held_within(room - 2**20 * self.mib)
        except (RuntimeError, MemoryError) as problem:  # another process was faster
            if not out_of_memory(problem):
                raise
            self.release()

    def release(self) -> bool:
        """Hold nothing from here on; whether anything was held."""
        held = self.mib > 0
        self.train, self.val = self._streamed
        return held


def cut(rows: Rows, sizes: int | Sequence[int]) -> list[Rows]:
    """The rows in pieces of one size, the last of which may be smaller, or of these sizes."""
    ends = range(sizes, len(rows), sizes) if isinstance(sizes, int) else np.cumsum(sizes)[:-1]
    return np.split(rows, ends) if len(rows) else []


def on_device(device: torch.device, batches: Sequence[Rows]) -> Sequence[torch.Tensor]:
    """Each batch's rows on the device, sent there at once."""
    if not batches:
        return ()
    sizes = [len(rows) for rows in batches]
    pieces: Sequence[torch.Tensor] = torch.from_numpy(np.concatenate(batches)).to(device).split(sizes)
    return pieces


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / 255 - mean) / std as one product and one sum, float32 (3, 1, 1) each."""
    scale = 1 / (255 * torch.tensor(std)).reshape(3, 1, 1)
    shift = -(torch.tensor(mean) / torch.tensor(std)).reshape(3, 1, 1)
    return scale, shift


def normalised(
    images: torch.Tensor,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """uint8 (B, 3, H, W) on any device -> float32 (B, 3, *size), normalised: what a batch is made of, there."""
    scale, shift = (tensor.to(images.device) for tensor in scale_and_shift(mean, std))
    return _scaled(images, size, scale, shift, memory_format)


def _scaled(
    images: torch.Tensor,
    size: tuple[int, int],
    scale: torch.Tensor,
    shift: torch.Tensor,
    memory_format: torch.memory_format,
) -> torch.Tensor:
    pixels = images.contiguous(memory_format=memory_format).float()
    if pixels.shape[2:] != size:
        pixels = resized(pixels, size)
    return pixels.mul_(scale).add_(shift)


def resized(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, 3, H, W) -> float32 (B, 3, *size), in the same layout: bilinear, with antialiasing where a side shrinks.

    Where none does the filter is as wide without it, and takes less time.
    """
    shrinks = any(new < old for new, old in zip(size, pixels.shape[2:], strict=True))
    try:
        return functional.interpolate(pixels, size, mode="bilinear", antialias=shrinks)
    except NotImplementedError:  # PyTorch lacks the filter for some devices
        return functional.interpolate(pixels.cpu(), size, mode="bilinear", antialias=shrinks).to(pixels.device)


def ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make` of each item, in order, made by a thread AHEAD of being asked for."""
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def usable_batch_size(asked: int, images: int, batch_norm: bool, processes: int = 1) -> int:
    """`asked`, or as many as there are training images where that is fewer.

    Raises UserError when a step would be a single image and the model normalises over the batch (`batch_norm`), or
    less than two images for each of several processes.
    """
    size = min(asked, images)
    if processes > 1 and size < 2 * processes:
        found = f"-bs {asked}" if asked == size else counted(images, "training image")
        raise UserError(
            f"{found} for {processes} processes, which divide each batch among them: expected 2 images or more for "
            "each. Take fewer processes."
        )
    if size == 1 and batch_norm:
        found = "-bs 1" if asked == 1 else "a single training image"
        raise UserError(f"{found}: this backbone has batch normalisation, which needs 2 images or more a step.")
    return size
