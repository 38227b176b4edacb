"""Whether a file of PyTorch's is what PyTorch writes, and asks for no more memory than it has bytes.

torch.load believes what a file says: of how many elements a storage and a tensor are, which takes memory or reads
beyond what is there; and of how values hold each other, which whoever walks them pays for. Here the pickled operations
are followed without building what they describe, and a file is refused where they say what cannot be.
"""

from __future__ import annotations

import mmap
import pickletools
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from engine.files import DamagedError, require_whole

ARCHIVE = b"PK\x03\x04"
# what files begin with that PyTorch wrote before 1.6, and still writes if it is told to
OLDER_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
OLDER_PICKLES = 5  # that it begins with: the number above, a version, the system, the content, the storages' names

# A checkpoint of a backbone has some 20,000 containers, and as many names and numbers; that of a finished run has three
# numbers and a list for each pair of classes that it confused, at most as many as there are test images.
MOST_WEIGHT = 1 << 22  # of all values: 1 each, and 1 a character of text; CONTAINER for what holds others
CONTAINER = 16
MOST_DEPTH = 64  # of values in each other
MOST_ENTRIES = 1 << 17  # of an archive, each a storage
MOST_DIMENSIONS = 64
LARGEST_KEY = 1 << 60  # beyond it, numbers share their hash, and a dict of them takes for ever

