"""What every command line shares."""

from __future__ import annotations

import argparse
import errno
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

import datasets
import digits
import folder as own
import grid
import rank
import report
import split
from common import BACKBONES
from engine.cli import Help, Parser, Several, folder, run_command
from engine.command_line import parse
from engine.errors import UserError
from engine.paths import PROJECT


def parser() -> Parser:
    made = Parser(prog="it.py", allow_abbrev=False)
    made.add_argument("place", nargs="?")
    made.add_argument("-model", "--model", required=True)
    made.add_argument("--epochs", type=int)
    made.add_argument("--pattern")
    return made


@pytest.mark.parametrize(
    ("words", "place", "pattern"),
    [
        ("-model x", None, None),
        ("-model=x --epochs -3 here", "here", None),
        ("--model x --pattern=-a", None, "-a"),
        ("-model x -- -there", "-there", None),
        ("--pattern -a_b -model x -dir", "-dir", "-a b"),
    ],
)
def test_what_begins_with_a_dash_is_not_always_a_flag(words: str, place: str | None, pattern: str | None) -> None:
    found = parser().parse_args([word.replace("-a_b", "-a b").replace("-dir", "- dir") for word in words.split()])
    assert (found.place, found.pattern) == (place and place.replace("-dir", "- dir"), pattern)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-modle x", "unknown flag -modle. Did you mean -model? See python it.py --help"),
        ("-model x --epoch=3", "unknown flag --epoch. Did you mean --epochs?"),
        ("-model x --zzzzzz", "unknown flag --zzzzzz. See python it.py --help"),
        ("", "the following arguments are required: -model/--model. See"),
        ("-model x --epochs y", "argument --epochs: invalid int value"),
    ],
)
def test_a_flag_that_does_not_exist_comes_before_one_that_is_missing(words: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        parser().parse_args(words.split())
    assert says in str(caught.value)


def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    description = """Words that fill more than one line of a
narrow terminal.

    it.py --one flag --two flags --three flags
    it.py --dry

a     begins here and goes on and on
      and on
bb    is short
"""
    argparse.ArgumentParser("it.py", "", description, formatter_class=Help).print_help()
    printed = capsys.readouterr().out
    expected = """Words that fill more than one line of a
narrow terminal.

    it.py --one flag --two flags --three
        flags
    it.py --dry

a     begins here and goes on and on and
      on
bb    is short
"""
    assert expected in printed


def test_help_beside_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["--zzz", "--help"])
    assert "--epochs" in capsys.readouterr().out


@pytest.mark.parametrize("home", [True, False])
def test_a_tilde_is_the_home_that_a_shell_makes_of_it(
    home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it does not behind a `=` or a `:`. Without HOME it is what the system knows of the user."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~nobody-here").mkdir()
    own = pwd.getpwuid(os.getuid()).pw_dir
    monkeypatch.setenv("HOME", "/home/of") if home else monkeypatch.delenv("HOME", raising=False)
    place = "/home/of" if home else own
    assert [str(folder(text)) for text in ("~", "~/x/y", "~root/x", "./~/x", "x/~", "~nobody-here/x")] == [
        place,
        f"{place}/x/y",
        "/root/x",
        "~/x",
        "x/~",
        "~nobody-here/x",
    ]
    with pytest.raises(argparse.ArgumentTypeError, match="there is no home of ~nobody-at-all"):
        folder("~nobody-at-all/x")


def test_every_flag_that_takes_a_path_knows_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").touch()
    (tmp_path / "pets").mkdir()
    line = "-model resnet --out=~/o --data-dir=~/d --cache-dir=~/c --weights=~/w.pt"
    config = parse(digits.DATASET, BACKBONES, line.split())[1]
    assert (config.out, config.data_dir, config.cache_dir) == (tmp_path / "o", tmp_path / "d", tmp_path / "c")
    assert config.weights == str(tmp_path / "w.pt")
    assert parse(own.DATASET, BACKBONES, ["~/pets", "-model", "resnet"])[0].own_folder == tmp_path / "pets"
    options = split.parser().parse_args(["--input_dir=~/i", "--output_dir=~/o"])
    assert (options.input_dir, options.output_dir) == (tmp_path / "i", tmp_path / "o")
    options = report.parser().parse_args(["~/runs", "--out=~/r"])
    assert (options.runs, options.out) == (tmp_path / "runs", tmp_path / "r")
    assert datasets.parser().parse_args(["--data-dir=~/d"]).data_dir == tmp_path / "d"
    options = grid.parser().parse_args(["--datasets=folder:~/pets", "--data-dir=~/d", *line.split()[2:]])
    cell, *_ = grid.cells_of(options)
    assert cell.dataset.own_folder == tmp_path / "pets"
    assert (cell.config.out, cell.config.weights) == (tmp_path / "o", str(tmp_path / "w.pt"))


