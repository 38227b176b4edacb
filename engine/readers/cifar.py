"""The official Python batches of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html).

They are pickles, which can run any code, and are opened so that they cannot.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

from engine.data.declaration import ReadOptions
from engine.data.part import Part, Pixels, RawSplits
from engine.errors import NotWholeError, UserError, reason_of
from engine.files import digest

MOST_BYTES = 1 << 29  # of a file; the largest published one has 155 million
MOST_CALLS = 30  # of what makes arrays in a file; there are five or so for each


@dataclass(frozen=True)
class CifarFiles:
    """The published files of one of the two: name -> md5."""

    train: Mapping[str, str]
    test: Mapping[str, str]
    meta: Mapping[str, str]  # a single file
    class_names: str  # the key of the class names in it
    labels: str  # the key of the labels that are wanted in the others

    @property
    def files(self) -> dict[str, str]:
        """All of them."""
        return {**self.train, **self.test, **self.meta}


def read_batches(options: ReadOptions, published: CifarFiles) -> RawSplits:
    """Read the files of `published`.

    Every file must be the published one, unless partial data is allowed: then what differs is listed.
    """
    (meta,) = published.meta
    files = published.files
    missing = [name for name in files if not (options.folder / name).is_file()]
    needed = [name for name in missing if name == meta or not options.allow_partial]
    if needed:
        raise NotWholeError(f"{options.folder} lacks {', '.join(needed)}.", or_partial=not options.allow_partial)
    md5s = {name: digest(options.folder / name, "md5") for name in files if name not in missing}
    differences = [f"{name} is missing" for name in missing]
    differences += [f"{name} is not the published file" for name, md5 in md5s.items() if md5 != files[name]]
    expected: Mapping[str, str | None] = dict.fromkeys(files) if options.allow_partial else files
    classes = load_pickle(options.folder / meta, expected[meta]).get(published.class_names)
    if (
        not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
        or len(set(classes)) < len(classes)
    ):
        raise UserError(f"{options.folder / meta} holds no list of class names. Put the published file in its place.")
    train, test = (
        _join([_batch(options.folder / name, expected[name], published.labels) for name in part if name in md5s])
        for part in (published.train, published.test)
    )
    checksums = {name: f"md5:{md5}" for name, md5 in md5s.items()}
    return RawSplits(tuple(classes), train, test, checksums=checksums, differences=tuple(differences))


def _batch(path: Path, md5: str | None, key: str) -> tuple[Pixels, list[int], list[str]]:
    """The images (N, 32, 32, 3), labels and names of one file."""
    content = load_pickle(path, md5)
    pixels, labels = content.get("data"), content.get(key)
    if not (
        isinstance(pixels, np.ndarray)
        and isinstance(labels, list)
        and pixels.shape == (len(labels), 3 * 32 * 32)
        and all(isinstance(label, int) and 0 <= label < 2**31 for label in labels)
    ):
        raise UserError(
            f"{path} is not a CIFAR batch: it should hold 'data', uint8 (N, 3072), and {key!r}, a list of N numbers. "
            "Put the published file in its place."
        )
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, labels, [f"{path.name}/{index:05}" for index in range(len(labels))]


def _join(batches: list[tuple[Pixels, list[int], list[str]]]) -> Part:
    return Part(
        np.concatenate([np.zeros((0, 32, 32, 3), np.uint8), *(images for images, _, _ in batches)]),
        np.array([label for _, labels, _ in batches for label in labels], dtype=np.int64),
        [name for _, _, names in batches for name in names],
    )


def load_pickle(path: Path, md5: str | None) -> dict[str, Any]:
    """The dict of one batch: lists and strings as they are, arrays of bytes as NumPy's.

    They are Python 2 pickles, whose byte strings become str (latin1). `md5`: the hexadecimal digest that the file must
    have; None accepts any. With or without it, the file can name nothing but NumPy's array, its dtype and the codec of
    byte strings. UserError: unreadable, another file than the published one, damaged, or names anything else.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path} is not a CIFAR batch: it has {size:,} bytes. Put the published file in its place.")
        actual = digest(path, "md5")
        if md5 is not None and actual != md5.lower():
            raise UserError(
                f"{path} is not the published file: found md5 {actual} ({size:,} bytes), expected {md5.lower()}. "
                "Replace it with the published one, or give --allow-partial to go on with other files of this format."
            )
        with path.open("rb") as file:
            return _load(path, file, f"{size:,} bytes, md5 {actual}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}.") from error


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
            f"{path} is damaged or is not a CIFAR batch ({type(error).__name__}: {error!s:.200}; {what}). "
            "Put the published file in its place."
        ) from error


