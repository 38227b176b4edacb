"""TrivialAugmentWide in batch, against torchvision's operations on each image alone."""

import math
import re

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.transforms import InterpolationMode, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

from engine.data import augment
from engine.data.augment import BINS, OPERATIONS, SIGNED, Draws, draw, trivial_augment

SPACE = TrivialAugmentWide()._augmentation_space(31)

SIZES = [(1, 1), (1, 5), (4, 1), (2, 3), (3, 3), (7, 7), (16, 33), (32, 32)]
MORE_SIZES = [(17, 31), (48, 64), (64, 64), (255, 256)]


def every(names: tuple[str, ...] = OPERATIONS, step: int = 1) -> Draws:
    """Each of the operations, at each strength (or every `step`-th of all), of both signs."""
    indices = [OPERATIONS.index(name) for name in names]
    operations, bins, negative = np.meshgrid(indices, np.arange(BINS), [False, True], indexing="ij")
    return Draws(operations.ravel(), bins.ravel(), negative.ravel())[::step]


def noise(height: int, width: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def smooth(height: int, width: int) -> torch.Tensor:
    """Waves and a slope that leave out the darkest and the brightest levels."""
    y, x = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 3, width)
    channels = [90 + 60 * torch.sin(x + 2 * y), 40 + 20 * x + 30 * y, 130 + 70 * torch.cos(3 * x) * torch.sin(y)]
    return torch.stack(channels).to(torch.uint8)[None]


def torchvision_alone(image: torch.Tensor, draws: Draws, index: int) -> torch.Tensor:
    """The reference: torchvision's own dispatch of what was drawn, on one image (3, H, W)."""
    name = OPERATIONS[draws.operations[index]]
    magnitudes, signed = SPACE[name]
    magnitude = float(magnitudes[draws.bins[index]]) if magnitudes.ndim else 0.0
    if signed and draws.negative[index]:
        magnitude = -magnitude
    augmented: torch.Tensor = _apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)
    return augmented


def assert_as_torchvision(images: torch.Tensor, draws: Draws) -> None:
    """Equal to the last pixel where this was written (x86-64, PyTorch 2.6 and 2.14).

    Another processor may round torchvision's floating point numbers differently: by operation, 1 in 1,000 levels may
    be off by 1, and 1 in 1,000 may be sampled from the neighbour that is as near.
    """
    augmented = trivial_augment(images, draws)
    assert augmented.dtype == torch.uint8
    assert augmented.shape == images.shape
    expected = torch.stack([torchvision_alone(images[i], draws, i) for i in range(len(draws))])
    off = (augmented.int() - expected.int()).abs()
    for operation in np.unique(draws.operations):
        errors = off[torch.from_numpy(draws.operations == operation)]
        assert (errors > 0).float().mean() <= 1e-3, OPERATIONS[operation]
        if not 1 <= operation <= 5:
            assert errors.max() <= 1, OPERATIONS[operation]


def test_the_operations_are_those_of_torchvision() -> None:
    assert tuple(SPACE) == OPERATIONS
    assert {name for name, (_, signed) in SPACE.items() if signed} == SIGNED


@pytest.mark.parametrize(
    ("height", "width"), [*SIZES, *(pytest.param(*size, marks=pytest.mark.slow) for size in MORE_SIZES)]
)
def test_every_operation_strength_and_sign_on_noise(height: int, width: int) -> None:
    draws = every(step=1 if height < 100 else 5)
    assert set(draws.operations) == set(range(14))
    assert_as_torchvision(noise(height, width).expand(len(draws), -1, -1, -1), draws)


@pytest.mark.parametrize(("height", "width"), [(9, 12), pytest.param(64, 64, marks=pytest.mark.slow)])
def test_every_operation_strength_and_sign_on_a_smooth_image(height: int, width: int) -> None:
    draws = every()
    assert_as_torchvision(smooth(height, width).expand(len(draws), -1, -1, -1), draws)


def test_a_large_image() -> None:
    """Of more pixels than one part of a batch has on a CPU, and than a float32 mean of levels is exact for."""
    draws = every(step=31)
    assert_as_torchvision(noise(448, 450).expand(len(draws), -1, -1, -1), draws)


def test_rotations_by_right_angles_where_every_pixel_lies_between_two() -> None:
    """A side that is even and one that is odd: the centres of the result's pixels meet the edges of the image's."""
    quarter = Draws(np.full(2, OPERATIONS.index("Rotate")), np.full(2, 20), np.array([False, True]))
    for height, width in ((16, 33), (33, 16), (64, 65)):
        assert_as_torchvision(noise(height, width).expand(2, -1, -1, -1), quarter)