def test_a_flag_of_several_values_that_is_given_again_adds_to_them() -> None:
    """The last of them alone would be half of what was asked for."""
    made = Parser(prog="it.py", allow_abbrev=False)
    made.add_argument("--seeds", action=Several, nargs="+", default=["0"])
    made.add_argument("--models", action=Several, nargs="+")
    for line, expected in (
        ("", (["0"], None)),
        ("--seeds 1 2", (["1", "2"], None)),
        ("--seeds 1 --models a b --seeds 2 3", (["1", "2", "3"], ["a", "b"])),
    ):
        found = made.parse_args(line.split())
        assert (found.seeds, found.models) == expected


@pytest.mark.parametrize(
    "script", ["digits.py", "folder.py", "split.py", "datasets.py", "grid.py", "rank.py", "report.py"]
)
def test_a_folder_that_is_gone_is_the_users_to_mend(script: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = "import os, runpy, sys; os.rmdir(os.getcwd()); sys.argv[0] = sys.argv.pop(1); "
    code += "sys.path[0] = os.path.dirname(sys.argv[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    line = [sys.executable, "-c", code, str(PROJECT / script), "-model", "resnet"]
    done = subprocess.run(line, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: the folder that this command runs in is gone")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_the_process_ends_is_not_shown(name: str) -> None:
    """What packages do then would be cut short, with a traceback."""
    program = (
        "import atexit, os, signal, sys\n"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{name}))\n"
        "from engine.cli import run_command\n"
        "sys.exit(run_command(lambda: 2))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.parametrize(("number", "says"), [(errno.EIO, "disk/x: input/output error."), (errno.EBADF, "Traceback")])
def test_what_a_disk_refuses_is_no_fault_of_the_program(
    capsys: pytest.CaptureFixture[str], number: int, says: str
) -> None:
    def read() -> int:
        raise OSError(number, os.strerror(number), "disk/x")

    assert run_command(read) == 3
    said = capsys.readouterr().err
    assert says in said
    assert ("give the same command again" in said) == (number == errno.EIO)


def test_an_interruption_while_an_object_is_deleted_is_one() -> None:
    program = (
        "import signal, sys, time\n"
        "from engine.cli import run_command\n"
        "class Held:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "def work():\n"
        "    Held()\n"
        "    time.sleep(60)\n"
        "sys.exit(run_command(work, 'interrupted.'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted.\n")


@pytest.mark.parametrize(
    "line",
    [
        "folder.py my photos -model resnet",
        "folder.py -model resnet my photos",
        "split.py --input_dir my photos --output_dir out",
        "grid.py --datasets folder:my photos --models all --dry-run",
        "grid.py --dry-run --datasets digits folder:my photos",
        "rank.py my photos --models resnet swin",
        "report.py my photos",
        "digits.py -model resnet --out my photos",
        "digits.py -model resnet --out=my photos --epochs 3",
    ],
)
def test_a_path_that_lacks_its_quotes_gets_them(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    script, *words = line.split()
    scripts = {"folder.py": own.DATASET, "digits.py": digits.DATASET}
    if script in scripts:
        assert run_command(lambda: parse(scripts[script], BACKBONES, words)) == 2  # type: ignore[arg-type,return-value]
    else:
        mains = {"split.py": split.main, "grid.py": grid.main, "rank.py": rank.main, "report.py": report.main}
        assert mains[script](words) == 2
    said = capsys.readouterr().err
    assert re.search(r"A path with a space in it must be in quotes: '[-=:\w]*my photos'\.", said)
    (tmp_path / "my photos").rename(tmp_path / "photos")
    if script == "report.py":
        assert report.main(words) == 2
        assert "unrecognized arguments: photos. See python report.py --help" in capsys.readouterr().err
