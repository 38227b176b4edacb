"""Images -> batches: order, augmentation, resizing, normalisation."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import resize

from engine.augment import trivial_augment
from engine.batches import Batches, usable_batch_size
from engine.dataset import Part
from engine.errors import UserError
from tests import toy

PART = toy.part(23, 0, "train")


def batches(part: Part = PART, batch_size: int = 8, size: tuple[int, int] = (8, 8), augment: bool = False) -> Batches:
    return Batches(part, batch_size, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "cpu", augment)


def numbered(count: int) -> Part:
    """Images that can be told apart: every pixel is the image's number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3)).copy()
    return Part(images, np.arange(count), [str(i) for i in range(count)])


def order_of(loader: Batches, seed: int, epoch: int) -> list[int]:
    return [int(label) for _, labels in loader.shuffled(seed, epoch) for label in labels]


def test_in_order_gives_every_image_with_its_label() -> None:
    images, labels = (torch.cat(column) for column in zip(*batches().in_order(), strict=True))
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
    assert sum(len(labels) for _, labels in loader.in_order()) == images


def test_another_image_is_left_out_each_epoch() -> None:
    loader = batches(numbered(17))
    left_out = {(set(range(17)) - set(order_of(loader, 0, epoch))).pop() for epoch in range(20)}
    assert len(left_out) > 5


def test_resizing_is_that_of_an_antialiased_bilinear_filter() -> None:
    """Within rounding of what PIL and torchvision do to the same image."""
    for size in ((32, 32), (5, 13)):
        ((images, _),) = batches(PART.take(np.arange(1)), size=size).in_order()
        expected = np.asarray(resize(Image.fromarray(PART.pixels()[0]), list(size), antialias=True))
        np.testing.assert_allclose(images[0].permute(1, 2, 0) * 255, expected, atol=1.01)


def test_normalisation() -> None:
    loader = replace(batches(numbered(3), size=(4, 4)), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    ((images, _),) = loader.in_order()
    np.testing.assert_allclose(images[2, :, 0, 0], [(2 / 255 - 0.1) / 0.5, (2 / 255 - 0.2) / 0.25, (2 / 255 - 0.3) * 8])


def test_only_training_is_augmented() -> None:
    loader = batches(augment=True)
    plain = torch.cat([images for images, _ in batches().in_order()])
    assert torch.equal(torch.cat([images for images, _ in loader.in_order()]), plain)
    shuffled = torch.cat([images for images, _ in loader.shuffled(0, 0)])
    assert not torch.equal(shuffled, torch.cat([images for images, _ in batches().shuffled(0, 0)]))


def test_each_image_draws_its_own_augmentation() -> None:
    torch.manual_seed(0)
    same = np.repeat(toy.part(1, 5, "train").pixels(), 64, axis=0)
    drawn = Counter(image.tobytes() for image in trivial_augment(same))
    # 14 operations, one of them the identity, at 31 strengths
    assert len(drawn) > 30
    assert drawn[same[0].tobytes()] >= 1


def test_augmentation_follows_the_seed() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(trivial_augment(PART.pixels()))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].dtype == np.uint8


def test_usable_batch_size() -> None:
    assert usable_batch_size(8, 8, batch_norm=True) == 8
    assert usable_batch_size(64, 40, batch_norm=True) == 40
    assert usable_batch_size(1, 40, batch_norm=False) == 1
    with pytest.raises(UserError, match="-bs 1"):
        usable_batch_size(1, 40, batch_norm=True)
    with pytest.raises(UserError, match="single training image"):
        usable_batch_size(8, 1, batch_norm=True)
