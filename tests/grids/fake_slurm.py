"""Slurm's commands as a program that does what a test has planned: python fake_slurm.py FOLDER COMMAND ARGUMENTS

FOLDER/plan.json has "states": by cell, those that a task of it is seen in, one after the other, as "RUNNING",
"PENDING:Priority", or, where it is not on n7, "RUNNING@n8"; a list of such lists has one for each time that the cell is
submitted. "leaves": by cell, the files that are there once its last state is. "shows" and "accounts": by cell, what
scontrol and sacct say. "refuses": what the next calls of sbatch are refused by, "" for none. "late": whether sbatch
fails though it has done its work. "silent" and "deaf": how many of the next calls of squeue and scancel fail. "most":
how many tasks an array may have. "nodes": what sinfo says. FOLDER/calls.txt has all calls, FOLDER/environment.txt the
names of variables that were set in each.
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

HERE = Path(sys.argv[1] if __name__ == "__main__" else "")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sacct", "sinfo")


def install(folder: Path) -> str:
    """Put the commands into a folder, with what they keep, and return a PATH on which they are."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name in COMMANDS:
        words = shlex.join([sys.executable, "-I", "-S", __file__, str(folder), name])
        (commands / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (commands / name).chmod(0o755)
    return f"{commands}:/usr/bin:/bin"


def read(name: str, otherwise: Any) -> Any:
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else otherwise


def write(name: str, content: Any) -> None:
    (HERE / name).write_text(json.dumps(content))


def fail(message: str) -> None:
    sys.exit(message)  # on stderr, with exit code 1


def sbatch(arguments: list[str]) -> None:
    plan, jobs = read("plan.json", {}), read("jobs.json", [])
    refuses = plan.get("refuses", [])
    refusal = refuses.pop(0) if refuses else ""
    write("plan.json", plan)
    if refusal:
        fail(f"sbatch: error: {refusal}")
    text = Path(arguments[-1]).read_text()
    cells = re.findall(r"^  \d+\) cell=(\S+) ;;$", text, re.MULTILINE)
    match = re.search(r"^#SBATCH --array=0-(\d+)", text, re.MULTILINE)
    name = re.search(r"^#SBATCH --job-name=(\S+)$", text, re.MULTILINE)
    assert match
    assert name
    if int(match[1]) >= plan.get("most", 1001):
        fail("sbatch: error: Batch job submission failed: Invalid job array specification")
    assert len(cells) == int(match[1]) + 1
    tasks = []
    for cell in cells:
        earlier = sum(cell == task["cell"] for job in jobs for task in job["tasks"])
        states = plan["states"].get(cell, ["PENDING:Priority", "RUNNING", "COMPLETED"])
        states = states[min(earlier, len(states) - 1)] if isinstance(states[0], list) else states
        tasks.append({"cell": cell, "states": states, "seen": -1})
    write("jobs.json", [*jobs, {"name": name[1], "tasks": tasks}])
    if plan.get("late"):  # it is taken, though the answer does not come
        fail("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    print(len(jobs) + 100)


def squeue(arguments: list[str]) -> None:
    plan, jobs = read("plan.json", {}), read("jobs.json", [])
    if plan.get("silent", 0) > 0:
        write("plan.json", {**plan, "silent": plan["silent"] - 1})
        fail("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    (names,) = (word.removeprefix("--name=").split(",") for word in arguments if word.startswith("--name="))
    for number, job in enumerate(jobs):
        for index, task in enumerate(job["tasks"] if job["name"] in names else []):
            last = len(task["states"]) - 1
            comes_to_it = task["seen"] < last <= task["seen"] + 1
            task["seen"] = min(task["seen"] + 1, last)
            named, _, node = task["states"][task["seen"]].partition("@")
            state, _, reason = named.partition(":")
            if comes_to_it:
                for path, content in plan.get("leaves", {}).get(task["cell"], {}).items():
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    Path(path).write_text(content)
            if state != "GONE":
                print(
                    number + 100,
                    index,
                    state,
                    reason,
                    "" if state == "PENDING" else node or "n7",
                    "1:05",
                    job["name"],
                    sep="|",
                )
    write("jobs.json", jobs)


def task_of(word: str, jobs: list[Any]) -> Any:
    job, _, index = word.partition("_")
    return jobs[int(job) - 100]["tasks"][int(index)]


def scancel(arguments: list[str]) -> None:
    plan, jobs = read("plan.json", {}), read("jobs.json", [])
    if plan.get("deaf", 0) > 0:
        write("plan.json", {**plan, "deaf": plan["deaf"] - 1})
        fail("scancel: error: slurm_kill_job2() failed: Unable to contact slurm controller (connect failure)")
    for word in arguments:
        if word.startswith("-"):
            continue
        task = task_of(word, jobs)
        state = re.split("[:@]", task["states"][max(0, task["seen"])])[0]
        if "--signal=INT" in arguments:
            after = "FAILED" if state == "RUNNING" else state
        else:
            after = state if "--state=PENDING" in arguments and state != "PENDING" else "CANCELLED"
        if after != state:
            # what hears a signal takes its time
            task |= {"states": [state, after] if after == "FAILED" else [after], "seen": -1}
    write("jobs.json", jobs)


def scontrol(arguments: list[str]) -> None:
    plan = read("plan.json", {})
    if arguments[0] == "update":
        return
    if arguments[1] == "config":
        print(f"KillWait                = 30 sec\nMaxArraySize            = {plan.get('most', 1001)}\n")
        return
    shown = plan.get("shows", {}).get(task_of(arguments[-1], read("jobs.json", []))["cell"])
    if not shown:
        fail("slurm_load_jobs error: Invalid job id specified")
    print(f"JobId=1 {shown} NodeList=n7 BatchHost=n7")


def sacct(arguments: list[str]) -> None:
    word = arguments[arguments.index("--jobs") + 1]
    kept = read("plan.json", {}).get("accounts", {}).get(task_of(word, read("jobs.json", []))["cell"])
    if not kept:
        fail("Slurm accounting storage is disabled")
    print(kept)


def sinfo(_: list[str]) -> None:
    print(*read("plan.json", {}).get("nodes", ["64|(null)"]), sep="\n")


if __name__ == "__main__":
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(shlex.join(sys.argv[2:]) + "\n")
    with (HERE / "environment.txt").open("a") as environment:
        environment.write(
            " ".join(name for name in os.environ if re.match("(SBATCH|SQUEUE|SCANCEL|SINFO|SACCT)_", name)) + "\n"
        )
    globals()[sys.argv[2]](sys.argv[3:])
