"""Images -> batches: order, augmentation, resizing, normalisation."""

import contextlib
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import resize

from engine.data.augment import draw, trivial_augment
from engine.data.batches import AHEAD, EVALUATED, RESIDENT_SHARE, Batches, Resident, ahead, resized, usable_batch_size
from engine.data.part import Part, Pixels
from engine.device import copy_stream
from engine.errors import RunError, UserError
from tests import toy
from tests.engine.data.pictures import until

PART = toy.part(23, 0, "train")


def batches(part: Part = PART, batch_size: int = 8, size: tuple[int, int] = (8, 8), augment: bool = False) -> Batches:
    return Batches("train", part, batch_size, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "cpu", augment)


def numbered(count: int) -> Part:
    """Images that can be told apart: every pixel is the image's number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3)).copy()
    return Part(images, np.arange(count), [str(i) for i in range(count)])


def order_of(loader: Batches, seed: int, epoch: int) -> list[int]:
    return [int(label) for _, labels in loader.shuffled(seed, epoch) for label in labels]


def test_in_order_gives_every_image_with_its_label() -> None:
    images, labels = (torch.cat(column) for column in zip(*batches().sequential(), strict=True))
    np.testing.assert_array_equal(labels, PART.labels)
    np.testing.assert_allclose(images.permute(0, 2, 3, 1) * 255, PART.pixels(), atol=1e-4)


def test_shuffled_keeps_images_and_labels_together() -> None:
    loader = batches(numbered(23), size=(4, 4))
    for images, labels in loader.shuffled(0, 0):
        np.testing.assert_allclose(images[:, 0, 0, 0] * 255, labels, atol=1e-4)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    loader = batches(numbered(23))
    first = order_of(loader, 3, 5)
    torch.manual_seed(99)
    np.random.default_rng(1).random(10)
    assert order_of(loader, 3, 5) == first
    assert sorted(first) == list(range(23))
    assert order_of(loader, 3, 6) != first
    assert order_of(loader, 4, 5) != first
    # not even on the batch size
    assert order_of(batches(numbered(23), batch_size=5), 3, 5) == first


@pytest.mark.parametrize(
    ("images", "batch_size", "kept"), [(17, 8, 16), (16, 8, 16), (18, 8, 18), (1, 8, 1), (3, 1, 3)]
)
def test_a_last_batch_of_one_is_left_out_of_training_only(images: int, batch_size: int, kept: int) -> None:
    loader = batches(numbered(images), batch_size=batch_size)
    assert len(order_of(loader, 0, 0)) == kept
    assert sum(len(labels) for _, labels in loader.sequential()) == images


def test_another_image_is_left_out_each_epoch() -> None:
    loader = batches(numbered(17))
    left_out = {(set(range(17)) - set(order_of(loader, 0, epoch))).pop() for epoch in range(20)}
    assert len(left_out) > 5


def test_resizing_is_that_of_an_antialiased_bilinear_filter() -> None:
    """Within rounding of what PIL and torchvision do to the same image."""
    for size in ((32, 32), (5, 13)):
        ((images, _),) = batches(PART.take(np.arange(1)), size=size).sequential()
        expected = np.asarray(resize(Image.fromarray(PART.pixels()[0]), list(size), antialias=True))
        np.testing.assert_allclose(images[0].permute(1, 2, 0) * 255, expected, atol=1.01)


def test_no_filter_is_wider_than_enlarging_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Antialiasing widens it by as much as a side shrinks: where none does, the pixels are the same without."""
    asked: list[bool] = []
    interpolate = torch.nn.functional.interpolate

    def watched(pixels: torch.Tensor, size: Any, mode: str, antialias: bool) -> torch.Tensor:
        asked.append(antialias)
        return interpolate(pixels, size, mode=mode, antialias=antialias)

    pixels = torch.from_numpy(PART.pixels()).permute(0, 3, 1, 2).float()
    monkeypatch.setattr("engine.data.batches.functional.interpolate", watched)
    for size in ((16, 16), (8, 13), (7, 16), (16, 5), (3, 3)):
        expected = interpolate(pixels, size, mode="bilinear", antialias=True)
        torch.testing.assert_close(resized(pixels, size), expected, atol=2e-3, rtol=0)
    assert asked == [False, False, True, True, True]


