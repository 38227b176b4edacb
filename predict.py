"""Classify new images with what a run has trained.

    python predict.py RUN IMAGE            an image, or several; a folder; a pattern in quotes
    python predict.py RUN DIR --csv        a row an image; also --json, --jsonl, --out FILE
    find DIR | python predict.py RUN -     paths on stdin, one a line

RUN is a run's folder (runs/DATASET/BACKBONE/RUN) or its checkpoint.pt; several with commas between them, or a folder
that holds the runs of one backbone (its seeds or folds), are an ensemble, whose probabilities are averaged. Images are
decoded, resized and normalised as the run's own were. Where labels are known, by class folders or --labels, the metrics
are printed, too.

Exit codes: 0 done, 2 something to mend in the command, 3 an image could not be read (the others are answered) or it
failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.cli import Help, Parser, at_home, folder, importing, run_command, whole
from engine.errors import UserError, one_line
from engine.paths import exists, is_file
from predicting.inputs import Inputs
from predicting.outputs import check_file, form_of

# flags that say how new images are answered
OF_IMAGES = {"top": "--top", "batch_size": "-bs", "computed": "--form", "raw": "--raw", "reject": "--reject"}
OF_IMAGES |= {"tta": "--tta", "labels": "--labels", "explain": "--explain", "device": "--device"}
INTERRUPTED = "interrupted. What --out and --explain name is written whole or not at all."


def parser() -> Parser:
    """The command line."""
    line = Parser(prog="predict.py", description=__doc__, formatter_class=Help, allow_abbrev=False)
    add = line.add_argument
    add("run", metavar="RUN", type=at_home, help="a run's folder, a checkpoint, several with commas, a folder of runs")
    add("images", metavar="IMAGE", nargs="*", type=at_home, help="images, folders, patterns, or - for paths on stdin")
    add("--top", type=whole(1), metavar="K", help="classes an image, the likeliest first (default: 5, or all)")
    forms = line.add_mutually_exclusive_group()
    for name, what in (("csv", "as CSV"), ("json", "as one JSON document"), ("jsonl", "as a JSON object a line")):
        forms.add_argument(f"--{name}", action="store_const", const=name, dest="form", help=f"write the answers {what}")
    add("--out", type=folder, metavar="FILE", help="where they go (default: stdout); its suffix can say in which form")
    add("-bs", "--batch-size", type=whole(1), metavar="N", help="images at a time (default: as the run was evaluated)")
    add(
        "--form",
        dest="computed",
        choices=("fastest", "run"),
        default="fastest",
        help="how it is computed: fastest (default), or exactly as the run evaluated its test images",
    )
    add("--raw", action="store_true", help="probabilities as they come, not calibrated by the run's temperature")
    add("--reject", type=probability, metavar="P", help="mark predictions whose probability is below P")
    add("--tta", choices=("flip",), help="the mean over each image and its mirror image, in twice the time")
    add("--labels", type=folder, metavar="FILE.csv", help="the labels of the images, as folder.py takes them")
    add("--explain", type=folder, metavar="DIR", help="write images there that show what each prediction rests on")
    add("--suspects", action="store_true", help="show the images of the run's own data whose labels may be wrong")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="where it computes (default: auto)")
    return line


def probability(text: str) -> float:
    """A type for argparse: a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability: a number from 0 to 1, such as 0.8")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit code."""

    def command() -> int:
        line = parser()
        options, more = line.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
        # images that stand behind flags: a flag that does not exist was refused
        options.images += [word for word in more if word != "--"]
        if options.suspects:
            return suspects(options, line)
        inputs = Inputs(options.images, sys.stdin.buffer if sys.stdin else io.BytesIO())
        check(options, inputs)
        with importing():  # PyTorch: not before the command line is known to be right
            from predicting.command import run

        return run(options, inputs)

    return run_command(command, INTERRUPTED)


def suspects(options: argparse.Namespace, line: Parser) -> int:
    """Show the run's own images whose labels may be wrong; `line` knows what the flags are where they are not given."""
    if options.images:
        raise UserError("--suspects is of the images that the run held out, and takes no others. Leave them out.")
    require_run(options)
    if others := [flag for name, flag in OF_IMAGES.items() if getattr(options, name) != line.get_default(name)]:
        raise UserError(f"--suspects takes no {' and no '.join(others)}: it shows what the run itself predicted.")
    form = form_of(options.form, options.out)
    if options.out:
        check_file(options.out)
    with importing():
        from predicting.suspects import show_suspects

    show_suspects(Path(options.run), options.out, form)
    return 0


def require_run(options: argparse.Namespace) -> None:
    """Raise UserError where the run's path is empty."""
    if not options.run:
        raise UserError("the path of the run is empty: is a shell variable not set?")


def check(options: argparse.Namespace, inputs: Inputs) -> None:
    """Raise UserError for what can be known to be wrong without a look at the checkpoint; settles the form."""
    if not options.images:
        raise UserError("no images are given. Expected files, a folder, a pattern in quotes, or - for paths on stdin.")
    require_run(options)
    first = options.run.split(",")[0]
    if not exists(options.run) and not exists(first):
        raise UserError(
            f"{one_line(options.run)}: no such run. Expected runs/DATASET/BACKBONE/RUN, or the checkpoint.pt in it."
        )
    options.form = form_of(options.form, options.out)
    if options.out:
        check_file(options.out)
    if options.labels and not is_file(options.labels):
        raise UserError(f"--labels {options.labels}: no such file. Expected a file with the columns file and label.")
    if options.explain:
        from predicting.overlays import check_folder

        check_folder(options.explain)
    inputs.require()


if __name__ == "__main__":
    sys.exit(main())
