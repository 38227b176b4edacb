"""A dataset's files on the disk: found, or downloaded from its mirrors, verified and extracted."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin

from engine.console import bar
from engine.data.archives import extract
from engine.data.checksums import forget, renamed
from engine.data.declaration import Dataset, File
from engine.data.locate import description, locate, verify_placed, wanted, what_is_wrong
from engine.data.place import placed, present, require_place
from engine.errors import UserError, disk_errors_explained, one_line
from engine.files import atomic, locked
from engine.processes.heartbeat import alive

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 30.0  # the longest wait for the next bytes
ROOM = "Expected a folder that can be read and, while something is still to be fetched, written to, with room for it"


def obtain(dataset: Dataset, data_dir: Path) -> Path:
    """The folder that holds the dataset's files; what is not there yet is downloaded, verified and extracted.

    It is `data_dir / dataset.folder`; `data_dir` itself where that is the extracted folder, or where the dataset
    has no folder: then nothing is extracted, and its files (if any) lie verified in `data_dir`. Plain files that
    come beside archives are put into the folder together with what the archives hold.

    A folder that exists is taken as it is and never written to. A file that the user put there is never changed.
    UserError: a file is not the published one, cannot be downloaded, extracted or written, or would be downloaded into
    a folder that is not there or has other things in it. RunError: disk full.
    """
    with disk_errors_explained("can't use", data_dir, f"{ROOM}: mend that, or choose another folder with --data-dir."):
        if folder := present(dataset, data_dir):
            return folder
        require_place(dataset, data_dir)
        made = not data_dir.exists()
        try:
            with _locked(data_dir):
                return present(dataset, data_dir) or _fetch_and_extract(dataset, data_dir)
        finally:
            if made:
                with suppress(OSError):
                    data_dir.rmdir()  # where nothing came of it


def _fetch_and_extract(dataset: Dataset, data_dir: Path) -> Path:
    """`obtain`, for whoever holds the lock, where something is still to be done."""
    files = wanted(dataset, data_dir)
    _remove_leftovers(data_dir, dataset.folder, files)
    if dataset.folder:  # extracted once: no memory stands for what is in an archive then
        for file in files:
            forget(data_dir, file.name)
    # look at what the user put there before anything long
    for file in sorted(files, key=lambda file: not (data_dir / file.name).exists()):
        if not placed(dataset, file, data_dir):
            _download(file, data_dir, f"; see {dataset.page}", remember=True)
    if not dataset.folder:
        return data_dir
    extract(dataset, files, data_dir)
    folder = locate(dataset, data_dir)
    assert folder is not None  # extract() has made it
    return folder


def fetch(file: File, folder: Path) -> Path:
    """The path of `file` in `folder`, verified, and downloaded if it was not there. Errors as in `obtain`."""
    path = folder / file.name
    with disk_errors_explained("can't use", folder, f"{ROOM}: mend that, or put the file there by hand."):
        if not verify_placed(file, folder, remember=False):
            with _locked(folder):
                _remove_leftovers(folder, "", [file])
                if not verify_placed(file, folder, remember=False):
                    _download(file, folder, "", remember=False)
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time downloads into and extracts in `folder`; the others wait. No file is left of it."""
    lock = folder / ".download.lock"
    with locked(lock, f"another process downloads into {folder}"):
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()  # who waits for this one sees that it is gone, and makes another


def _remove_leftovers(data_dir: Path, folder: str, wanted: Sequence[File]) -> None:
    """Remove what killed processes left. Whoever writes here holds the lock, so nobody uses it any more."""
    downloads = tuple(f".{file.name}." for file in wanted)
    for entry in data_dir.iterdir():
        if folder and entry.name.startswith(f".{folder}.") and entry.name.endswith(".partial"):
            entry.unlink() if entry.is_symlink() or entry.is_file() else shutil.rmtree(entry)
        elif entry.name.startswith(downloads) and entry.name.endswith(".tmp"):
            entry.unlink()