PLAIN = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
TEXT = {"BINUNICODE", "SHORT_BINSTRING"}
EMPTY = {"EMPTY_TUPLE": "tuple", "EMPTY_LIST": "list", "EMPTY_DICT": "dict"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

STORAGE = re.compile(r"torch(?:\.storage|\.cuda)?\.(\w+)Storage")
ITEM_BYTES = dict.fromkeys(("Untyped", "Byte", "Char", "Bool"), 1)
ITEM_BYTES |= dict.fromkeys(("Short", "Half", "BFloat16"), 2) | dict.fromkeys(("Int", "Float"), 4)
ITEM_BYTES |= {"Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16}
REBUILD = {f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3")}
WRAP = {f"torch._utils._rebuild_{kind}" for kind in ("parameter", "parameter_with_state")}
OF_A_TYPE = "torch._tensor._rebuild_from_type_v2"
TENSORS = {"torch.Tensor", "torch.nn.parameter.Parameter"}
PLAIN_CALLS = {"torch.device", "torch.serialization._get_layout", "builtins.complex"}
BYTES_CALLS = {"_codecs.encode", "builtins.bytearray"}
ENCODINGS = {"latin1", "latin-1"}  # in which pickled bytes are text
HOLDING_CALLS = {"collections.OrderedDict", "collections.Counter", "builtins.set", "torch.Size"}
KNOWN = REBUILD | WRAP | {OF_A_TYPE} | TENSORS | PLAIN_CALLS | BYTES_CALLS | HOLDING_CALLS


class ImplausibleError(DamagedError):
    """A file says what none says that PyTorch wrote; the message is what."""


@dataclass(eq=False, slots=True)
class _Value:
    """What is known of a pickled value."""

    kind: str  # "plain", "tuple", "list", "dict", "set", "name", "storage", "tensor" or "mark"
    # a plain value or a name; a storage's bytes; the values in a tuple or a list, the keys of a dict
    content: Any = None
    weight: int = 1  # of it and of all that it holds, each as often as it is held
    depth: int = 0  # of what it holds
    held: bool = False  # by another one
    item_bytes: int = 0  # of a storage

    def number(self) -> int:
        """The whole number that it is, 0 or more."""
        if type(self.content) is not int or self.content < 0:
            raise ImplausibleError("a size in it is no number")
        return self.content

    @property
    def is_key(self) -> bool:
        """Whether a dict may have it for a key, or a set hold it."""
        plain = self.content is None or isinstance(self.content, str | bytes)
        plain |= isinstance(self.content, int | float) and abs(self.content) < LARGEST_KEY
        return self.kind == "plain" and plain


class _Follower:
    """Follows pickled operations as torch.load takes them with `weights_only`.

    `reserve(key, bytes)` is called for each storage, and raises where there is no such one.
    """

    def __init__(self, reserve: Callable[[str, int], None]) -> None:
        self._reserve = reserve
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._storages: dict[str, _Value] = {}
        self._weight = 0

    def follow(self, stream: IO[bytes] | mmap.mmap | bytes) -> None:
        """Follow one pickle, to its end. Raises ImplausibleError, and ValueError or IndexError where it is none."""
        self._stack, self._memo = [], {}
        for operation, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]  # a mapped file will do
            if operation.name == "STOP":
                return
            self._do(operation.name, argument)

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in PLAIN:
            self._push(_Value("plain", argument))
        elif name in TEXT:
            self._push(_Value("plain", argument, 1 + len(argument)))
        elif name in EMPTY:
            self._push(_Value(EMPTY[name], [], CONTAINER))
        elif name == "MARK":
            self._push(_Value("mark", weight=CONTAINER))
        elif name == "GLOBAL":
            self._push(_Value("name", _known(argument)))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise ImplausibleError("it refers to a value that it does not hold")
            self._count(1)
            stack.append(self._memo[argument])
        elif name == "TUPLE" or name in TUPLES:
            self._push(self._holding("tuple", self._take(TUPLES[name]) if name in TUPLES else self._since_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = self._take(1) if name == "APPEND" else self._since_mark()
            self._extend(stack[-1], values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self._take(2) if name == "SETITEM" else self._since_mark()
            self._set(stack[-1], values)
        elif name == "BINPERSID":
            self._push(self._storage(self._take(1)[0]))
        elif name == "REDUCE":
            function, arguments = self._take(2)
            self._push(self._called(function, arguments))
        elif name == "BUILD":
            self._build(*self._take(1))
        elif name != "PROTO":
            raise ImplausibleError(f"its pickle has an operation that PyTorch does not write ({name})")

    def _count(self, weight: int) -> None:
        self._weight += weight
        if self._weight > MOST_WEIGHT:
            raise ImplausibleError("it holds far more values than the tensors of a model need")

    def _push(self, value: _Value) -> None:
        self._count(value.weight)
        self._stack.append(value)

    def _take(self, count: int) -> list[_Value]:
        """The last values, off the stack."""
        taken = self._stack[-count:]
        if len(taken) < count:
            raise IndexError("the stack is empty")
        del self._stack[-count:]
        return taken

    def _since_mark(self) -> list[_Value]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at].kind == "mark":
                values = self._stack[at + 1 :]
                del self._stack[at:]
                return values
        raise IndexError("there is no mark")

    def _hold(self, holder: _Value, values: Iterable[_Value]) -> None:
        """Note that `holder` holds `values`. One that is held itself is whole: else it could come to hold itself."""
        for value in values:
            value.held = True
            holder.weight += value.weight
            holder.depth = max(holder.depth, value.depth + 1)
        if holder.held:
            raise ImplausibleError("a value in it grows where it is part of another, or is part of itself")
        if holder.weight > MOST_WEIGHT or holder.depth > MOST_DEPTH:
            raise ImplausibleError("its values hold each other more often than those of a model")

    def _holding(self, kind: str, values: list[_Value]) -> _Value:
        holder = _Value(kind, values, CONTAINER)
        self._hold(holder, values)
        # what it holds has been counted already
        self._weight -= holder.weight - CONTAINER
        return holder

    def _extend(self, holder: _Value, values: list[_Value]) -> None:
        if holder.kind != "list":
            raise ImplausibleError(f"a {holder.kind} in it is used as a list")
        self._hold(holder, values)
        holder.content.extend(values)

    def _set(self, holder: _Value, values: list[_Value]) -> None:
        """Of a dict: `values` are keys and what they stand for, in turns."""
        if len(values) % 2 or not all(key.is_key for key in values[::2]):
            raise ImplausibleError("a dict in it has keys that are no names")
        if holder.kind != "dict":
            raise ImplausibleError(f"a {holder.kind} in it is used as a dict")
        self._hold(holder, values)
        holder.content.extend(key.content for key in values[::2])

    def _build(self, state: _Value) -> None:
        """Attributes of the value on top: an OrderedDict's, of which a state dict has the versions of its layers."""
        if state.kind != "dict" or not set(state.content) <= {"_metadata"}:
            raise ImplausibleError("it gives a value attributes that none has")
        holder = self._stack[-1]
        if holder.kind != "dict":
            raise ImplausibleError(f"it gives a {holder.kind} attributes")
        self._hold(holder, [state])

    def _storage(self, saved: _Value) -> _Value:
        if saved.kind != "tuple" or len(saved.content) not in (5, 6):
            raise ImplausibleError("it refers to something that is no storage")
        word, kind, key, _, count, *view = saved.content
        item = STORAGE.fullmatch(kind.content) if kind.kind == "name" else None
        if word.content != "storage" or not item or not isinstance(key.content, str) or any(v.content for v in view):
            raise ImplausibleError("it refers to something that is no storage")
        if item[1] not in ITEM_BYTES:
            raise ImplausibleError(f"it holds a {item[1]}Storage, which no backbone's weights are in")
        item_bytes = ITEM_BYTES[item[1]]
        size = count.number() * item_bytes
        storage = self._storages.get(key.content)
        if storage is None:
            self._reserve(key.content, size)
            storage = self._storages[key.content] = _Value("storage", size, item_bytes=item_bytes)
        if (storage.content, storage.item_bytes) != (size, item_bytes):
            raise ImplausibleError(f"it says different things of its storage {key.content!r}")
        return storage

    def _called(self, function: _Value, arguments: _Value) -> _Value:
        if function.kind != "name" or arguments.kind != "tuple":
            raise ImplausibleError("its pickle calls what is no function")
        name, given = function.content, arguments.content
        if name in REBUILD:
            return _tensor(name, given)
        if name in WRAP and given and given[0].kind == "tensor":
            return _Value("tensor", weight=CONTAINER)
        if name == OF_A_TYPE and len(given) == 4 and given[1].content in TENSORS and given[0].content in REBUILD | WRAP:
            return self._called(given[0], given[2])
        plain = all(value.kind == "plain" for value in given)
        if name in PLAIN_CALLS and plain:
            return _Value("plain", ...)
        if name in BYTES_CALLS and plain and _is_encoded(given):
            text = given[0].content if given else ""
            return _Value("plain", text.encode(errors="replace") if name == "_codecs.encode" else ..., 1 + len(text))
        return self._container(name, given)

    def _container(self, name: str, given: list[_Value]) -> _Value:
        """What a call gives that has one value or none for its argument, and holds what that holds."""
        kinds = [value.kind for value in given]
        if name == "collections.OrderedDict" and kinds == ["list"]:  # as Python 2 pickled it
            pairs = [pair.content for pair in given[0].content]
            if not all(pair.kind in ("list", "tuple") and len(pair.content) == 2 for pair in given[0].content):
                raise ImplausibleError("a dict in it is made of what are no pairs")
            made = _Value("dict", [], CONTAINER)
            self._set(made, [value for pair in pairs for value in pair])
        elif name in ("collections.OrderedDict", "collections.Counter") and kinds in ([], ["dict"]):
            made = _Value("dict", [*given[0].content] if given else [], CONTAINER)
            self._hold(made, given)
        elif name == "torch.Size" and kinds in (["tuple"], ["list"]):
            made = self._holding("tuple", given[0].content)
        elif name == "builtins.set" and kinds in ([], ["list"]) and all(v.is_key for one in given for v in one.content):
            made = _Value("set", weight=CONTAINER)
            self._hold(made, given)
        else:
            raise ImplausibleError(f"its pickle calls {name} with what PyTorch does not give it")
        return made


def _known(argument: str) -> str:
    """The dotted name that a pickle refers to, as "module name". Raises ImplausibleError for one that is not loaded."""
    module, _, attribute = argument.partition(" ")
    name = f"{'builtins' if module == '__builtin__' else module}.{attribute}"
    if name in KNOWN or STORAGE.fullmatch(name) or (module == "torch" and _dtype(name)):
        return name
    raise ImplausibleError(f"it holds a pickled {name[:100]}, and nothing but tensors is loaded")


def _dtype(name: str) -> torch.dtype | None:
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else None


def _is_encoded(given: list[_Value]) -> bool:
    """Whether these are the arguments that bytes are pickled as: none, or their text and its encoding."""
    return not given or (isinstance(given[0].content, str) and [v.content in ENCODINGS for v in given[1:]] == [True])


def _tensor(name: str, given: list[_Value]) -> _Value:
    """The tensor that such a call rebuilds. Raises ImplausibleError where its storage has no room for it."""
    if len(given) < 4 or given[0].kind != "storage" or any(value.kind != "tuple" for value in given[2:4]):
        raise ImplausibleError("it rebuilds a tensor of what is none")
    storage, offset = given[0], given[1].number()
    size, strides = ([value.number() for value in each.content] for each in given[2:4])
    if len(size) != len(strides) or len(size) > MOST_DIMENSIONS:
        raise ImplausibleError(f"a tensor in it has {len(size)} dimensions and strides of {len(strides)}")
    item_bytes = storage.item_bytes
    if name.endswith("_v3"):
        dtype = _dtype(str(given[6].content)) if len(given) > 6 and given[6].kind == "name" else None
        if dtype is None:
            raise ImplausibleError("a tensor in it has no dtype")
        item_bytes = dtype.itemsize
    if len(given) > 5 and (given[5].kind != "dict" or given[5].content):
        raise ImplausibleError("a tensor in it has hooks")
    end = offset + 1 + sum((length - 1) * stride for length, stride in zip(size, strides, strict=True))
    # by strides of 0, a few bytes would be the elements of any number
    if all(size) and max(end, prod(size)) * item_bytes > storage.content:
        raise ImplausibleError(
            f"a tensor in it is said to have {prod(size):,} elements, but its storage has {storage.content:,} bytes"
        )
    return _Value("tensor", weight=CONTAINER)


def require_plausible(path: Path) -> None:
    """Raise ImplausibleError where the file says what none that PyTorch wrote does, before anybody believes it.

    Raises DamagedError where an archive has other bytes than were written, and what zipfile and pickletools raise where
    it is no whole archive, or no pickle.
    """
    if not path.is_file():
        raise ImplausibleError("it is no regular file")
    with path.open("rb") as file:
        begin = file.read(512)
        if not begin.startswith((ARCHIVE, OLDER_FORMAT)):
            raise ImplausibleError("it is a file of another kind" if begin else "it is empty")
        with suppress(tarfile.HeaderError):
            tarfile.TarInfo.frombuf(begin, "utf-8", "surrogateescape")
            raise ImplausibleError("it is a tar archive")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            if begin.startswith(ARCHIVE):
                if sum(1 for _ in islice(re.finditer(b"PK\x01\x02", mapped), MOST_ENTRIES + 1)) > MOST_ENTRIES:
                    raise ImplausibleError(f"it has more than {MOST_ENTRIES:,} entries")
                _require_plausible_archive(path, mapped)
            else:
                _require_plausible_stream(mapped)


def _require_plausible_archive(path: Path, mapped: mmap.mmap) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # before anything is read of one, which may be a little that stands for a lot
        if sum(entry.file_size for entry in entries) > len(mapped):
            raise ImplausibleError("its entries are said to be larger than the file")
        # else what is read here need not be what PyTorch's own reader finds
        prefix = entries[0].orig_filename.partition("/")[0] if entries else ""
        names = {entry.orig_filename.casefold() for entry in entries}
        ours = all(entry.orig_filename == entry.filename for entry in entries)
        ours &= all(entry.filename.startswith(f"{prefix}/") for entry in entries)
        ours &= all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if len(names) < len(entries) or not ours or min(entry.header_offset for entry in entries):
            raise ImplausibleError("it is an archive of another kind")
        require_whole(path)
        found = {entry.filename.removeprefix(f"{prefix}/"): entry for entry in entries}
        if "data.pkl" not in found:
            raise ImplausibleError("it is an archive of another kind")

        def reserve(key: str, claimed: int) -> None:
            there = found[f"data/{key}"].file_size if f"data/{key}" in found else 0
            if claimed > there:
                raise ImplausibleError(
                    f"its storage {key!r} is said to have {claimed:,} bytes, but there are {there:,}"
                )

        _Follower(reserve).follow(_content(mapped, found["data.pkl"]))


def _content(mapped: mmap.mmap, entry: zipfile.ZipInfo) -> bytes:
    """What an entry that is not compressed holds, also where it was written without its checksum."""
    name, extra = struct.unpack_from("<2H", mapped, entry.header_offset + 26)
    begin = entry.header_offset + 30 + name + extra
    return mapped[begin : begin + entry.file_size]


def _require_plausible_stream(mapped: mmap.mmap) -> None:
    left = len(mapped)

    def reserve(key: str, claimed: int) -> None:
        nonlocal left
        left -= claimed
        if left < 0:
            raise ImplausibleError("its storages are said to be larger than the file")

    follower = _Follower(reserve)
    for _ in range(OLDER_PICKLES):
        follower.follow(mapped)
