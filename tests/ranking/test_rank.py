"""rank.py: what is printed of a dataset, in which order, and that no image but those of the train part has a say."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rank
from common import Part
from engine import INTERRUPTED
from engine.data.part import Pixels, Splits
from engine.errors import UserError
from engine.paths import PROJECT
from ranking import scored
from ranking.budget import Budget
from ranking.order import combined
from ranking.scores import SCORES
from ranking.search_result import SearchResult
from ranking.trainings import Request
from tests.ranking import networks
from tests.ranking.conftest import Asker
from tests.ranking.networks import NAMES


class FirstRows:
    """Pixels of which those behind the first `last` rows can't be read."""

    def __init__(self, pixels: Pixels, last: int) -> None:
        self.shape, self._pixels, self._last = pixels.shape, pixels, last

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> Pixels:
        assert rows.max() < self._last, f"row {rows.max()} is not one to be read"
        return self._pixels[rows]


def guarded(splits: Splits) -> Splits:
    """The parts in one array, of which only the training images can be read."""
    source = FirstRows(np.concatenate([part.pixels() for part in splits]), len(splits.train))
    digests = [digest for part in splits for digest in part.own_digests]
    first, parts = 0, []
    for part in splits:
        rows = np.arange(first, first + len(part))
        parts.append(Part(source, part.labels, part.names, rows=rows, digests=digests))
        first += len(part)
    return Splits(splits.classes, *parts)


def scores_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["scores"] for each in answer["backbones"]}


