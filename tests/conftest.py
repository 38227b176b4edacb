"""What several test modules share."""

import gc
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import common
from common import Dataset
from tests import toy
from tests.server import Server

SHARED = Path(__file__).resolve().parents[2] / "shared"

Command = Callable[..., int]


# what takes minutes in one file, which one process runs: begun last, it would run alone at the end
LONG = (
    "test_dry_card.py",
    "test_browser.py",
    "test_faults.py",
    "test_benchmarks.py",
    "test_one_home.py",
    "test_docs.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """What was imported lasts as long as the tests: a run that frees memory need not look through all of it."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images in their datasets' own layouts, beside the checkout of the developers and of CI."""
    if not (SHARED / "data" / "SOURCES.md").is_file():
        if os.environ.get("REQUIRE_SHARED_DATA"):
            pytest.fail(f"{SHARED / 'data'} must be whole here")
        pytest.skip(f"needs the real image subsets in {SHARED / 'data'}")
    return SHARED / "data"


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own: a plan that one run measured is the plan of all runs like it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a dataset script's command line in this process, in a folder of its own, and returns its exit code.

    It runs on the processor, unless the line names a device.
    """
    monkeypatch.setitem(common.BACKBONES, "tiny", toy.TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def run(line: str, dataset: Dataset | None = None) -> int:
        with pytest.raises(SystemExit) as end:
            common.main(dataset or toy.dataset(), on_the_processor(shlex.split(line)))
        return end.value.code if isinstance(end.value.code, int) else 1

    return run


def on_the_processor(arguments: list[str]) -> list[str]:
    """The same command line, on the processor unless it names a device."""
    named = any(argument.partition("=")[0] == "--device" for argument in arguments)
    return arguments if named else [*arguments, "--device", "cpu"]


def only_run(out: Path) -> Path:
    """The folder of the one run under `out`."""
    (record,) = out.glob("*/*/*/record.json")
    return record.parent


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.go_on.set()
        server.shutdown()