@pytest.mark.parametrize(("height", "width"), [(1, 5), (33, 16), (64, 64)])
def test_shifts_by_sampling_as_on_other_devices(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = every(("TranslateX", "TranslateY"))
    images = noise(height, width).expand(len(draws), -1, -1, -1)
    expected = trivial_augment(images, draws)
    families = [(names, augment._affine if "TranslateX" in names else do) for names, do in augment._FAMILIES]
    monkeypatch.setattr(augment, "_FAMILIES", families)
    assert torch.equal(trivial_augment(images, draws), expected)


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_constant_image(level: int) -> None:
    draws = every()
    assert_as_torchvision(torch.full((len(draws), 3, 8, 8), level, dtype=torch.uint8), draws)


def test_images_with_few_levels() -> None:
    """A constant channel beside others, two levels, and too few pixels for `Equalize` to take a step."""
    flat = noise(20, 20)
    flat[:, 1] = 77
    two = noise(20, 20) // 128 * 200 + 20
    spot = torch.full((1, 3, 20, 20), 10, dtype=torch.uint8)
    spot[..., 7, 7] = 11
    mostly_bright = torch.full((1, 3, 20, 20), 255, dtype=torch.uint8)
    mostly_bright[..., :6, :] = noise(6, 20)
    draws = every(OPERATIONS[6:])  # those before them move pixels, whatever their levels
    for image in (flat, two, spot, mostly_bright, noise(15, 17), noise(16, 16)):
        assert_as_torchvision(image.expand(len(draws), -1, -1, -1), draws)


@pytest.mark.parametrize("size", [5, 40, 300])
def test_an_image_does_not_depend_on_its_neighbours(size: int) -> None:
    images, draws = noise(size, size + 3, 60), draw(60, np.random.default_rng(1))
    augmented = trivial_augment(images, draws)
    for i in range(60):
        assert torch.equal(trivial_augment(images[i : i + 1], draws[i : i + 1])[0], augmented[i])
    chosen = np.random.default_rng(2).permutation(60)[:20]
    assert torch.equal(trivial_augment(images[chosen], draws[chosen]), augmented[chosen])


def test_any_memory_format_and_the_input_is_left_alone() -> None:
    images, draws = noise(20, 30, 100), draw(100, np.random.default_rng(3))
    expected = trivial_augment(images, draws)
    rows = torch.from_numpy(images.permute(0, 2, 3, 1).numpy().copy())
    wider = noise(40, 33, 200)
    wider[::2, :, ::2, 2:32] = images
    for same in (
        images.contiguous(memory_format=torch.channels_last),
        rows.permute(0, 3, 1, 2),
        wider[::2, :, ::2, 2:32],
        images.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        before = same.clone()
        augmented = trivial_augment(same, draws)
        assert torch.equal(augmented, expected)
        assert augmented.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(same, before)
    identity = Draws(np.zeros(100, np.int64), draws.bins, draws.negative)
    kept = trivial_augment(images, identity)
    assert torch.equal(kept, images)
    kept.zero_()
    assert images.any()


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_none_or_one(count: int) -> None:
    augmented = trivial_augment(noise(6, 7, count), draw(count, np.random.default_rng(0)))
    assert augmented.shape == (count, 3, 6, 7)
    assert augmented.dtype == torch.uint8


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "not torch.float32 (2, 3, 4, 4)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "not torch.uint8 (2, 1, 4, 4)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "not torch.uint8 (3, 4, 4)"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), "not torch.uint8 (2, 4, 4, 3)"),
        (torch.zeros(2, 3, 0, 4, dtype=torch.uint8), "0 by 4"),
        (torch.zeros(3, 3, 4, 4, dtype=torch.uint8), "three arrays of 3, one for each image"),
    ],
)
def test_unusable_images(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        trivial_augment(images, draw(2, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (
            Draws(np.array([0, 14]), np.array([0, 0]), np.array([False, False])),
            "operations must be 0 to 13, not 0 to 14",
        ),
        (Draws(np.array([0, 1]), np.array([-1, 0]), np.array([False, False])), "bins must be 0 to 30, not -1 to 0"),
        (Draws(np.array([0, 1]), np.array([1]), np.array([False, False])), "of shapes [(2,), (1,), (2,)]"),
    ],
)
def test_unusable_draws(draws: Draws, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        trivial_augment(noise(4, 4, 2), draws)


def chi_square(observed: npt.NDArray[np.int64]) -> float:
    """How many standard deviations the statistic of equally likely cells lies above what is expected of it."""
    expected = observed.sum() / observed.size
    statistic = float(((observed - expected) ** 2 / expected).sum())
    free: int = observed.size - 1
    return (statistic - free) / math.sqrt(2 * free)


def test_draws_are_uniform_and_independent() -> None:
    draws = draw(200_000, np.random.default_rng(0))
    cells = np.ravel_multi_index((draws.operations, draws.bins, draws.negative.astype(int)), (14, 31, 2))
    counts = np.bincount(cells, minlength=14 * 31 * 2).reshape(14, 31, 2)
    assert counts.min() > 0
    for observed in (counts, counts.sum((1, 2)), counts.sum((0, 2)), counts.sum((0, 1))):
        assert chi_square(observed) < 4
    # and one image of the next
    following = np.bincount(draws.operations[:-1] * 14 + draws.operations[1:], minlength=196)
    assert chi_square(following) < 4


def test_draws_follow_the_generator() -> None:
    first, second, other = (draw(50, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for name in ("operations", "bins", "negative"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert len(first) == 50


def test_draws_can_be_chosen_from() -> None:
    draws = draw(10, np.random.default_rng(0))
    for chosen in (slice(2, 5), np.array([7, 1, 1])):
        some = draws[chosen]
        assert len(some) == 3
        np.testing.assert_array_equal(some.operations, draws.operations[chosen])
        np.testing.assert_array_equal(some.bins, draws.bins[chosen])
        np.testing.assert_array_equal(some.negative, draws.negative[chosen])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("height", "width"), [(2, 5), (33, 16), (64, 64), (255, 256)])
def test_cuda_gives_the_same_and_never_waits(height: int, width: int) -> None:
    draws = every(step=5)
    images = noise(height, width, len(draws))
    on_device = images.to("cuda", memory_format=torch.channels_last)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented = trivial_augment(on_device, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert augmented.device == on_device.device
    off = (augmented.cpu().int() - trivial_augment(images, draws).int()).abs()
    geometric = torch.from_numpy((draws.operations >= 1) & (draws.operations <= 5))
    assert off[~geometric].max() <= 1
    assert (off > 0).float().mean() <= 1e-3
