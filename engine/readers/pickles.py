"""CIFAR's Python batches: pickles, which can run any code, opened so that they cannot."""

import _codecs
import math
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from engine.errors import UserError
from engine.files import digest

NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")


def load_pickle(path: Path, md5: str | None) -> dict[str, Any]:
    """The dict of one CIFAR batch: lists and strings as they are, arrays as NumPy arrays of numbers.

    The files are Python 2 pickles (https://www.cs.toronto.edu/~kriz/cifar.html); their byte strings become str
    (latin1). `md5`: the hexadecimal digest the file must have; None accepts any. With or without it, the file
    can name nothing but NumPy's array, its dtype and the codec of byte strings.
    UserError: unreadable, another file than the published one, damaged, or names anything else.
    """
    try:
        found, size = digest(path, "md5"), path.stat().st_size
        if md5 is not None and found != md5.lower():
            raise UserError(
                f"{path} is not the published file: found md5 {found} ({size:,} bytes), expected {md5.lower()}. "
                "Replace it with the published one, or give --allow-partial to go on with other files of this format."
            )
        with path.open("rb") as file:
            return _load(path, file, f"{size:,} bytes, md5 {found}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _load(path: Path, file: BinaryIO, what: str) -> dict[str, Any]:
    try:
        content = _Unpickler(path, file).load()
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not a dict")
        return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
    except UserError:
        raise
    except Exception as error:  # damaged bytes are read as opcodes, which may raise nearly everything
        raise UserError(
            f"{path} is damaged or is not a CIFAR batch ({type(error).__name__}: {error}; {what}). "
            "Put the published file in its place."
        ) from error


class _Dtype:
    """Stands in for numpy.dtype: NumPy's own believes any flags, so that bytes could pass for object pointers."""

    __slots__ = ("dtype", "name")

    def __init__(self, name: object, *_: object) -> None:
        if not isinstance(name, str) or not NUMBERS.fullmatch(name):
            raise ValueError(f"an array of {name!r}, which are not numbers")
        self.name = name
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("|", "<", ">", "="):
            raise ValueError(f"byte order {order!r}")
        self.dtype = np.dtype(order + self.name)


class _Array:
    """Stands in for numpy.ndarray and its reconstructor; only checked values reach NumPy."""

    __slots__ = ("array",)
    array: npt.NDArray[Any]

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        raw = data.encode("latin1") if isinstance(data, str) else data
        if (
            not isinstance(raw, bytes | bytearray)
            or min(shape, default=0) < 0
            or len(raw) != math.prod(shape) * kind.dtype.itemsize
        ):
            raise ValueError(f"an array of shape {shape} that its data do not fill")
        flat = np.frombuffer(raw, dtype=kind.dtype)
        self.array = np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C"))


# A pickle can set attributes of what it is given here, unless that is built in or has a __setstate__ of its own
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _codecs.encode,
}


# The unpickler written in Python: the one in C allocates as much as the highest index in the file asks for, so that
# a single wrong byte can take up to 64 GiB
class _Unpickler(pickle._Unpickler):
    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UserError(
                f"{self.path} is not a CIFAR batch: it asks for {module}.{name}, which such a file never needs and "
                "which could run code. Nothing was run. Delete it and get the published file."
            ) from None
