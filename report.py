"""Records -> one HTML page that opens offline, and the tables as CSV, Markdown and LaTeX.

python report.py                       runs/ -> report/report.html, results.csv, results.md, results.tex
python report.py DIR --out elsewhere   other records, another place
python report.py --serve               the page on http://127.0.0.1:8000, made anew whenever a record changes

Only what can be compared is ranked: one protocol, recipe, kind of weights and version of each dataset at a time, and
no partial data. Everything else is listed apart, with the reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import Parser, folder, whole
from engine.console import say, steady_streams
from engine.errors import UserError
from engine.files import write_text
from reporting.answers import count
from reporting.build import build
from reporting.collect import collect
from reporting.tables import csv_text, latex_text, markdown_text

PORT = 8000


def parser() -> Parser:
    """The command line."""
    found = Parser(
        prog="report.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument(
        "runs",
        nargs="?",
        type=folder,
        default=Path("runs"),
        metavar="RUNS_DIR",
        help="where the records are (default: runs)",
    )
    found.add_argument(
        "--out", type=folder, default=Path("report"), metavar="DIR", help="where the report goes (default: report)"
    )
    found.add_argument("--no-thumbnails", action="store_true", help="leave out the pictures of the worst errors")
    found.add_argument(
        "--serve",
        nargs="?",
        type=whole(1, 65535),
        const=PORT,
        metavar="PORT",
        help=f"show the report to a browser on this computer, and follow the records (default port: {PORT})",
    )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns 0, or 2 for the user's mistake, 130 for Ctrl-C."""
    steady_streams()
    try:
        options = parser().parse_args(arguments)
        if options.serve is None:
            report = make(options.runs, options.out, not options.no_thumbnails)
            say(*lines(report, options.out))
        else:
            from reporting.serve import serve

            serve(
                lambda: _make_quietly(options.runs, options.out, not options.no_thumbnails),
                options.runs,
                options.out,
                options.serve,
            )
    except UserError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # Ctrl-C, or whoever read the output is gone
        return 130
    return 0


def make(runs: Path, out: Path, thumbnails: bool = True) -> dict[str, Any]:
    """Write the report of the records in `runs` to `out`; returns what it says.

    Raises UserError where there is no record, `out` can't be written to, or a library is missing.
    """
    check_output(out)
    report = build(collect(runs, ignore=out), runs, thumbnails)
    from reporting.render import render

    files = {
        "report.html": render(report),
        "results.csv": csv_text(report),
        "results.md": markdown_text(report),
        "results.tex": latex_text(report),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(out / name, text)
    except OSError as problem:
        raise UserError(
            f"the report can't be written to {out}: {problem.strerror}. --out chooses another."
        ) from problem
    return report


def check_output(out: Path) -> None:
    """Raises UserError where `out` can be no folder to write to: better now than after all records have been read."""
    above = out
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise UserError(f"--out {out}: {above} is a file. Expected a folder, or a name not yet taken.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: no permission to write in {above}. Choose a folder elsewhere.")


def lines(report: dict[str, Any], out: Path) -> list[str]:
    """What was read, the answer of the largest league, and where the report is."""
    told = [f"{count(report['records'], 'record')}, {len(report['apart']):,} of them listed apart"]
    told += [f"{len(report['skipped']):,} skipped"] if report["skipped"] else []
    told += [f"{len(report['failed']):,} failed"] if report["failed"] else []
    found = [f"read       {', '.join(told)}"]
    for league in report["leagues"][:1]:
        found.append(f"league     {league['title']}: {count(len(league['cells']), 'cell')}")
        found += [f"caution    {warning}" for warning in league["warnings"]]
        found.append(f"answer     {league['rankings']['0']['overall']['answer']}")
    if len(report["leagues"]) > 1:
        found.append(f"           {len(report['leagues']) - 1:,} more in the report, each ranked by itself")
    return [*found, f"report     {out / 'report.html'}"]


def _make_quietly(runs: Path, out: Path, thumbnails: bool) -> None:
    make(runs, out, thumbnails)


if __name__ == "__main__":
    sys.exit(main())
