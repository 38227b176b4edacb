"""The search after the order: by what it is found again."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any, cast

import pytest

import rank
from ranking.candidates import find_candidates, find_question
from ranking.scored import Scoring
from ranking.tuned import identity_of


def identity(words: str, split: str = "a") -> dict[str, Any]:
    question = find_question(rank.parser().parse_args(shlex.split(words)))
    scored = [SimpleNamespace(candidate=each) for each in find_candidates(question, ["resnet", "swin"])[0]]
    scoring = SimpleNamespace(scored=scored, data=SimpleNamespace(splits=SimpleNamespace(hash=split)))
    return identity_of(cast(Scoring, scoring))


@pytest.mark.parametrize(
    "more",
    ["--budget 2h --fine-tune", "--out elsewhere", "--no-cache", "--cache-dir c", "--augment none", "-bs 64 --json"],
)
def test_what_changes_no_run_changes_no_search(more: str) -> None:
    usual = "digits --batch-size 64 --augment none"
    assert identity(f"{usual} {more}") == identity(usual)


@pytest.mark.parametrize("more", ["-bs 16", "--size 32", "--seed 1", "--epochs 3", "--shots 5", "--weights none"])
def test_what_changes_a_run_changes_the_search(more: str) -> None:
    assert identity(f"digits {more}") != identity("digits")


def test_another_split_is_another_search() -> None:
    assert identity("digits", split="b") != identity("digits")
