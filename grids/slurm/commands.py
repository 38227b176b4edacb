"""Slurm's own commands: what is asked of them, and what they answer."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import UserError

PATIENCE = 120.0  # seconds that a command may take where Slurm is busy
MOST_NAMED = 500  # jobs in one command line
DEFAULT_MOST_TASKS = 1001  # MaxArraySize, where nobody set it: https://slurm.schedmd.com/slurm.conf.html

# variables by which a user's own settings would hide tasks, ask for a word, or outweigh what a script says
OTHERS = re.compile(
    "(SQUEUE|SINFO|SCANCEL|SACCT)_.*"
    "|SBATCH_(ARRAY_INX|CLUSTERS|ERROR|INPUT|JOB_NAME|NO_REQUEUE|OPEN_MODE|OUTPUT|REQUEUE|SIGNAL|WAIT)"
)

# of https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES: a job is in one of these for good, or has a
# processor; in all others, such as PENDING, CONFIGURING or REQUEUED, it waits
ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    )
)
AT_WORK = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING"))


class CommandError(Exception):
    """A command of Slurm's failed; the message is what it said."""


@dataclass(frozen=True)
class Task:
    """One task of an array job, as squeue sees it."""

    job: str  # the array job's number
    index: int
    state: str
    reason: str  # why it waits, or how it ended
    node: str
    seconds: float  # that it has run for
    name: str  # its job's

    @property
    def id(self) -> str:
        """As scancel takes it."""
        return f"{self.job}_{self.index}"


@dataclass(frozen=True)
class End:
    """How a task ended, as Slurm has it."""

    state: str
    code: int | None  # its exit code, negative for a signal; None: unknown
    seconds: float = 0.0
    limit: float | None = None  # seconds that it was given; None: no limit, or unknown
    node: str = ""


def ask(*command: str) -> str:
    """What a command of Slurm's prints. CommandError: it fails. UserError: it is not there."""
    environment = {name: value for name, value in os.environ.items() if not OTHERS.fullmatch(name)}
    try:
        answer = subprocess.run(  # noqa: S603 (Slurm's own commands)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env=environment,
        )
    except FileNotFoundError:
        raise UserError(
            f"--slurm: there is no command {command[0]} here. Expected a machine from which jobs are submitted, such "
            "as the login node of a cluster. Without --slurm, the cells run on this machine."
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"{command[0]} gave no answer in {PATIENCE:g} seconds") from None
    except OSError as problem:
        raise CommandError(f"{command[0]} can't be started: {problem}") from problem
    if answer.returncode:
        said = " ".join((answer.stderr.strip() or answer.stdout.strip()).split())
        raise CommandError(said or f"{command[0]} ended with exit code {answer.returncode}")
    return answer.stdout


def most_tasks() -> int:
    """How many tasks an array job may have here."""
    try:
        match = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    except CommandError:
        match = None
    return max(1, int(match[1])) if match else DEFAULT_MOST_TASKS


def nodes(partition: str | None) -> list[tuple[int, int]]:
    """The processors and GPUs of each kind of node, of one partition or of all. CommandError: Slurm does not answer."""
    where = [] if partition is None else [f"--partition={partition}"]
    kinds = []
    for line in ask("sinfo", "--noheader", "--exact", *where, "--format=%c|%G").splitlines():
        processors, _, resources = line.strip().partition("|")
        # "gpu:8", "gpu:a100:4(S:0-1)", "gpu:a100:2,gpu:v100:2,license:3"
        gpus = sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^,:()]+)?:(\d+)", resources))
        kinds.append((int(re.sub(r"\D.*", "", processors) or 1), gpus))
    return kinds


def submit(script: str) -> str:
    """Submit a script, and return the job's number. CommandError: Slurm refuses it."""
    return ask("sbatch", "--parsable", script).strip().partition(";")[0]


def tasks_of(names: Iterable[str]) -> list[Task]:
    """The tasks that Slurm knows of in jobs of these names, those that ended lately too."""
    asked = sorted(names)
    found: list[Task] = []
    for first in range(0, len(asked), MOST_NAMED):
        named = ",".join(asked[first : first + MOST_NAMED])
        fields = "--format=%F|%K|%T|%r|%N|%M|%j"
        answer = ask("squeue", "--noheader", "--array", "--states=all", f"--name={named}", fields)
        for line in answer.splitlines():
            job, index, state, reason, node, used, name = (line.strip().split("|", 6) + [""] * 6)[:7]
            if index.isdecimal():  # else one that was submitted by hand without --array
                found.append(Task(job, int(index), state, reason, node, clock(used) or 0.0, name))
    return found


def end_of(task: Task) -> End:
    """How a task that has ended did so: asked of the controller while it remembers, then of the accounts, if any."""
    try:
        shown = ask("scontrol", "show", "job", "--oneliner", task.id)
        found = dict(re.findall(r"(\w+)=(\S+)", shown))
        code = _code(found.get("ExitCode", ""))
        seconds = clock(found.get("RunTime", "")) or task.seconds
        return End(
            found.get("JobState", task.state), code, seconds, clock(found.get("TimeLimit", "")), found["NodeList"]
        )
    except (CommandError, UserError, KeyError):
        pass
    try:
        fields = "--format=State,ExitCode,ElapsedRaw,TimelimitRaw,NodeList"
        answer = ask("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", task.id, fields)
        state, said, elapsed, minutes, node = answer.splitlines()[-1].split("|")
        limit = 60.0 * int(minutes) if minutes.isdecimal() else None
        return End(state.partition(" ")[0], _code(said), float(elapsed or 0), limit, node)
    except (CommandError, UserError, IndexError, ValueError):  # no accounts are kept
        return End(task.state if task.state in ENDED else "", None, task.seconds, None, task.node)


def _code(text: str) -> int | None:
    """Slurm's "130:0" and "0:9" as an exit code: 130, -9."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (-int(match[2]) if int(match[2]) else int(match[1])) if match else None


def clock(text: str) -> float | None:
    """The seconds of Slurm's [days-][hours:]minutes:seconds; None: it is no such time, as "UNLIMITED"."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def cancel(ids: Sequence[str], *options: str) -> None:
    """Cancel tasks, or send them a signal. CommandError: of one at least Slurm refuses it, as when it has ended."""
    for first in range(0, len(ids), MOST_NAMED):
        ask("scancel", *options, *ids[first : first + MOST_NAMED])


def exclude(ids: Sequence[str], nodes: Sequence[str]) -> None:
    """Let tasks that wait begin on none of these nodes. CommandError: Slurm refuses it, perhaps of some alone."""
    for first in range(0, len(ids), MOST_NAMED):
        jobs = ",".join(ids[first : first + MOST_NAMED])
        ask("scontrol", "update", f"JobId={jobs}", f"ExcNodeList={','.join(nodes)}")