def test_a_device_without_the_filter_has_the_processor_shrink_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MPS was in older versions of PyTorch."""
    interpolate = torch.nn.functional.interpolate
    moved: list[str] = []

    def lacking(pixels: torch.Tensor, size: Any, mode: str, antialias: bool) -> torch.Tensor:
        if antialias and not moved:
            raise NotImplementedError("aten::_upsample_bilinear2d_aa.out")
        return interpolate(pixels, size, mode=mode, antialias=antialias)

    def cpu(pixels: torch.Tensor) -> torch.Tensor:
        moved.append(str(pixels.device))
        return pixels

    pixels = torch.from_numpy(PART.pixels()).permute(0, 3, 1, 2).float()
    expected = [resized(pixels, size) for size in ((12, 12), (5, 13))]
    monkeypatch.setattr("engine.data.batches.functional.interpolate", lacking)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    assert torch.equal(resized(pixels, (12, 12)), expected[0])
    assert moved == []
    assert torch.equal(resized(pixels, (5, 13)), expected[1])
    assert moved == ["cpu"]


def test_normalisation() -> None:
    loader = replace(batches(numbered(3), size=(4, 4)), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    ((images, _),) = loader.sequential()
    expected = [(2 / 255 - 0.1) / 0.5, (2 / 255 - 0.2) / 0.25, (2 / 255 - 0.3) * 8]
    np.testing.assert_allclose(images[2, :, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("held", [False, True])
def test_it_tells_when_pixels_have_arrived_before_it_works_on_them(monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    log: list[str] = []
    augment = trivial_augment

    def watched(*given: Any) -> torch.Tensor:
        log.append("augmented")
        return augment(*given)

    monkeypatch.setattr("engine.data.batches.trivial_augment", watched)
    loader = batches(augment=True).on("cpu") if held else batches(augment=True)
    for _ in loader.shuffled(0, 0, lambda: log.append("arrived")):
        log.append("used")
    assert log == ["arrived", "augmented", "used"] * 3
    log.clear()
    for _ in loader.sequential(lambda: log.append("arrived")):
        log.append("used")
    assert log == ["arrived", "used"] * 3


def test_only_training_is_augmented() -> None:
    loader = batches(augment=True)
    plain = torch.cat([images for images, _ in batches().sequential()])
    assert torch.equal(torch.cat([images for images, _ in loader.sequential()]), plain)
    shuffled = torch.cat([images for images, _ in loader.shuffled(0, 0)])
    assert not torch.equal(shuffled, torch.cat([images for images, _ in batches().shuffled(0, 0)]))


def test_each_image_draws_its_own_augmentation() -> None:
    same = replace(PART, images=np.repeat(toy.part(1, 5, "train").pixels(), 64, axis=0), labels=np.zeros(64, np.int64))
    loader = batches(same, augment=True)
    drawn = Counter(image.numpy().tobytes() for images, _ in loader.shuffled(0, 0) for image in images)
    # 14 operations, one of them the identity, at 31 strengths
    assert len(drawn) > 30
    ((plain, _), *_) = loader.sequential()
    assert drawn[plain[0].numpy().tobytes()] >= 1


def test_augmentation_depends_on_seed_and_epoch_alone() -> None:
    """Not on what the model draws, nor on the batch size: neither dropout nor micro-batches change an image."""

    def epoch(seed: int, number: int, batch_size: int = 8) -> torch.Tensor:
        torch.rand(3)
        return torch.cat([images for images, _ in batches(batch_size=batch_size, augment=True).shuffled(seed, number)])

    first = epoch(1, 4)
    assert torch.equal(epoch(1, 4), first)
    assert torch.equal(epoch(1, 4, batch_size=5), first)
    for other in (epoch(2, 4), epoch(1, 5)):
        assert not torch.equal(other, first)


def test_the_augmentation_is_that_of_the_module() -> None:
    loader = batches(numbered(23), augment=True, size=(4, 4))
    order = np.concatenate([labels.numpy() for _, labels in loader.shuffled(3, 1)])
    draws = draw(23, np.random.default_rng([3, 1, 1]))
    expected = trivial_augment(torch.from_numpy(numbered(23).pixels(order)).permute(0, 3, 1, 2), draws)
    found = torch.cat([images for images, _ in loader.shuffled(3, 1)])
    torch.testing.assert_close(found * 255, expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 8), (12, 10)])
def test_images_are_in_the_memory_format_asked_for(memory_format: torch.memory_format, size: tuple[int, int]) -> None:
    for augment in (False, True):
        loader = replace(batches(size=size, augment=augment), memory_format=memory_format)
        plain = batches(size=size, augment=augment)
        for (images, _), (expected, _) in zip(loader.shuffled(0, 0), plain.shuffled(0, 0), strict=True):
            assert images.is_contiguous(memory_format=memory_format)
            torch.testing.assert_close(images, expected)


def test_pixels_held_on_the_device_give_the_same_batches() -> None:
    some = PART.take(np.array([20, 3, 5, 7, 11, 0, 2, 1, 9, 22, 21]))
    for loader in (batches(some), batches(some, augment=True, size=(12, 12)), batches(some, batch_size=4)):
        held = loader.on("cpu")
        assert held.on_device is not None
        for (images, labels), (expected, wanted) in zip(held.shuffled(1, 2), loader.shuffled(1, 2), strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, wanted)
        assert torch.equal(next(held.sequential())[0], next(loader.sequential())[0])


@pytest.mark.parametrize(("share", "held"), [(1.01, True), (0.99, False)])
def test_what_takes_no_more_than_its_share_is_held_on_the_card(
    monkeypatch: pytest.MonkeyPatch, share: float, held: bool
) -> None:
    """The decision alone; what the card then does is for a test marked cuda."""
    free = int(len(PART) * 8 * 8 * 3 * share / RESIDENT_SHARE)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, free))
    monkeypatch.setattr(Batches, "on", lambda self, device: replace(self, on_device=(torch.empty(0), torch.empty(0))))
    loader = replace(batches(), device="cuda")
    assert (loader.cached_on_device().on_device is not None) is held
    assert batches().cached_on_device().on_device is None


@pytest.mark.parametrize(
    ("free", "held"), [(0, (False, False)), (60, (True, False)), (70, (True, True)), (35, (False, True))]
)
def test_train_and_val_together_take_no_more_than_their_share(
    monkeypatch: pytest.MonkeyPatch, free: int, held: tuple[bool, bool]
) -> None:
    """Of 23 and 11 images; train goes first."""
    asked: list[str] = []

    def free_for_images(device: str) -> int:
        asked.append(device)
        return int(free * 8 * 8 * 3)

    monkeypatch.setattr("engine.data.batches.free_for_images", free_for_images)
    monkeypatch.setattr("engine.data.batches.RESIDENT_SHARE", 0.5)
    train = batches()
    val = train.for_evaluation("val", PART.take(np.arange(11)))
    images = Resident(train, val)
    assert (images.mib, asked) == (0, [])
    images.hold()
    assert (images.train.on_device is not None, images.val.on_device is not None) == held
    assert images.mib == sum(8 * 8 * 3 * count for count, yes in zip((23, 11), held, strict=True) if yes) / 2**20
    for found, plain in ((images.train, train), (images.val, val)):
        for (pixels, _), (expected, _) in zip(found.sequential(), plain.sequential(), strict=True):
            assert torch.equal(pixels, expected)
    assert images.release() is any(held)
    assert (images.train, images.val) == (train, val)
    assert images.release() is False
    # what was given up is not taken again
    images.hold()
    assert images.mib == 0
    assert asked == ["cpu"]


def test_where_another_process_was_faster_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(part: Batches, _: str) -> Batches:
        if part.name == "val":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return replace(part, on_device=(torch.empty(9), torch.empty(0)))

    monkeypatch.setattr("engine.data.batches.free_for_images", lambda _: 10**9)
    monkeypatch.setattr(Batches, "on", lacking)
    images = Resident(batches(), batches().for_evaluation("val", PART))
    images.hold()
    assert images.mib == 0


def test_another_part_is_evaluated_in_larger_batches_and_as_it_is() -> None:
    held = replace(batches(augment=True), device="cuda", on_device=(torch.empty(0), torch.empty(0)))
    other = held.for_evaluation("val", numbered(3))
    assert (other.name, len(other.part), other.batch_size, other.augment) == ("val", 3, EVALUATED * 8, False)
    # the pixels on the card are not these
    assert other.on_device is None


class DecodedOnRead:
    """A table that is decoded as it is read."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels, self.shape = pixels, pixels.shape
        self.threads: list[int] = []  # of each read

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Pixels:
        self.threads.append(threading.get_ident())
        return np.take(self.pixels, rows, axis=0)


