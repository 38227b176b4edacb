"""The report's section on scores before training, and what it makes of the short runs of a search."""

import json
from pathlib import Path
from typing import Any

import pytest

from reporting.build import build
from reporting.collect import collect
from reporting.render import render
from reporting.tables import markdown_text
from tests.reporting import ranked, synthetic
from tests.reporting.test_agreement import fill, put
from tests.reporting.test_injection import PAYLOADS, RAW
from tests.reporting.test_page import Outline


def report_of(runs: Path) -> dict[str, Any]:
    return build(collect(runs), runs, thumbnails=False)


def test_without_results_the_section_is_empty(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1)
    report = report_of(tmp_path)
    assert report["before"]["results"] == []
    assert "Scores before training" not in markdown_text(report)


def test_scores_stand_beside_what_was_measured(tmp_path: Path) -> None:
    fill(tmp_path, seeds=2, names=("convnext", "swin", "resnet"))
    ranked.put(tmp_path, ranked.result(), ranked.search())
    report = report_of(tmp_path)
    (result,) = report["before"]["results"]
    assert [row["name"] for row in result["rows"]] == list(ranked.NAMES)
    assert [row["values"]["order"] for row in result["rows"]] == [1, 2, 3, 4]
    first, last = result["rows"][0], result["rows"][-1]
    assert (first["texts"]["probe"], first["texts"]["prior"], first["values"]["knn1"]) == ("88.00", "80.00", 90)
    assert first["measured"][1] < first["measured"][0] < first["measured"][2]
    assert last["measured"] is None
    assert result["kinds"] == ["order", "prior", "knn1", "knn5", "probe", "logme", "hscore"]
    assert result["sentences"][0].startswith(
        "Where these images have been fine-tuned already (only 3 of the 4 backbones, 2 seeds each)"
    )
    assert [of["name"] for of in result["agreements"]][:3] == ["rank.py's order", "ImageNet top-1", "1-NN"]
    assert result["left_out"] == [{"what": "wavemix", "why": "its weights can't be had"}]
    assert result["search"]["sentences"][:2] == [
        "By little fine-tuning, the search recommends convnext; its runner-up, swin, can't be told apart from it.",
        "It went through 7,520 training images, 10 % of the 75,200 that training all of them in full takes.",
    ]
    candidates = result["search"]["rungs"][0]["candidates"]
    assert candidates[0] == {
        "name": "convnext",
        "score": "80.0",
        "interval": "70.0 to 90.0",
        "status": "done",
        "kept": True,
    }
    text = markdown_text(report)
    assert "## Scores before training: DTD" in text
    assert "| regnet | 83.00 | 60.00 | 59.00 | 58.00 | 0.5700 | 0.560 |  |" in text
    assert "| rank.py's order | " in text


def test_scores_without_any_record_are_a_report_too(tmp_path: Path) -> None:
    backbones = tuple(
        ranked.backbone(name, place, mean_rank_elsewhere=place + 0.5) for place, name in enumerate(ranked.NAMES)
    )
    ranked.put(tmp_path, ranked.result(backbones=backbones))
    report = report_of(tmp_path)
    (result,) = report["before"]["results"]
    assert report["groups"] == []
    assert result["sentences"][0] == "Nothing to hold this order against: no record of a run on these images is here."
    assert (result["measured"], result["agreements"], result["search"]) == (False, [], None)
    assert result["rows"][1]["texts"]["elsewhere"] == "1.5"
    assert "No answer yet" in render(report)


def test_short_runs_are_a_group_of_their_own_after_the_others_of_their_weights(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1, config={"epochs": 2}, search="rung 1 of 2")
    fill(tmp_path, seeds=1, names=("swin", "resnet"), config={"epochs": 2})
    put(tmp_path, "resnet", protocol="paper")
    put(tmp_path, "resnet", backbone={"weights": "none", "weights_sha256": None}, config={"weights": "none"})
    report = report_of(tmp_path)
    groups = report["groups"]
    assert [len(group["cells"]) for group in groups] == [2, 1, 4, 1]
    assert groups[2]["title"].startswith("short runs of a search, rung 1 of 2, honest protocol, ")
    assert groups[2]["title"].endswith("epochs a stage: 2")
    assert len({group["id"] for group in groups}) == 4
    assert groups[2]["warnings"][0].startswith("short runs by which rank.py chose (rung 1 of 2): ")


def advice_of(runs: Path, place: int = 0) -> dict[str, Any]:
    group = report_of(runs)["groups"][place]
    said: dict[str, Any] = group["budgets"][0]["advice"]
    return said


