"""benchmarks/card.sh: what it does with what its steps say, by a Python that only says it."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.paths import PROJECT

FAKE = r"""#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case $1 in
  -c) exit "${FAKE_LACKS:-0}" ;;
  -) cat > /dev/null; echo "torch 2.11.0" ;;
  -m)
    if [ "$2" = zipfile ]; then exec "$REAL" "$@"; fi
    if [ -n "${FAKE_HANGS:-}" ]; then
      trap 'echo "tests so far"; exit 2' INT
      while true; do sleep 0.05; done
    fi
    exit "${FAKE_PYTEST:-0}"
    ;;
  digits.py)
    while [ "$1" != --out ]; do shift; done
    mkdir -p "$2/run"
    echo "{}" > "$2/run/record.json"
    if [[ " $* " = *" --seed 1 "* ]] && [ ! -e "$2/interrupted" ]; then
      touch "$2/interrupted"
      trap 'exit 130' USR1
      echo " epoch  stage"
      echo "     1  adamw"
      while true; do sleep 0.05; done
    fi
    ;;
  benchmarks/speed.py)
    echo "site: ${PYTHONPATH:-}"
    if [ -n "${FAKE_HANGS:-}" ]; then
      trap 'echo "the table so far"; exit 130' INT
      while true; do sleep 0.05; done
    fi
    ;;
esac
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for a shell")


class Card:
    """The script, and the folder that it works in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.python = folder / "python"
        self.python.write_text(FAKE)
        self.python.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        given = {"PYTHON": str(self.python), "OUT": str(self.out), "CALLS": str(self.folder / "calls")}
        command = [str(PROJECT / "benchmarks" / "card.sh"), *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | given | {"REAL": sys.executable} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def log(self, name: str) -> str:
        """What there is so far of a log in OUT, or of the calls; "" where there is none."""
        path = self.folder / name if name == "calls" else self.out / f"{name}.log"
        return path.read_text() if path.exists() else ""

    @property
    def calls(self) -> list[str]:
        """Every command line of Python's so far."""
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_its_tests_run_to_their_end_and_go_on_from_an_interruption(card: Card) -> None:
    done = card.run("tests")
    assert done.returncode == 0, done.stdout
    steps = ("cuda-tests", "a run to its end", "a run that is asked to stop", "the rest of it", "slow-cuda-tests")
    places = [done.stdout.index(f"== {step}: ok") for step in steps]
    assert places == sorted(places)
    assert "torch 2.11.0" in done.stdout
    assert {path.name for path in card.out.iterdir()} == {"tests.log", "run.json"}
    assert (card.out / "tests.log").read_text() == done.stdout
    tests = [call for call in card.calls if "pytest" in call]
    assert ["cuda and not slow" in call for call in tests] == [True, False]
    for call in tests:
        # those files alone: others import what a bare machine lacks
        assert "tests/engine/models/test_backbones.py" in call
        assert "tests/reporting" not in call
    runs = [call for call in card.calls if call.startswith("digits.py")]
    assert len(runs) == 3
    assert all("-model mobilenet -bs 64 --weights none --device cuda" in run for run in runs)
    assert runs[1] == runs[2]


def test_a_step_that_fails_takes_no_other_with_it_and_is_the_end_of_it(card: Card) -> None:
    done = card.run("tests", FAKE_PYTEST="1")
    assert done.returncode == 1
    assert "== cuda-tests: FAILED" in done.stdout
    assert "== the rest of it: ok" in done.stdout


def test_speed_is_of_every_backbone_the_cheapest_first(card: Card) -> None:
    done = card.run("speed", CARD_FLAGS="--rounds 1 --no-hold")
    assert done.returncode == 0, done.stdout
    (speed,) = [call for call in card.calls if call.startswith("benchmarks/speed.py")]
    assert "--columns plain ours ceiling" in speed
    assert "--models mobilenet shufflenet efficientnet" in speed
    assert speed.endswith(" --rounds 1 --no-hold")
    assert f"--device cuda --out {card.out}" in speed


def test_speed_that_takes_too_long_is_interrupted(card: Card) -> None:
    done = card.run("speed", CARD_SECONDS="2", FAKE_HANGS="1")
    assert done.returncode == 1
    assert "the table so far" in done.stdout
    assert "== speed: FAILED" in done.stdout
    assert "exit code 124" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="env of others can't give signals back")
@pytest.mark.parametrize(
    ("command", "begun", "said"), [("speed", "site:", "the table so far"), ("tests", "-v -r", "tests so far")]
)
def test_ctrl_c_ends_what_it_started_and_keeps_what_was_said(card: Card, command: str, begun: str, said: str) -> None:
    given = {"PYTHON": str(card.python), "OUT": str(card.out), "CALLS": str(card.folder / "calls"), "FAKE_HANGS": "1"}
    script = ["env", "--default-signal=INT", str(PROJECT / "benchmarks" / "card.sh"), command]
    process = subprocess.Popen(script, env=os.environ | given, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: begun in card.log(command) + card.log("calls"))
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
        assert process.returncode == 130
        assert said in card.log(command)
        assert not any(call.startswith("digits.py") for call in card.calls)
        # the group is gone with all that was started in it
        wait_for(lambda: not alive(process.pid))
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def alive(group: int) -> bool:
    """Whether a process of the group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("lacks", ["0", "1"])
def test_wheels_are_used_where_something_lacks(card: Card, lacks: str) -> None:
    wheels = card.folder / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "wavemix-0.2.4-py3-none-any.whl", "w") as wheel:
        wheel.writestr("wavemix/__init__.py", "")
    done = card.run("speed", str(wheels), FAKE_LACKS=lacks, PYTHONPATH="before")
    (site,) = [line for line in done.stdout.splitlines() if line.startswith("site: ")]
    assert site.endswith("/site:before") == (lacks == "1")
    assert f"-m zipfile -e {wheels}/wavemix-0.2.4-py3-none-any.whl" in "\n".join(card.calls) or lacks == "0"
    none = card.run("speed", str(card.folder / "nowhere"), FAKE_LACKS="1")
    assert none.returncode == 0
    assert "wavemix is left out" in none.stdout


def test_packages_are_fetched_for_the_machine_and_not_for_this_one(card: Card) -> None:
    wheels = card.folder / "wheels"
    wheels.mkdir()
    for name in ("wavemix-0.2.3-py3-none-any.whl", "other-1-py3-none-any.whl"):
        (wheels / name).touch()
    done = card.run("--prepare", str(wheels))
    assert done.returncode == 0, done.stdout
    (call,) = card.calls
    assert call.startswith("-m pip download")
    assert "--no-deps" in call
    assert "--python-version 3.12" in call
    assert call.endswith(f"--dest {wheels} wavemix>=0.2.4,<0.3 pywavelets")
    # an older one would be unpacked over the new one
    assert [path.name for path in wheels.iterdir()] == ["other-1-py3-none-any.whl"]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["all"]])
def test_without_a_known_command_it_says_what_there_is(card: Card, arguments: list[str]) -> None:
    done = card.run(*arguments)
    assert done.returncode == 2
    assert "benchmarks/card.sh tests [WHEELS]" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kept"), [("tests", "run.json"), ("speed", "speed.json")])
def test_a_rehearsal_for_real(card: Card, command: str, kept: str) -> None:
    done = card.run(command, PYTHON=sys.executable, CARD_DEVICE="cpu")
    assert done.returncode == 0, done.stdout
    assert "FAILED" not in done.stdout
    assert (card.out / kept).is_file()