def test_what_is_decoded_as_it_is_read_is_read_ahead_by_a_thread() -> None:
    table = DecodedOnRead(PART.pixels())
    loader = batches(replace(PART, images=table), batch_size=2)
    for (images, labels), (expected, wanted) in zip(
        loader.shuffled(0, 0), batches(batch_size=2).shuffled(0, 0), strict=True
    ):
        assert torch.equal(images, expected)
        assert torch.equal(labels, wanted)
    assert len(table.threads) == loader.steps - 1  # the last batch would be of one image
    assert len(set(table.threads)) == 1
    assert threading.get_ident() not in table.threads
    table.threads.clear()
    reader = loader.shuffled(0, 0)
    for taken in range(1, 5):
        next(reader)
        # whoever uses a batch does nothing for the next ones to be read meanwhile
        until(lambda: len(table.threads) == taken + AHEAD)  # noqa: B023


def test_reading_ahead_stops_with_its_reader_and_passes_errors_on() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        if number == 5:
            raise RunError("the sixth")
        return number

    before = threading.active_count()
    for number in ahead(make, range(100)):
        if number == 2:
            break
    assert made[-1] <= 2 + AHEAD + 1
    assert threading.active_count() == before
    with pytest.raises(RunError, match="the sixth"):
        list(ahead(make, range(100)))
    assert list(ahead(str, [])) == []


