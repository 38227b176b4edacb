"""Files that look like PyTorch's and ask for more than they hold; and what is done with any bytes at all."""

from __future__ import annotations

import io
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from engine.models.state_dict import load_file
from engine.models.weights import find_weights
from tests import toy

HUGE = 1_150_000_000  # elements: 4.6 GB of float32


class Storage:
    """A storage as a pickle names it: its kind, its key and how many elements it is said to have."""

    def __init__(self, kind: type, key: str, elements: int) -> None:
        self.id = ("storage", kind, key, "cpu", elements)


class Call:
    """What is pickled as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.parts


class _Pickler(pickle.Pickler):
    def persistent_id(self, found: Any) -> Any:
        return found.id if isinstance(found, Storage) else None


def pickled(content: Any) -> bytes:
    """The pickle of what `content` stands for."""
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(content)
    return stream.getvalue()


def archive(
    pickle: bytes, storages: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED, name: str = "a"
) -> bytes:
    """A file as PyTorch has written it since 1.6."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        file.writestr(f"{name}/data.pkl", pickle)
        for key, content in (storages or {}).items():
            file.writestr(f"{name}/data/{key}", content)
        file.writestr(f"{name}/version", "3\n")
    return stream.getvalue()


def older(content: Any, keys: list[str], storages: bytes = b"") -> bytes:
    """A file as PyTorch wrote it before."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    begin = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join([*begin, pickled(content), pickle.dumps(keys, 2), storages])


def tensor(
    storage: Storage, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, hooks: Any = None
) -> Call:
    """What PyTorch pickles a tensor as."""
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, hooks or OrderedDict())


def floats(key: str = "0", elements: int = 4) -> Storage:
    """A storage of float32."""
    return Storage(torch.FloatStorage, key, elements)


def looped() -> bytes:
    """The pickle of a dict that is its own entry "model"."""
    content: dict[str, Any] = {}
    content["model"] = content
    return pickled(content)


def nested(depth: int, key: str = "model") -> bytes:
    """The pickle of a dict in a dict in a dict."""
    return b"\x80\x02" + (b"}X" + struct.pack("<I", len(key)) + key.encode()) * depth + b"}" + b"s" * depth + b"."


def doubled(times: int) -> list[Any]:
    """A list of 2 to the power of so many, which takes no room."""
    content: list[Any] = [0]
    for _ in range(times):
        content = [content, content]
    return content


def overlapping(entries: int, size: int) -> bytes:
    """An archive of which all storages are the same bytes."""
    body = archive(pickled({}), {"0": bytes(size)})
    end = body.rindex(b"PK\x05\x06")
    begin = body.index(b"PK\x01\x02")
    central, one = body[begin:end], body[body.index(b"PK\x01\x02", begin + 4) :]
    one = one[: one.index(b"PK\x01\x02", 4)]
    more = b"".join(one[:-1] + bytes([65 + number]) for number in range(entries))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3 + entries, 3 + entries, len(central + more), begin, 0)
    return body[:begin] + central + more + tail


FOUR = bytes(16)  # the bytes of four float32
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a tensor larger than its storage": lambda: archive(pickled({"a": tensor(floats(), (HUGE,), (1,))}), {"0": FOUR}),
    "a tensor of strides 0": lambda: archive(pickled({"a": tensor(floats(), (HUGE,), (0,))}), {"0": FOUR}),
    "a tensor that begins behind its storage": lambda: archive(
        pickled({"a": tensor(floats(), (4,), (1,), offset=1)}), {"0": FOUR}
    ),
    "a storage larger than its entry": lambda: archive(
        pickled({"a": tensor(floats(elements=HUGE), (HUGE,), (1,))}), {"0": FOUR}
    ),
    "a storage without an entry": lambda: archive(pickled({"a": tensor(floats("1"), (4,), (1,))}), {"0": FOUR}),
    "a storage of two kinds": lambda: archive(
        pickled({"a": Storage(torch.DoubleStorage, "0", 2), "b": tensor(floats(), (4,), (1,))}), {"0": FOUR}
    ),
    "a bytearray of a size": lambda: archive(pickled(Call(bytearray, HUGE))),
    "a tensor of a size": lambda: archive(pickled(Call(torch.Tensor, HUGE))),
    "a zip bomb": lambda: archive(
        pickled({"a": tensor(floats(elements=1 << 26), (1 << 26,), (1,))}), {"0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED
    ),
    "overlapping entries": lambda: overlapping(60, 1 << 16),
    "two entries of a name": lambda: archive(pickled({}), {"0": FOUR, "A": b""}).replace(b"a/data/A", b"A/DATA/0"),
    "bytes before the archive": lambda: b"PK\x03\x04" + bytes(100) + archive(pickled({})),
    "many empty lists": lambda: archive(b"\x80\x02" + b"]" * 2_000_000 + b"."),
    "many marks": lambda: archive(b"\x80\x02" + b"(" * 2_000_000 + b"."),
    "a text of millions of letters": lambda: archive(b"\x80\x02X\x80\x96\x98\x00" + b"a" * 10_000_000 + b"."),
    "a text larger than the file": lambda: archive(b"\x80\x02X\xff\xff\xff\xffabc."),
    "a dict in itself": lambda: archive(looped()),
    "a thousand dicts in each other": lambda: archive(nested(1000)),
    "a hundred thousand lists in each other": lambda: archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "a list doubled often": lambda: archive(pickled({"schema": 3, "run": doubled(60)})),
    "a tuple doubled often for a key": lambda: archive(b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01s."),
    "numbers that share their hash": lambda: archive(
        pickled({(2**61 - 1) * number: None for number in range(1, 1000)})
    ),
    "attributes in the place of methods": lambda: archive(b"\x80\x02ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb."),
    "hooks": lambda: archive(pickled({"a": tensor(floats(), (4,), (1,), hooks={"0": 1})}), {"0": FOUR}),
    "a tensor of a thousand dimensions": lambda: archive(
        pickled({"a": tensor(floats(), (1,) * 1000, (1,) * 1000)}), {"0": FOUR}
    ),
    "a size below 0": lambda: archive(pickled({"a": tensor(floats(), (-4,), (1,))}), {"0": FOUR}),
    "a text for a size": lambda: archive(
        pickled({"a": Call(torch._utils._rebuild_tensor_v2, floats(), 0, ("4",), (1,), False, OrderedDict())}),
        {"0": FOUR},
    ),
    "a quantized storage": lambda: archive(pickled({"a": Storage(torch.QInt8Storage, "0", 4)}), {"0": FOUR}),
    "a function that writes": lambda: archive(pickled({"a": Call(Path.touch, "x")})),
    "the older format, a storage larger than the file": lambda: older(
        {"a": tensor(floats(elements=HUGE), (HUGE,), (1,))}, ["0"], struct.pack("<q", HUGE)
    ),
    "the older format, a tensor larger than its storage": lambda: older(
        {"a": tensor(floats(), (HUGE,), (1,))}, ["0"], struct.pack("<q", 4) + FOUR
    ),
    "the older format, many storages": lambda: older(
        [tensor(floats(str(key), 1 << 20), (4,), (1,)) for key in range(1000)], ["0"], bytes(1 << 22)
    ),
    "a tar archive": lambda: tar(),
}


def tar() -> bytes:
    """A tar archive whose first name is what the older format begins with, and whose next header is of 8 GB."""
    import tarfile

    info = tarfile.TarInfo("x")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    begin = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    header[: len(begin)] = begin
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    longer = tarfile.TarInfo("x")
    longer.type, longer.size = tarfile.XHDTYPE, 0o77777777777
    return bytes(header) + longer.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


def load_bytes(data: bytes) -> None:
    """Give `data` to `--weights` as a file of the toy backbone's. A refusal is well; whatever else is raised is not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        path.write_bytes(data)
        try:
            find_weights(toy.TINY, str(path))
            load_file(toy.tiny(), path, toy.TINY.head, "tiny")
        except UserError:
            pass