def test_of_short_runs_alone_nothing_is_to_be_taken(tmp_path: Path) -> None:
    fill(tmp_path, seeds=3, config={"epochs": 2, "recipe": "cosine"}, recipe="cosine", search="rung 1 of 2")
    advice = advice_of(tmp_path)
    assert advice["headline"].startswith("Only short runs of a search (rung 1 of 2): the highest is swin, ")
    assert "swin, 74.5 % of the test images right" in advice["headline"]
    assert advice["open"]
    assert advice["taken"] is None
    assert advice["commands"] == []  # test accuracy of short runs chooses nothing
    assert "Take " not in json.dumps(advice)


def test_a_search_says_what_it_recommends(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1, config={"epochs": 2}, search="rung 1 of 2")
    ranked.put(tmp_path, ranked.result(), ranked.search(told_apart=True, command="python dtd.py -model convnext"))
    advice = advice_of(tmp_path)
    behind = "is behind it by more than chance gives."
    recommends = "By little fine-tuning, the search recommends convnext; its runner-up, swin, "
    assert (advice["headline"], advice["open"]) == (f"{recommends}{behind}", False)
    assert advice["more"][0].startswith("It went through 7,520 training images, 10 % of")
    assert advice["commands"] == [{"why": "To train convnext in full", "command": "python dtd.py -model convnext"}]
    ranked.put(tmp_path, ranked.result(), ranked.search(complete=False, runner_up=None))
    advice = advice_of(tmp_path)
    assert (advice["headline"], advice["open"]) == ("By little fine-tuning, the search recommends convnext.", True)
    assert "the same command of rank.py goes on" in " ".join(advice["more"])
    ranked.put(tmp_path, ranked.result(), ranked.search(stopped_early=True, told_apart=None))
    advice = advice_of(tmp_path)
    assert advice["headline"].endswith("convnext; its runner-up is swin.")
    assert "It stopped early: the first was above the 95 % intervals of all that were still in." in advice["more"]
    assert "--epochs" not in json.dumps(advice["commands"])


def test_of_several_datasets_each_is_answered_for(tmp_path: Path) -> None:
    for dataset in ("dtd", "eurosat", "ucmerced"):
        for name in ranked.NAMES:
            part = {"test_part": ranked.PART}
            rung: dict[str, Any] = {"search": "rung 1 of 2", "config": {"epochs": 2}, "dataset": part}
            synthetic.write(tmp_path, synthetic.record(dataset, name, **rung))
    ranked.put(tmp_path, ranked.result(dataset="dtd"), ranked.search(command="python dtd.py -model convnext"))
    advice = advice_of(tmp_path)
    said = [advice["headline"], *advice["more"]]
    assert sum("nly short runs of a search" in line for line in said) == 2
    assert sum("the search recommends convnext" in line for line in said) == 1
    assert [each["command"] for each in advice["commands"]] == ["python dtd.py -model convnext"]
    assert "Take " not in json.dumps(advice)


def test_commands_of_other_runs_are_not_made_of_a_rung(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1, names=("swin", "resnet"))
    fill(tmp_path, seeds=1, names=("convnext", "regnet"), config={"epochs": 2}, search="rung 1 of 2")
    put(tmp_path, "mobilenet", config={"epochs": 2}, search="rung 1 of 2", status="running", finished=None)
    advice = advice_of(tmp_path)
    assert advice["headline"].startswith("So far, take swin")
    assert "--epochs" not in json.dumps(advice["commands"])
    assert report_of(tmp_path)["unranked"] == []


def test_an_unfinished_rung_alone_has_no_command(tmp_path: Path) -> None:
    put(tmp_path, "mobilenet", config={"epochs": 2}, search="rung 1 of 2", status="running", finished=None)
    assert report_of(tmp_path)["unranked"] == []
    put(tmp_path, "mobilenet", status="running", finished=None)
    assert len(report_of(tmp_path)["unranked"]) == 1


def test_a_mark_that_is_no_text_is_shown_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "swin", search={"rung": 1})
    put(tmp_path, "resnet", search=None)
    titles = [group["title"] for group in report_of(tmp_path)["groups"]]
    assert titles[0].startswith("honest protocol")
    assert titles[1].startswith("short runs of a search, {'rung': 1}")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_others_write_into_results_does_no_harm(
    tmp_path: Path, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reporting.render._plotly", lambda: "0")
    fill(tmp_path, seeds=1)
    names = (payload, *ranked.NAMES[1:])
    backbones = tuple(ranked.backbone("swin", 1) if n else ranked.backbone(payload, 0) for n in range(2))
    made = ranked.result(names[:2], backbones=backbones, rule=payload, notes=(payload,))
    try:
        ranked.put(tmp_path, made, ranked.search(names, budget=payload, command=payload), digest="0")
    except UnicodeEncodeError:
        return  # no text that UTF-8 can't hold comes into a file
    report = report_of(tmp_path)
    assert len(report["before"]["results"]) == 1
    found = Outline()
    found.feed(render(report))
    found.close()
    assert not found.open
    assert len(found.scripts) == 5
    assert not any(tag == "img" for tag, _ in found.found)
    assert not RAW.search(markdown_text(report))