def test_usable_batch_size() -> None:
    assert usable_batch_size(8, 8, batch_norm=True) == 8
    assert usable_batch_size(64, 40, batch_norm=True) == 40
    assert usable_batch_size(1, 40, batch_norm=False) == 1
    with pytest.raises(UserError, match="-bs 1"):
        usable_batch_size(1, 40, batch_norm=True)
    with pytest.raises(UserError, match="single training image"):
        usable_batch_size(8, 1, batch_norm=True)


class Stream:
    """Stands in for a CUDA stream, and notes what is asked of it and when."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record_event(self) -> int:
        self.log.append("sent")
        return len(self.log)

    def wait_event(self, event: int) -> None:
        assert self.log[event - 1] == "sent"
        self.log.append("waited")


def test_what_is_sent_to_a_card_is_waited_for_and_kept_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls alone, which a CPU can tell; what the card makes of it is for a test marked cuda."""
    log: list[str] = []
    to = torch.Tensor.to

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        log.append("pinned")
        return tensor

    def moved(tensor: torch.Tensor, where: Any, **options: Any) -> torch.Tensor:
        return tensor if where == "cuda" else to(tensor, where, **options)

    made: list[Stream] = []

    def new_stream() -> Stream:
        made.append(Stream(log))
        return made[-1]

    copy_stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "Stream", new_stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(log))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: log.append("kept"))
    monkeypatch.setattr(torch.Tensor, "to", moved)
    loader = batches(batch_size=9)
    sent = replace(loader, device="cuda")
    arriving = sent.sequential(lambda: log.append("arrived"))
    for (images, labels), (pixels, wanted) in zip(arriving, loader.sequential(), strict=True):
        # between them, the thread may send a later batch
        here = [event for event in log if event not in ("pinned", "sent")]
        assert here[-4:] == ["waited", "kept", "kept", "arrived"]
        log.append("used")
        assert torch.equal(images, pixels)
        assert torch.equal(labels, wanted)
    assert log.count("pinned") == 6
    assert log.count("used") == 3
    # what was freed on a stream is used again on that alone
    list(sent.sequential())
    copy_stream.cache_clear()
    assert len(made) == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augment", [False, True])
def test_a_card_is_given_the_same_batches_whether_it_holds_the_images_or_not(augment: bool) -> None:
    loader = batches(batch_size=9, size=(12, 10), augment=augment)
    sent = replace(loader, device="cuda")
    held = sent.cached_on_device()
    assert held.on_device is not None
    for (images, labels), *others in zip(*(each.shuffled(2, 1) for each in (loader, sent, held)), strict=True):
        for found, wanted in others:
            assert found.is_cuda
            # bilinear weights and augmentation round in their own way on a card
            torch.testing.assert_close(found.cpu(), images, atol=2 / 255, rtol=0)
            assert torch.equal(wanted.cpu(), labels)
