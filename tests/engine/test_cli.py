"""What every command line shares."""

from __future__ import annotations

import pytest

from engine.cli import Parser
from engine.errors import UserError


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


def test_help_beside_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["--zzz", "--help"])
    assert "--epochs" in capsys.readouterr().out