def test_images_of_other_parts_are_never_read(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scores_of(ask.answer("--no-cache"))
    real: Any = vars(scored)["decode_images"]

    def decode(*given: Any) -> Any:
        data = real(*given)
        return replace(data, splits=guarded(data.splits))

    monkeypatch.setattr(scored, "decode_images", decode)
    assert scores_of(ask.answer("--no-cache")) == expected

    def exchanged(*given: Any) -> Any:
        data = decode(*given)
        return replace(data, splits=replace(data.splits, train=data.splits.test))

    monkeypatch.setattr(scored, "decode_images", exchanged)
    said = ask.toy("--no-cache")  # and if they were, this test would see it
    assert (said.code, "is not one to be read" in said.err) == (3, True), said.err


@pytest.mark.parametrize("other", [{"seeds": (1, 2, 9)}, {"seeds": (1, 9, 3)}, {"relabelled": True}])
def test_what_is_in_other_parts_changes_nothing(
    ask: Asker, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask.answer()
    kept = ask.kept
    assert len(kept) == len(NAMES)
    monkeypatch.setattr("ranking.frozen.build", lambda *_: pytest.fail("features are computed anew"))
    second = ask.answer(**other)
    assert ask.kept == kept
    for name in ("order", "mean_rank", "backbones", "top"):
        assert second[name] == first[name]
    assert second["dataset"]["split"] != first["dataset"]["split"]  # so that it was another question


def test_other_training_images_get_other_scores(ask: Asker) -> None:
    first = ask.answer()
    second = ask.answer(seeds=(8, 2, 3))
    assert scores_of(first) != scores_of(second)
    assert len(ask.kept) == 2 * len(NAMES)


def test_the_order_is_by_the_rule_that_is_printed(ask: Asker) -> None:
    answer = ask.answer()
    scores = scores_of(answer)
    top1 = {each["name"]: each["top1"] for each in answer["backbones"]}
    assert top1 == {"tiny": 70.0, "wide": 60.0, "flat": 80.0}
    by = {score: {name: scores[name][score] for name in NAMES} for score in ("probe", "knn5")}
    order = combined(by["probe"], top1, {}, by["knn5"])
    assert answer["order"] == order.names
    assert answer["mean_rank"] == order.mean_rank
    assert answer["rule"] == order.rule
    assert answer["top"] == order.names
    said = ask.toy()
    assert [row.split()[:2] for row in said.rows[1:4]] == [[f"{n}.", name] for n, name in enumerate(order.names, 1)]
    assert f"order      {order.rule}" in said.out
    assert f"top 3      {', '.join(order.names)}" in said.out


def test_what_is_printed_of_a_backbone(ask: Asker) -> None:
    said = ask.toy()
    answer = ask.answer()
    heads = said.rows[0].split()
    assert heads == [
        "backbone",
        "probe",
        "1-NN",
        "5-NN",
        "LogME",
        "H-score",
        "ImageNet",
        "M",
        "params",
        "images/s",
        "full",
        "run",
    ]
    first = next(each for each in answer["backbones"] if each["name"] == answer["order"][0])
    scores = first["scores"]
    assert scores.keys() == SCORES.keys()
    row = said.rows[1].split()
    assert row[2:6] == [
        f"{scores['probe']:.1%}",
        f"{scores['knn1']:.1%}",
        f"{scores['knn5']:.1%}",
        f"{scores['logme']:.3f}",
    ]
    assert row[9] == f"{first['train_images_per_second']:,.1f}"
    assert "Toy: 60 training images at 16x16, 3 classes; validation and test images are not looked at" in said.out
    assert "trust      Nothing to hold this order against" in said.out
    grid = next(line for line in said.out.splitlines() if "grid.py" in line)
    assert (
        f"--models {' '.join(answer['order'])} --datasets ./own.py --recipe fast --device cpu --precision fp32 --plan"
        in grid
    )
    assert said.out.splitlines()[-1].endswith(
        "--models tiny wide flat --plan off --precision fp32 --device cpu --fine-tune"
    )
    (kept,) = Path("runs/rank").glob("toy-*.rank.json")
    assert Path(answer["file"]) == kept


def test_the_command_of_the_search_has_its_flag_where_flags_are(ask: Asker) -> None:
    networks.write_script(Path("own.py"), {})
    said = ask("--models tiny wide --plan off --device cpu -- ./own.py")
    assert said.out.splitlines()[-1].endswith("--models tiny wide --plan off --device cpu --fine-tune -- ./own.py")


def test_a_narrow_terminal_shows_the_scores_and_then_the_costs(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    wide = ask.toy()
    monkeypatch.setenv("COLUMNS", "80")
    narrow = ask.toy()
    place, costs = 1 + len(NAMES), narrow.rows[1 + len(NAMES) :][: 1 + len(NAMES)]
    assert [row.split()[0] for row in narrow.rows[:place]] == ["backbone", "1.", "2.", "3."]
    assert costs[0].split() == ["backbone", "M", "params", "images/s", "full", "run"]
    for row, scores, cost in zip(wide.rows[:place], narrow.rows[:place], costs, strict=True):
        assert row.startswith(scores)
        assert cost.split()[:2] == scores.split()[:2] or "backbone" in cost
        assert max(len(scores), len(cost)) <= 80


def test_medical_images_are_said_to_be_another_matter(ask: Asker) -> None:
    assert "medical" in " ".join(ask.answer(domain="medical")["trust"])
    assert "medical" not in " ".join(ask.answer()["trust"])


def test_json_is_alone_on_stdout(ask: Asker) -> None:
    said = ask.toy("--json", f"{' '.join(NAMES)} missing")
    assert said.code == 0
    answer = json.loads(said.out)
    assert {*answer["order"]} == {*NAMES}
    assert [each["name"] for each in answer["left_out"]] == ["missing"]
    for words in ("Toy: 60 training images", "features   1 of 3, tiny", "1.  ", "left out   missing"):
        assert words in said.err


def test_json_says_names_in_a_terminal_of_ascii_alone(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.write_script(Path("own.py"), {"domain": "K\u00e4fer \u2028"})
    with Path("out.json").open("w", encoding="ascii", errors="backslashreplace") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert rank.main(["./own.py", "--models", *NAMES, "--device", "cpu", "--json"]) == 0
    assert json.loads(Path("out.json").read_text())["dataset"]["domain"] == "K\u00e4fer \u2028"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "the weights missing are not at "),
        ("other", "does not hold weights of other: of "),
        ("large", "large can't take images of 16x16 pixels: the smallest that works is 4000x4000"),
        ("rows", "its head, 6, is given (2, 8, 4) for 2 images, and not a row of features for each"),
        ("twice", "its head, head, is not called once, with one input"),
        ("endless", "its features are not finite in fp32"),
    ],
)
def test_a_backbone_that_can_not_be_scored_is_left_out_with_a_line(ask: Asker, name: str, says: str) -> None:
    said = ask.toy("", f"tiny {name} wide")
    assert said.code == 0, said.err
    (line,) = [line for line in said.out.splitlines() if line.startswith("left out ")]
    assert line.startswith(f"left out   {name}: ")
    assert says in line
    assert len(said.rows[1:3]) == 2
    assert ask.answer("", f"tiny {name} wide")["left_out"][0]["name"] == name


def test_two_must_remain(ask: Asker) -> None:
    said = ask.toy("", "tiny missing rows")
    assert said.code == 2
    assert "only tiny can be scored, and an order takes at least 2" in said.err
    assert "missing: the weights missing are not at" in said.err
    assert "rows: its head" in said.err
    assert not list(Path("runs").rglob("*.json"))
    said = ask.toy("", "missing gone")
    assert said.code == 2
    assert "no backbone can be scored" in said.err


def test_random_weights_are_said_to_say_nothing(ask: Asker) -> None:
    said = ask.toy("--weights none")
    assert said.code == 0
    assert "trust      All weights are random" in said.out
    first = ask.answer("--weights none")
    other = ask.answer("--weights none --seed 1")
    assert scores_of(first) != scores_of(other)  # of a seed are also the weights


def test_a_budget_below_one_rung_is_said(ask: Asker) -> None:
    said = ask.toy("--fine-tune --budget images:1")
    assert said.code == 2
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert "--budget images:1 is too small for one rung" in line
    # of 60 images each
    assert "after the pass in which their heads are solved for" in line
    assert "takes 240 training images" in line
    random = ask.toy("--weights none --fine-tune --budget images:1").err
    assert "solved for" not in random
    assert "takes 120 training images" in random
    assert not list(Path("runs").glob("toy/*"))


def test_an_interruption_during_the_pass_keeps_what_was_computed(ask: Asker) -> None:
    networks.write_script(Path("own.py"), {"train": 500})
    words = ["./own.py", "--models", "tiny", "wide", "slow"]
    process = networks.Process(words, ask.weights)
    process.wait_for("features   2 of 3, wide")
    process.send(signal.SIGINT)
    assert process.wait() == INTERRUPTED, process.said
    assert process.said.endswith(
        "error: interrupted. What was computed is kept; the same command goes on from there.\n"
    )
    assert "Traceback" not in process.said
    before = ask.kept
    assert sorted(name.split("-")[1] for name in before) == ["tiny", "wide"]
    assert not list(Path("runs").rglob("*.json"))
    again = networks.Process(words, ask.weights)
    assert again.wait() == 0, again.said
    assert "features   2 of 3 backbones: kept from before" in again.said
    after = ask.kept
    assert len(after) == len(before) + 1
    assert {name: after[name] for name in before} == before


def test_a_name_that_is_given_twice_is_one_backbone(ask: Asker) -> None:
    assert sorted(ask.answer("", "tiny tiny wide")["order"]) == ["tiny", "wide"]
    assert "tiny alone can't be ranked" in ask.toy("", "tiny tiny").err


def test_how_folders_are_named_makes_no_other_search(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def no_search(request: Request, _budget: Budget | None) -> SearchResult:
        seen.append(request.whole_identity)
        raise UserError("enough is seen")

    monkeypatch.setattr("ranking.tuned.run_search", no_search)
    for words in ("", f"--out {Path('runs').absolute()} --cache-dir kept", "--epochs 3"):
        assert "enough is seen" in ask.toy(f"--fine-tune {words}").err
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("status", ["done", "to do"])
def test_a_winner_that_is_trained_in_full_is_shown(ask: Asker, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    ended = {"as_json": dict, "lines": list, "recommendation": "wide", "complete": True, "exit_code": 0}
    done = SimpleNamespace(status="done", record={"run": "honest-seed0-1"})
    monkeypatch.setattr("ranking.tuned.run_search", lambda *_: SimpleNamespace(**ended))
    monkeypatch.setattr("ranking.tuned.standing_now", lambda _: SimpleNamespace(status=status))
    monkeypatch.setattr("ranking.tuned.train_winner", lambda *_: done)
    monkeypatch.setattr("ranking.tuned.result_line", lambda _: "its result")
    said = ask.toy("--fine-tune")
    assert said.code == 0, said.err
    folder = "runs/toy/wide/honest-seed0-1"
    last = [f"record     {folder}", f"predict    python {PROJECT / 'predict.py'} {folder} IMAGE", "its result"]
    assert (said.out.splitlines()[-3:] == last) == (status == "done")
    assert ("in full    the command:" in said.out) == (status != "done")
