"""Records -> one HTML page that opens offline, and the tables as CSV, Markdown and LaTeX.

python report.py                       runs/ -> report/report.html, results.csv, results.md, results.tex, runs.csv
python report.py DIR --out elsewhere   other records, another place
python report.py --serve               the page on http://127.0.0.1:8000, made anew whenever a record changes

Only what can be compared is ranked: one protocol, recipe, kind of weights and version of each dataset at a time, and
no partial data. Everything else is listed apart, with the reason. runs.csv has a row a record, for pandas.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import Help, Parser, folder, importing, run_command, whole
from engine.console import say, wrapped
from engine.errors import RunError, UserError, counted
from engine.files import check_output
from engine.paths import nearest_existing, writable

PORT = 8000
MOST_NAMED = 5  # records that their files contradict


def parser() -> Parser:
    """The command line."""
    line = Parser(
        prog="report.py",
        description=__doc__,
        formatter_class=Help,
        allow_abbrev=False,
    )
    line.add_argument(
        "runs",
        nargs="?",
        type=folder,
        default=Path("runs"),
        metavar="RUNS_DIR",
        help="where the records are (default: runs)",
    )
    line.add_argument(
        "--out", type=folder, default=Path("report"), metavar="DIR", help="where the report goes (default: report)"
    )
    line.add_argument("--no-thumbnails", action="store_true", help="leave out the pictures of the worst errors")
    line.add_argument(
        "--serve",
        nargs="?",
        type=whole(1, 65535),
        const=PORT,
        metavar="PORT",
        help=f"show the report to a browser on this computer, and follow the records (default port: {PORT})",
    )
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns 0, or 2 for the user's mistake, 3 for a full disk, 130 for Ctrl-C."""

    def command() -> None:
        options = parser().parse_args(arguments)
        runs, out, thumbnails = options.runs, options.out, not options.no_thumbnails
        try:
            if options.serve is None:
                say(*wrapped(lines(make(runs, out, thumbnails), out)), go_on=True)
            else:
                from reporting.serve import serve

                serve(lambda: make(runs, out, thumbnails), runs, out, options.serve)
        except BrokenPipeError:
            raise
        except OSError as problem:  # a folder that went away, say
            raise RunError(f"{problem}. A report that was in {out} is still there, as it was.") from problem

    return run_command(command)


def make(runs: Path, out: Path, thumbnails: bool = True) -> dict[str, Any]:
    """Write the report of the records in `runs` to `out`; returns what it says.

    Raises UserError where there is no record, `out` is no folder to write in, or a library is missing; RunError where
    the disk is full.
    """
    from reporting.collect import collect

    check_output(out)
    above = nearest_existing(out)
    if not writable(above):  # better now than after all records have been read
        raise UserError(f"--out {out}: no permission to write in {above}. Choose a folder elsewhere.")
    collected = collect(runs, ignore=out)
    # SciPy takes a second to import: a mistake in the command should not wait for it
    with importing():
        from reporting.build import build
        from reporting.output import write_report
        from reporting.render import render
        from reporting.tables import csv_text, latex_text, markdown_text, runs_text

    report = build(collected, runs, thumbnails)
    files = {
        "report.html": render(report),
        "results.csv": csv_text(report),
        "runs.csv": runs_text(collected.entries, report),
        "results.md": markdown_text(report),
        "results.tex": latex_text(report),
    }
    write_report(out, files)
    return report


def lines(report: dict[str, Any], out: Path) -> list[str]:
    """What was read, the answer of the largest comparable group, and where the report is."""
    read = [f"{counted(report['records'], 'record')}, {len(report['apart']):,} of them listed apart"]
    read += [f"{len(report['skipped']):,} skipped"] if report["skipped"] else []
    read += [f"{len(report['failed']):,} failed"] if report["failed"] else []
    from reporting.fields import shortened

    said = [f"read       {', '.join(read)}"]
    unfit = [line for line in report["apart"] if line["run"] in report["unfit"]]
    said += [f"caution    {line['run']}: {line['reason']}" for line in unfit[:MOST_NAMED]]
    said += [f"caution    and {len(unfit) - MOST_NAMED:,} more, listed in the report"] if unfit[MOST_NAMED:] else []
    for group in report["groups"][:1]:
        what = f"{counted(len(group['backbones']), 'backbone')} on {counted(len(group['datasets']), 'dataset')}"
        said.append(f"compared   {shortened(group['title'])}: {what}")
        said += [f"caution    {warning}" for warning in group["warnings"]]
        said += advice_lines(group["budgets"][0])
    if len(report["groups"]) > 1:
        more = counted(len(report["groups"]) - 1, "more group")
        said.append(f"           {more} of runs in the report, each ranked by itself")
    if not report["groups"]:
        said += ["answer     none yet: no run is finished that can be compared", *command_lines(report["unranked"])]
    return [*said, f"report     {out / 'report.html'}"]


def advice_lines(budget: dict[str, Any]) -> list[str]:
    """What to take, in plain words, and what to run next."""
    advice, ranking = budget["advice"], budget["rankings"]["overall"]
    lines = [advice["headline"], *advice["more"]]
    if len(ranking["asked"]) > 1:
        lines.append(ranking["answer"])
    said = [f"{'' if place else 'answer':11}{line}" for place, line in enumerate(lines)]
    if (taken := advice["taken"]) and taken["path"]:
        said += [f"weights    {taken['path']}", f"           {taken['why']}"]
    return [*said, *command_lines(advice["commands"])]


def command_lines(commands: list[dict[str, str]]) -> list[str]:
    """Commands, each below what it is for."""
    return [line for each in commands for line in (f"next       {each['why']}:", f"           {each['command']}")]


if __name__ == "__main__":
    sys.exit(main())
