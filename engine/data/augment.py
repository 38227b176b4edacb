"""TrivialAugmentWide for a whole batch at once: each image is given one random operation at one random strength.

The policy is that of Müller & Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021
(arXiv:2103.10158), in its wide space, and each operation is the one that torchvision applies to a single uint8 tensor
(`torchvision.transforms.TrivialAugmentWide` with 31 bins, nearest sampling and a black border).

`draw` chooses on the CPU what each image gets, `trivial_augment` does it where the images are. As the choices are known
on the host, images of the same operation can be brought together and worked on at once without asking the device
anything: on CUDA nothing synchronises. The module needs NumPy and PyTorch only:

    draws = draw(len(images), np.random.default_rng(0))
    augmented = trivial_augment(images, draws)  # uint8 (B, 3, H, W)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
BINS = 31  # strengths of each operation
SIGNED = frozenset(OPERATIONS[1:10])  # their strengths may be negated

_FARTHEST = 32  # pixels that an image is shifted by
_INDEX = {name: index for index, name in enumerate(OPERATIONS)}
_IS_SIGNED = np.array([name in SIGNED for name in OPERATIONS])


def _magnitudes() -> npt.NDArray[np.float64]:
    """The strengths (operation, bin): slopes, pixels, degrees, changes of a factor of 1, bits kept, a threshold.

    They are float32 numbers, by PyTorch's `linspace`: a shift is cut to whole pixels, and others' last bits count.
    """
    ends = {
        "Rotate": (0.0, 135.0),
        "TranslateX": (0.0, _FARTHEST),
        "TranslateY": (0.0, _FARTHEST),
        "Solarize": (255.0, 0.0),
    }
    table = np.zeros((len(OPERATIONS), BINS))
    for name in (*SIGNED, "Solarize"):
        table[_INDEX[name]] = torch.linspace(*ends.get(name, (0.0, 0.99)), BINS).numpy()
    table[_INDEX["Posterize"]] = 8 - np.round(np.arange(BINS) / 5)
    return table


_MAGNITUDES = _magnitudes()

# A CPU works on so many levels at a time: what it computes then stays in its caches, and in memory that the process
# already has, where larger arrays would be handed out anew by the system each time, at the cost of a page fault a page.
_PART = 2**19


@dataclass(frozen=True)
class Draws:
    """What each of N images is given."""

    operations: npt.NDArray[np.int64]  # (N,): an index into OPERATIONS
    bins: npt.NDArray[np.int64]  # (N,): 0, the weakest, to 30
    negative: npt.NDArray[np.bool_]  # (N,): whether the strength is negated, where the operation is in SIGNED

    def __len__(self) -> int:
        return len(self.operations)

    def __getitem__(self, chosen: slice | npt.NDArray[np.integer]) -> Draws:
        """The draws of some of the images, given by a slice or an array of indices."""
        return Draws(self.operations[chosen], self.bins[chosen], self.negative[chosen])


def draw(images: int, random: np.random.Generator) -> Draws:
    """Draw for so many images: operation, bin and sign, all uniform and independent of each other."""
    return Draws(
        random.integers(len(OPERATIONS), size=images),
        random.integers(BINS, size=images),
        random.integers(2, size=images).astype(np.bool_),
    )


def trivial_augment(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Do to each image what was drawn for it.

    images: uint8 (B, 3, H, W) on any device and in any memory format; they stay as they are. The result is a new tensor
    like it, in the channels_last format, which is also the one that is fastest to start from.

    A result is that of torchvision's operation on the image alone. Where its own floating point numbers come out
    differently (as on CUDA), a level may be off by 1, and a pixel halfway between two may be sampled from the other.

    Raises ValueError for images of another type or shape, and for draws that are not one for each image, or of an
    operation or a bin that doesn't exist.
    """
    _check(images, draws)
    device, (height, width) = images.device, images.shape[2:]
    operations = draws.operations
    if min(height, width) < 3:  # no pixel has all the neighbours that it would be smoothed with
        operations = np.where(operations == _INDEX["Sharpness"], _INDEX["Identity"], operations)
    order = np.argsort(_RANK[operations], kind="stable")
    operations, bins = operations[order], draws.bins[order]
    signs = np.where(draws.negative[order] & _IS_SIGNED[operations], -1.0, 1.0)
    magnitudes = _MAGNITUDES[operations, bins] * signs
    most = max(1, _PART // (3 * height * width) if device.type == "cpu" else len(images))

    # brought together by operation, then put back where they were
    together = images.permute(0, 2, 3, 1).index_select(0, _sent(order, device))
    for names, function in _FAMILIES:
        first, last = _RANK[_INDEX[names[0]]], _RANK[_INDEX[names[-1]]]
        start, end = np.searchsorted(_RANK[operations], [first, last + 1])
        for at in range(start, end, most):
            part = slice(at, min(at + most, end))
            together[part] = function(together[part], operations[part], magnitudes[part])
    return together.index_select(0, _sent(np.argsort(order), device)).permute(0, 3, 1, 2)


def _check(images: torch.Tensor, draws: Draws) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")
    if 0 in images.shape[2:]:
        raise ValueError(f"images must have pixels, but are {images.shape[2]} by {images.shape[3]}")
    lengths = [np.shape(array) for array in (draws.operations, draws.bins, draws.negative)]
    if lengths != [(len(images),)] * 3:
        raise ValueError(f"draws must be three arrays of {len(images)}, one for each image, not of shapes {lengths}")
    for what, indices, count in (("operations", draws.operations, len(OPERATIONS)), ("bins", draws.bins, BINS)):
        if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
            raise ValueError(f"{what} must be an array of whole numbers, not {type(indices).__name__}")
        if len(indices) and not 0 <= indices.min() <= indices.max() < count:
            raise ValueError(f"{what} must be 0 to {count - 1}, not {indices.min()} to {indices.max()}")


def _sent(array: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    # only CUDA copies at once what may be gone when the device reads it
    return torch.from_numpy(array).to(device, non_blocking=device.type == "cuda")


def _each(numbers: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """A number for each image, as (N, 1, 1, 1)."""
    return _sent(numbers, device).reshape(-1, 1, 1, 1)


def _levels(values: torch.Tensor) -> torch.Tensor:
    """Float values cut to 0 to 255 and then to whole levels, as int16.

    PyTorch vectorises this conversion and the one to uint8 that follows on a CPU, but not that from float to uint8.
    """
    return values.clamp_(0, 255).to(torch.int16)


def _translate(
    images: torch.Tensor, operations: npt.NDArray[np.int64], pixels: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Shift by whole pixels, to the right or down: `_affine` without its arithmetic, and a fifth of its time."""
    count, height, width, _channels = images.shape
    if images.device.type != "cpu":  # some devices would write the whole of the overlapping view below to memory
        return _affine(images, operations, pixels)
    # black above, below and to the right, where it is also what lies left of the next row: in a flat view of that, a
    # shift in either direction is another first pixel, and a copy of whole rows
    bordered = functional.pad(images, (0, 0, 0, _FARTHEST, _FARTHEST, _FARTHEST))
    stride = width + _FARTHEST
    area = (height + 2 * _FARTHEST) * stride
    shift = np.trunc(pixels).astype(np.int64) * np.where(operations == _INDEX["TranslateY"], stride, 1)
    first = np.arange(count) * area + _FARTHEST * stride - shift
    shape = ((count - 1) * area + 2 * _FARTHEST * stride + 1, height, 3 * width)
    shifted = bordered.as_strided(shape, (3, 3 * stride, 1)).index_select(0, _sent(first, images.device))
    return shifted.view(images.shape)


def _affine(
    images: torch.Tensor, operations: npt.NDArray[np.int64], magnitudes: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Shear from the upper left corner, shift, or turn counter-clockwise about the centre."""
    count, height, width, _channels = images.shape
    device = images.device
    shear_x, shear_y, right, down, turn = (
        np.where(operations == _INDEX[name], magnitudes, 0.0)
        for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
    )
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    # from a pixel of the result to where it is sampled, both relative to the centre
    matrix = np.array(
        [
            [cos, shear_x - sin, shear_x * (height / 2) - np.trunc(right)],
            [shear_y + sin, cos, shear_y * (width / 2) - np.trunc(down)],
        ],
        dtype=np.float32,
    )
    matrix /= np.array([width / 2, height / 2], dtype=np.float32)[:, None, None]
    (xx, xy, x1), (yx, yy, y1) = _sent(matrix, device)[..., None, None]
    x = torch.arange(width, dtype=torch.float32, device=device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None] - (height - 1) / 2

    # the steps and their order are those of torchvision's grid and of grid_sample, since each rounds its result, which
    # decides between two pixels that are equally near; what lies outside is sampled from a black border of 1 pixel
    columns = (x * xx + y * xy).add_(x1).add_(1).mul_(width / 2).sub_(0.5).round_().clamp_(-1, width)
    rows = (x * yx + y * yy).add_(y1).add_(1).mul_(height / 2).sub_(0.5).round_().clamp_(-1, height)
    bordered = functional.pad(images, (0, 0, 1, 1, 1, 1))
    pixels = bordered.view(-1, 3)
    index_type = torch.int32 if len(pixels) < 2**31 else torch.int64
    first = torch.arange(count, dtype=index_type, device=device) * ((height + 2) * (width + 2)) + width + 3
    index = rows.to(index_type).mul_(width + 2).add_(columns.to(index_type)).add_(first[:, None, None])
    return pixels.index_select(0, index.view(-1)).view(images.shape)


def _blend(
    images: torch.Tensor, operations: npt.NDArray[np.int64], magnitudes: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Mix each image with black, its greys, their mean or a smoothed image, or move it away from that."""
    color, contrast, sharpness = np.searchsorted(
        operations, [_INDEX[name] for name in ("Color", "Contrast", "Sharpness")]
    )
    values = images.float()
    other = torch.empty_like(values)
    other[:color] = 0
    if color < sharpness:
        greys = _grey(images[color:sharpness])
        for channel in other[color:contrast].unbind(-1):  # twice as fast as broadcasting over three neighbours
            channel.copy_(greys[: contrast - color])
        other[contrast:sharpness] = greys[contrast - color :].mean((1, 2))[:, None, None, None]
    if sharpness < len(images):
        _smooth(values[sharpness:], out=other[sharpness:])
    factors = 1.0 + magnitudes
    shares = _sent(np.array([factors, 1.0 - factors], dtype=np.float32), images.device)[..., None, None, None]
    return _levels(values.mul_(shares[0]).add_(other.mul_(shares[1])))


def _grey(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) -> float (N, H, W): luma by ITU-R BT.601, to the digits of torchvision, cut to whole levels."""
    planes = images.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes[0].mul_(0.2989).add_(planes[1].mul_(0.587)).add_(planes[2].mul_(0.114)).floor_()


def _smooth(values: torch.Tensor, out: torch.Tensor) -> None:
    """Whole levels of a 3x3 mean in which the centre counts five times; pixels at the border are kept."""
    across = values[:, :, :-2] + values[:, :, 1:-1]
    across += values[:, :, 2:]
    total = across[:, :-2] + across[:, 1:-1]
    total += across[:, 2:]
    total.add_(values[:, 1:-1, 1:-1], alpha=4)
    out.copy_(values)
    out[:, 1:-1, 1:-1] = total.div_(13).round_()


def _posterize(images: torch.Tensor, _: npt.NDArray[np.int64], bits: npt.NDArray[np.float64]) -> torch.Tensor:
    return images.bitwise_and_(_each((256 - 2 ** (8 - bits)).astype(np.uint8), images.device))


def _solarize(images: torch.Tensor, _: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float64]) -> torch.Tensor:
    """Invert the levels from a threshold on."""
    threshold = _each(np.ceil(thresholds).astype(np.uint8), images.device)
    # 1 where a level is below, else 0; PyTorch doesn't vectorise comparisons of uint8 on a CPU: 5 times as fast
    below = (threshold - torch.minimum(images, threshold)).clamp_(max=1)
    return images.bitwise_not_().bitwise_xor_(below.mul_(255))


def _autocontrast(images: torch.Tensor, *_: npt.NDArray[np.generic]) -> torch.Tensor:
    """Stretch each channel to 0 to 255, unless it is constant."""
    count, height, width, _channels = images.shape
    # columns first: there the elements lie side by side
    columns = images.view(count, height, 3 * width)
    low = columns.amin(1).view(count, width, 3).amin(1).float()
    high = columns.amax(1).view(count, width, 3).amax(1).float()
    constant = low == high
    scale = torch.where(constant, 1, 255 / (high - low))
    low = torch.where(constant, 0, low)
    values = columns.float().sub_(low.repeat(1, width)[:, None]).mul_(scale.repeat(1, width)[:, None])
    return _levels(values).view(images.shape)


def _equalize(images: torch.Tensor, *_: npt.NDArray[np.generic]) -> torch.Tensor:
    """Map the levels of each channel so that they come about equally often.

    A channel with fewer than 255 pixels beside those of its brightest level is left as it is.
    """
    count, height, width, _channels = images.shape
    device = images.device
    channels = torch.arange(3 * count, dtype=torch.int32, device=device).mul_(256).view(count, 3)
    index = images.view(count, height, 3 * width).int().add_(channels.repeat(1, width)[:, None]).view(-1)
    one = torch.ones(1, dtype=torch.int32, device=device)
    counts = torch.zeros(3 * count * 256, dtype=torch.int32, device=device)
    counts = counts.index_add_(0, index, one.expand(len(index))).view(-1, 256)
    darker = counts.cumsum(1, dtype=torch.int32) - counts
    # all pixels but those of the brightest level
    step = (darker * (counts > 0)).amax(1, keepdim=True) // 255
    spread = ((darker + step // 2) // step.clamp(min=1)).clamp_(max=255)
    levels = torch.arange(256, dtype=torch.int32, device=device)
    table = torch.where(step == 0, levels, spread).to(torch.uint8)
    return table.view(-1).index_select(0, index).view(images.shape)


# What is done at once, in the order in which images are brought together. Each function is given images (N, H, W, 3),
# which it may overwrite, with the operation and the signed strength of each, and returns what becomes of them: uint8,
# or int16 of 0 to 255.
_FAMILIES = (
    (("ShearX", "ShearY", "Rotate"), _affine),
    (("TranslateX", "TranslateY"), _translate),
    (("Brightness", "Color", "Contrast", "Sharpness"), _blend),
    (("Posterize",), _posterize),
    (("Solarize",), _solarize),
    (("AutoContrast",), _autocontrast),
    (("Equalize",), _equalize),
)
_RANK = np.zeros(len(OPERATIONS), dtype=np.int64)  # of Identity, too
_RANK[[_INDEX[name] for names, _ in _FAMILIES for name in names]] = np.arange(1, len(OPERATIONS))
