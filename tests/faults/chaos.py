"""ckpt-chaos, a tool of others that kills a training command at every file event of a save: its verdicts on ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from engine.paths import PROJECT
from tests.faults.programs import Undisturbed, pets
from tests.faults.verdict import Verdict
from tests.faults.zygote import World

points = 30  # of each command, at most
SMALL = "--size 32 --epochs 1 --shots 2 --weights none --device cpu --plan off --precision fp32 -bs 8"
RESULT = (
    "import json,sys,pathlib;"
    "print([json.loads(p.read_bytes())['test'] for p in sorted(pathlib.Path(sys.argv[1]).rglob('record.json'))])"
)


@dataclass(frozen=True)
class Command:
    """What is put to the test. again: the command that goes on; result: how what it made is told."""

    line: str
    result: str
    again: str = ""


COMMANDS = {
    "digits.py": Command(f"digits.py -model mobilenet {SMALL} --out {{out}}", RESULT),
    "grid.py": Command(f"grid.py --datasets digits --models mobilenet {SMALL} --out {{out}}", RESULT),
    "split.py": Command(
        "split.py --input_dir pets --output_dir {out}/split",
        "import sys,pathlib;r=pathlib.Path(sys.argv[1]);print(sorted(str(p.relative_to(r)) for p in r.rglob('*.png')))",
        "split.py --input_dir pets --output_dir {out}/split --overwrite",
    ),
}


def chaos(case: int, _: Random, __: dict[str, Undisturbed], folder: Path) -> Verdict:
    """One command, killed at `points` places."""
    name = [*COMMANDS][case % len(COMMANDS)]
    command = COMMANDS[name]
    verdict = Verdict("chaos", case, f"ckpt-chaos: {name}", name)
    tool = Path(sys.executable).with_name("ckpt-chaos")
    if not tool.exists():
        verdict.row, verdict.seen = "ckpt-chaos: not installed", ["none"]
        return verdict
    world = World(folder)
    pets(world.place, 4)
    python = f"{sys.executable} {PROJECT}/"
    line = [str(tool), "run", "--max-points", str(points), "--modes", "before,torn,term", "--timeout", "120"]
    line += ["--work", str(world.root / "chaos"), "--result-cmd", f'{sys.executable} -c "{command.result}" {{out}}']
    line += ["--resume-cmd", python + (command.again or command.line), "--", *(python + command.line).split()]
    with (world.root / "said" / "chaos.out").open("wb") as said:
        subprocess.run(
            line, cwd=world.place, stdout=said, stderr=said, env={**_environment(world)}, check=False, timeout=1200
        )
    text = (world.root / "said" / "chaos.out").read_text("utf-8", errors="replace")
    verdict.times, verdict.seen = judged(verdict, text)
    shutil.rmtree(world.root / "chaos", ignore_errors=True)
    return verdict


def _environment(world: World) -> dict[str, str]:
    return {**os.environ, **world.environment, "PYTHONPATH": str(PROJECT)}


def judged(verdict: Verdict, said: str) -> tuple[int, list[str]]:
    """How many points there were and what the tool says of them, in its own words."""
    counts = {name: int(number) for name, number in re.findall(r"^([A-Z_]+): (\d+)$", said, re.MULTILINE)}
    for name, number in counts.items():
        if name != "PASS":
            verdict.add("wrong" if name == "SILENT_DIVERGENCE" else "lost", f"{name} {number}: {said[-900:]}")
    if not counts:
        verdict.add("other", f"no verdicts: {said[-400:]}")
    return sum(counts.values()), [", ".join(f"{name} {count}" for name, count in counts.items())]
