"""The Ray cluster that a grid's cells are to run on: found and entered, or started here, and left at the end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.environment import git_changed, git_commit
from engine.errors import UserError
from engine.paths import PROJECT
from engine.processes.heartbeat import COMMIT
from grids.on_ray.address import AUTO, LOCAL
from grids.on_ray.nodes import node_of
from grids.on_ray.places import RayPlaces

ANSWER_SECONDS = 5.0  # for a port to be open
HEALTH_SECONDS = 30.0  # for Ray to say that it is there
STORE_BYTES = 100 << 20  # of a Ray that is started here: nothing large travels
INSTALL = "pip install -r requirements-ray.txt"
NOT_SENT = ("tests", "benchmarks")  # packages that no cell needs


@contextmanager
def ray_places(address: str, device: str, per_gpu: int, out: Path) -> Iterator[RayPlaces]:
    """The places of the cluster at `address`, "HOST:PORT", "auto" (the one that this machine belongs to) or LOCAL.

    device: as --device has it; on "auto" cells run on cards where the cluster has any. UserError: there is no such
    cluster, or not with such devices.
    """
    if device == "cpu" and per_gpu > 1:
        raise UserError(f"--per-gpu {per_gpu}: on processors a node runs one cell at a time, with all of its cores.")
    with entered(address) as ray:
        nodes = ray.nodes()
        cuda = device in ("cuda", "auto") and any(node_of(each, True, per_gpu) for each in nodes)
        if device == "cuda" and not cuda:
            raise UserError(
                f"--device cuda: no node of the Ray cluster {_named(address)} has a GPU, as Ray counts them. Expected "
                "one at least: `ray start --num-gpus N` says how many a node has; or leave --device out."
            )
        if not any(node_of(each, cuda, per_gpu) for each in nodes):
            raise UserError(f"no node of the Ray cluster {_named(address)} has a CPU for cells. Expected one at least.")
        yield RayPlaces(cuda, per_gpu, out)


def _named(address: str) -> str:
    return "that is started here" if address == LOCAL else f"at {address}"


@contextmanager
def entered(address: str) -> Iterator[Any]:
    """The package ray, connected. UserError: it is not installed, or nothing that it can use is at that address."""
    ray = _package()
    if address != LOCAL:
        _require_answer(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = Path(tempfile.mkdtemp(prefix="which-backbone-"))
    try:
        _init(ray, address, folder)
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in handlers.items():  # Ray has put its own there
            signal.signal(number, handler)
        yield ray
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        ray.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _package() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as the next version has it, and says so
    try:
        import ray
    except ImportError as problem:
        raise UserError(f"--ray needs the package ray ({problem}): {INSTALL}") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    worker: Any = ray._private.worker
    if hasattr(worker, "print_to_stdstream"):  # what befell a node, in fifty lines among the grid's
        worker.print_to_stdstream = lambda *_, **__: None
    return ray


def _init(ray: Any, address: str, folder: Path) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "address": address}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    # also for a Ray on this machine, which would else import what lies in the folder of the command under our names
    environment: dict[str, Any] = {"working_dir": str(copied(folder / "project"))}
    if commit := git_commit():
        environment["env_vars"] = {COMMIT: f"{commit}{' changed' if git_changed() else ''}"}
    try:
        ray.init(runtime_env=environment, **options)
    except (RuntimeError, ConnectionError, ValueError, OSError, ray.exceptions.RayError) as problem:
        lines = [line.strip() for line in str(problem).strip().splitlines() if line.strip()]
        if lines and lines[0].startswith("Version mismatch"):
            raise UserError(
                f"--ray {address}: {' '.join(lines)}. Expected the same Ray and Python on all nodes."
            ) from problem
        what = "Ray can't be started here" if address == LOCAL else f"the Ray cluster at {address} can't be used"
        raise UserError(f"--ray: {what}: {lines[0] if lines else type(problem).__name__}") from problem


def copied(folder: Path) -> Path:
    """Copy what cells need of the project, without data, records, tests and what installs make, to the new `folder`."""
    folder.mkdir(parents=True)
    for script in PROJECT.glob("*.py"):
        shutil.copy2(script, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for package in sorted(PROJECT.iterdir()):
        if (package / "__init__.py").is_file() and package.name not in NOT_SENT:
            shutil.copytree(package, folder / package.name, ignore=ignored)
    return folder


def _require_answer(address: str) -> None:
    """UserError: no Ray answers there. Ray itself would try for two minutes, and then end the process."""
    nobody = (
        f"--ray {address}: no Ray cluster answers there. Expected the address of its head, such as 10.0.0.1:6379, or "
        "auto on one of its nodes. `ray start --head` starts one; --ray alone runs one here for this grid."
    )
    if address != AUTO:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
        except OSError:
            raise UserError(nobody) from None
    where = [] if address == AUTO else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check", *where]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HEALTH_SECONDS)  # noqa: S603 (Ray's own)
    except subprocess.TimeoutExpired:
        raise UserError(nobody) from None
    if done.returncode and address == AUTO:
        raise UserError(nobody)
