"""A finished run's network, for other programs: as ONNX, for torch.export, as safetensors, or as the hub takes it.

    python export.py RUN --to onnx DIR           model.onnx: pixels in, logits and probabilities out
    python export.py RUN --to torch DIR          model.pt2, the same for torch.export.load
    python export.py RUN --to safetensors DIR    model.safetensors, the weights alone, and what is known of them
    python export.py RUN --to hub DIR            a folder for timm and the Hugging Face hub, with a model card

RUN is a run's folder (runs/DATASET/BACKBONE/RUN) or the checkpoint.pt in it; DIR is made. What is written is read
again, and its outputs are compared with PyTorch's on images of the run's test part before DIR is there. Nothing is
uploaded, and no path of this machine is in it. Exit codes: 0 done, 2 something to mend, 3 it failed, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.cli import Help, Parser, folder, importing, run_command
from engine.console import say, wrapped
from exporting.packages import NEEDED, require_packages


def parser() -> Parser:
    """The command line."""
    line = Parser(prog="export.py", description=__doc__, formatter_class=Help, allow_abbrev=False)
    line.add_argument("run", type=folder, metavar="RUN", help="a finished run's folder, or its checkpoint.pt")
    line.add_argument("--to", choices=list(NEEDED), required=True, help="the form")
    line.add_argument("out", type=folder, metavar="DIR", help="a new or empty folder")
    line.add_argument("--overwrite", action="store_true", help="replace DIR if it is an earlier output of export.py")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns 0, or 2 for the user's mistake, 3 for a failure, 130 for Ctrl-C."""

    def command() -> None:
        options = parser().parse_args(arguments)
        with importing():
            require_packages(options.to)
            from exporting.build import export

        say(*wrapped(export(options.run, options.to, options.out, options.overwrite)), go_on=True)

    return run_command(command, "interrupted; no half-written export is left")


if __name__ == "__main__":
    sys.exit(main())
