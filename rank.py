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
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from engine.cli import Help, Parser, Several, importing, run_command
from engine.console import say, wrapped
from engine.errors import UserError
from grids.cells import add_script_flags, find_models
from grids.on_ray.address import HELP, LOCAL, ray_address
from ranking.budget import parse_budget
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
    add("--fine-tune", action="store_true", help="let backbones drop out by their validation accuracy after short runs")
    add(
        "--budget",
        type=parse_budget,
        metavar="HOW_MUCH",
        help="what --fine-tune may take: 30m, 2h, or so many training images processed, images:100000 (default: a "
        "quarter of what all backbones take in full)",
    )
    add("--train", action="store_true", help="train what --fine-tune recommends in full, too")
    add("--ray", type=ray_address, nargs="?", const=LOCAL, metavar="ADDRESS", help=f"what --fine-tune trains: {HELP}")
    add_script_flags(command_line, (*OWN, *PASSED_ON), "run")
    return command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit code."""

    def command() -> int:
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = parser().parse_args(words)
        if not options.json:
            return run(options, words)[0]
        with redirect_stdout(sys.stderr):
            code, content = run(options, words)
        say(json.dumps(content, indent=2), go_on=True)  # in ASCII, which every stream can write
        return code

    return run_command(command, GOES_ON)


def run(options: argparse.Namespace, words: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Score, order, print, and search where that is asked for. The exit code, and what JSON says."""
    for flag, given in (("--budget", options.budget), ("--train", options.train), ("--ray", options.ray)):
        if given and not options.fine_tune:
            raise UserError(f"{flag} is for the search, which --fine-tune asks for. Give both, or leave {flag} out.")
    question = find_question(options)  # first: a script of one's own may bring backbones
    candidates, left_out = find_candidates(question, find_models(options.models))
    with importing():  # PyTorch: not before the command line is known to be right
        from ranking.answer import answered
        from ranking.tuned import tuned

    answer = answered(question, candidates, left_out)
    say(*wrapped(answer.lines()), go_on=True)
    content, code = answer.as_json(), 0
    if options.fine_tune:
        code, content["search"] = tuned(answer, options.budget, options.train, options.ray)
    else:
        say(*wrapped(answer.next_lines(words)), go_on=True)
    return code, content


if __name__ == "__main__":
    sys.exit(main())
