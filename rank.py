"""Which backbone to fine-tune on a dataset: from frozen features in minutes, or by the least fine-tuning that tells.

    python rank.py DIR                              a folder of images, or a dataset's name, as grid.py takes it
    python rank.py DIR --fine-tune --budget 30m     fine-tune what can still win, within half an hour

Each pretrained backbone makes features of the training images, once; the validation and test parts are not looked at.
Scores of the features, and what is known of the weights, give an order. It is a guess, and what is printed says how
well such an order agreed with fine-tuning. --fine-tune lets backbones drop out by their validation accuracy after short
runs, then longer ones of the better half; --train trains the winner in full.

Features are kept beside the decoded images, so that the next question about them takes seconds. The same command again
goes on where it was interrupted. Exit codes: 0 done, 2 something to mend in the command or the data, 3 it failed, 130
interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from engine.cli import Help, Parser, Several, importing, run_command
from engine.errors import UserError
from grids.cells import add_script_flags, find_models
from ranking.candidates import OWN, PASSED_ON, find_candidates, find_question

GOES_ON = "interrupted. What was computed is kept; the same command goes on from there."


def parser() -> Parser:
    """The command line."""
    command_line = Parser(prog="rank.py", description=__doc__, formatter_class=Help, allow_abbrev=False)
    add = command_line.add_argument
    add("data", metavar="DATA", help="a folder of images, or a dataset as grid.py takes it: cifar10, breakhis:40")
    several: dict[str, Any] = {"action": Several, "nargs": "+"}
    add("--models", **several, default=["all"], metavar="NAME", help="backbones; all (default): the published ones")
    add("--json", action="store_true", help="print the answer as JSON on stdout, and all else on stderr")
    add("--fine-tune", action="store_true", help="let the backbones drop out by validation accuracy after short runs")
    add_script_flags(command_line, (*OWN, *PASSED_ON), "run")
    return command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit code."""

    def command() -> int:
        options = parser().parse_args(arguments)
        if not options.json:
            return run(options)
        with redirect_stdout(sys.stderr):
            return run(options)

    return run_command(command, GOES_ON)


def run(options: argparse.Namespace) -> int:
    """Score, order, print; returns the exit code."""
    question = find_question(options)  # first: a script of one's own may bring backbones
    candidates, left_out = find_candidates(question, find_models(options.models))
    with importing():
        from ranking.pass_over import pass_over  # PyTorch: not before the command line is known to be right

    return 0


if __name__ == "__main__":
    sys.exit(main())