class _Bar:
    """What pooch tells how far a download has come: shown, and a sign of life. To pooch, a false one is none."""

    def __init__(self, name: str) -> None:
        self._shown = bar(desc=name, unit="B", unit_scale=True)

    @property
    def total(self) -> float | None:
        """Bytes; None, or 0: the server did not say."""
        return self._shown.total

    @total.setter
    def total(self, size: float | None) -> None:
        self._shown.reset(total=size)

    def update(self, size: float) -> None:
        """So many bytes more have come."""
        alive("downloading")
        self._shown.update(size)

    def reset(self) -> None:
        """None has come."""
        self._shown.reset()

    def close(self) -> None:
        """All have come."""
        self._shown.close()


def _download(file: File, folder: Path, see: str, remember: bool) -> None:
    """Download `file` from the first mirror that has it; it gets its name only once it is whole and verified."""
    import requests
    import urllib3
    from pooch import HTTPDownloader

    def as_sent(response: requests.Response, **_: Any) -> None:
        # some servers label a .tar.gz "Content-Encoding: gzip", and requests would then unpack it on the way
        response.raw.headers.pop("Content-Encoding", None)
        if file.checksum is None:
            refuse_plain(response)

    def download(url: str, output: BinaryIO) -> None:
        HTTPDownloader(
            progressbar=_Bar(file.name),
            chunk_size=1 << 16,
            timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
            headers={"Accept-Encoding": "identity"},
            hooks={"response": as_sent},
        )(url, output, None)

    failures = ""
    for url in file.urls:
        _say(f"downloading {file.name} from {url}")
        try:
            with atomic(folder / file.name) as output:
                download(url, output)
                output.flush()
                if wrong := what_is_wrong(file, Path(output.name), remember):
                    raise ValueError(wrong)
            if remember:
                renamed(folder / file.name)
            return
        # ValueError: also what pooch raises for a senseless header. OSError: requests raises a bare one, without a
        # number, for a missing certificate bundle; one with a number comes from the disk.
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            if isinstance(error, OSError) and error.errno and not isinstance(error, requests.RequestException):
                raise
            failures += f"\n  {url}\n    {_reason(error)}"
    raise UserError(
        f"{file.name} could not be downloaded from{failures}\nCheck the network, or get {file.name} by "
        f"hand ({description(file)}{see}), put it into {folder.absolute()} and run the same command again."
    )


def refuse_plain(response: "requests.Response") -> None:
    """ValueError: the response sends on from https to where anyone on the way could change what is sent."""
    target = urljoin(response.url, response.headers.get("Location", "")) if response.is_redirect else response.url
    if response.url.startswith("https:") and not target.startswith("https:"):
        raise ValueError(f"redirected to {target}, without TLS")


def _reason(error: BaseException) -> str:
    """Why a download failed, in a few words: the libraries wrap the cause in up to five exceptions."""
    import http.client
    import socket
    import ssl

    import requests
    import urllib3

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be used"
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    timeouts = (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)
    for link in reversed(chain):
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"TLS certificate refused: {link.verify_message}"
        if isinstance(link, ssl.SSLError):
            return f"TLS error: {(link.reason or 'unknown').replace('_', ' ').lower()}"
        if isinstance(link, socket.gaierror):
            return "host name not found"
        if isinstance(link, urllib3.exceptions.IncompleteRead | http.client.IncompleteRead):
            sent = link.partial if isinstance(link.partial, int) else len(link.partial)
            return f"connection cut after {sent:,} bytes"
        if isinstance(link, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError):
            connecting = any(isinstance(outer, timeouts) for outer in chain)
            return f"no connection in {CONNECT_SECONDS:g} s" if connecting else f"silent for {SILENCE_SECONDS:g} s"
        if isinstance(link, OSError) and link.strerror:
            return link.strerror.lower()
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)