class _Dtype:
    """Stands in for numpy.dtype, whose own believes any flags, so that bytes could pass for object pointers."""

    __slots__ = ()

    def __init__(self, name: object, *_: object) -> None:
        if name != "u1":
            # never what a pickle has made but for text: printed, some are larger than any memory
            raise ValueError(f"an array of {name if isinstance(name, str) else type(name).__name__:.20}, not of bytes")

    def __setstate__(self, _: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray and its reconstructor: bytes are all that it makes arrays of."""

    __slots__ = ("array",)
    array: npt.NDArray[np.uint8]

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Dtype):
            raise ValueError("an array whose type is not a dtype")
        if not isinstance(shape, tuple) or any(type(size) is not int for size in shape):
            raise ValueError("an array whose shape is not of whole numbers")
        if min(shape, default=0) < 0:  # which reshape() would take for whatever fits
            raise ValueError(f"an array of shape {shape}")
        raw = data.encode("latin1") if isinstance(data, str) else data
        self.array = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C"))


class _Encoded:
    """Stands in for _codecs.encode, whose other codecs take forever, or bytes that they double again and again."""

    __slots__ = ()

    def __new__(cls, text: object, encoding: object) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("bytes that are not of latin1")
        return text.encode("latin1")

    def __setstate__(self, _: object) -> None:
        pass


class _Dict(dict[str, Any]):
    """A dict with names for keys: others can take forever to be hashed."""

    __slots__ = ()

    def __setitem__(self, key: str, value: Any) -> None:
        if type(key) is not str:
            raise TypeError(f"a {type(key).__name__} for a key")
        super().__setitem__(key, value)


# A pickle can set attributes of what it is given here, unless that is built in or has a __setstate__ of its own
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


# Sets, whose members are hashed, and buffers, which take what memory they ask for
LEFT_OUT = b"".join((pickle.BYTEARRAY8, pickle.EMPTY_SET, pickle.FROZENSET, pickle.ADDITEMS))
CALLS = b"".join((pickle.REDUCE, pickle.BUILD, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ))


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Each call may copy what the file has once."""

    def call(unpickler: Any) -> None:
        unpickler.calls += 1
        if unpickler.calls > MOST_CALLS:
            raise ValueError(f"more than {MOST_CALLS} objects beside text, numbers and lists")
        load(unpickler)

    return call


def _empty_dict(unpickler: Any) -> None:
    unpickler.append(_Dict())


def _full_dict(unpickler: Any) -> None:
    items, content = unpickler.pop_mark(), _Dict()
    for key, value in zip(items[::2], items[1::2], strict=True):
        content[key] = value
    unpickler.append(content)


# The unpickler written in Python: the one in C allocates as much as the highest index in the file asks for, so that
# a single wrong byte can take up to 64 GiB
class _Unpickler(pickle._Unpickler):
    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path
        self.calls = 0

    dispatch: ClassVar = {key: load for key, load in pickle._Unpickler.dispatch.items() if key not in LEFT_OUT} | {
        **{key: _counted(pickle._Unpickler.dispatch[key]) for key in CALLS},
        pickle.EMPTY_DICT[0]: _empty_dict,
        pickle.DICT[0]: _full_dict,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UserError(
                f"{self.path} is not a CIFAR batch: it asks for {f'{module}.{name}':.100}, which such a file "
                "never needs and which could run code. Nothing was run. Delete it and get the published file."
            ) from None
