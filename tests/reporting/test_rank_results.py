"""reporting/rank_results.py: what rank.py writes comes back as it was, and what is damaged is named and not used."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from engine.files import json_digest
from reporting import rank_results
from reporting.collect import collect
from reporting.rank_results import MOST_RESULTS, RankError, path_of, read, results, write
from tests.reporting import ranked, synthetic


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    made = ranked.result(backbones=(*ranked.result().backbones[:-1], ranked.backbone("regnet", 3, top1=None)))
    path = ranked.put(tmp_path, made)
    assert path == tmp_path / "rank" / "dtd-0123abcd.rank.json"
    assert read(path) == made
    content = json.loads(path.read_text("utf-8"))
    assert content["schema"] == 1
    assert content.pop("checksum") == json_digest(content)


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    made = ranked.result(mean_rank={"convnext": float("nan")})
    with pytest.raises(ValueError, match="Out of range"):
        write(made, path_of(tmp_path, "dtd", "0"))
    assert not list((tmp_path / "rank").iterdir())


def sealed(**changes: Any) -> str:
    content = {"schema": 1, **asdict(ranked.result()), **changes}
    return json.dumps({**content, "checksum": json_digest(content)})


def without(part: str) -> str:
    content = {"schema": 1, **asdict(ranked.result())}
    del content[part]
    return json.dumps({**content, "checksum": json_digest(content)})


def of_backbones(change: Callable[[dict[str, Any]], Any]) -> str:
    backbones = [asdict(each) for each in ranked.result().backbones]
    change(backbones[0])
    return sealed(backbones=backbones)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not readable JSON"),
        ("[1, 2]", "no result of rank.py"),
        ('{"artist": "Miles Davis"}', "has schema None; this version reads 1"),
        (sealed(schema=2), "has schema 2; this version reads 1"),
        (json.dumps({"schema": 1, **asdict(ranked.result())}), "damaged: it has no checksum"),
        (sealed().replace("0.9", "0.8"), "its checksum differs"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema": NaN}', "it has NaN in it"),
        (without("order"), "it lacks 'order'"),
        (sealed(order=["swin"]), "its order is not one of its backbones"),
        (sealed(order=[*ranked.NAMES[:3], "swin"]), "its order is not one of its backbones"),
        (sealed(backbones=[asdict(ranked.backbone("swin", 0))] * 2, order=["swin"] * 2), "its order is not one"),
        (sealed(made=7), "expected a text, found 7"),
        (sealed(dataset={**asdict(ranked.result())["dataset"], "size": [1, 2, 3]}), "an input of 3 sides"),
        (sealed(notes=["x"] * 51), "expected 50 values at most, found 51"),
        (sealed(backbones={"a": 1}), "expected a list"),
        (of_backbones(lambda each: each.update(parameters=-1)), "expected a whole number, found -1"),
        (of_backbones(lambda each: each.update(top1="80")), "expected a number, found '80'"),
        (of_backbones(lambda each: each.update(scores={"probe": 1e300})), "expected a number, found 1e[+]300"),
        (of_backbones(lambda each: each.pop("macs")), "it lacks 'macs'"),
    ],
)
def test_what_is_damaged_or_foreign_is_skipped_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = path_of(tmp_path, "dtd", "0")
    path.parent.mkdir()
    path.write_text(text, "utf-8")
    with pytest.raises(RankError, match=reason):
        read(path)
    ranked.put(tmp_path, ranked.result())
    found = results(tmp_path)
    assert [each.path for each in found.found] == ["rank/dtd-0123abcd.rank.json"]
    assert [line["path"] for line in found.skipped] == ["rank/dtd-0.rank.json"]


def test_a_folder_and_a_large_file_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path_of(tmp_path, "dtd", "0").mkdir(parents=True)
    ranked.put(tmp_path, ranked.result())
    assert [line["reason"] for line in results(tmp_path).skipped] == ["not readable JSON: it is no regular file"]
    monkeypatch.setattr(rank_results, "LARGEST", 100)
    assert "larger than 100 bytes" in results(tmp_path).skipped[1]["reason"]
    assert not results(tmp_path / "nowhere").found


def test_a_search_lies_beside_its_scores(tmp_path: Path) -> None:
    ranked.put(tmp_path, ranked.result(), ranked.search())
    ranked.put(tmp_path, ranked.result(made="2026-11-30T11:00:00+00:00"), digest="fff")
    newer, older = results(tmp_path).found
    assert newer.search is None
    assert older.search is not None
    assert (older.search.recommendation, older.search.told_apart, older.search.spent_images) == (
        "convnext",
        False,
        7520,
    )
    assert [len(rung.candidates) for rung in older.search.rungs] == [4, 2]
    assert older.search.rungs[0].candidates[1].low == pytest.approx(0.6)


def test_of_a_search_what_is_not_said_is_not_known(tmp_path: Path) -> None:
    candidate = {"name": "swin", "interval": [0.1, 0.2]}
    bare = {"rungs": [{"candidates": [candidate, {"name": "resnet"}]}, {}], "images": 5}
    ranked.put(tmp_path, ranked.result(), bare)
    search = results(tmp_path).found[0].search
    assert search is not None
    assert (search.budget, search.recommendation, search.told_apart, search.complete) == ("", "", None, None)
    assert (search.spent_images, search.spent_seconds) == (5, None)
    only = search.rungs[0].candidates[0]
    assert (only.score, only.low, only.high, only.status) == (None, 0.1, 0.2, "")
    assert (search.rungs[0].candidates[1].low, search.rungs[0].candidates[1].high) == (None, None)


@pytest.mark.parametrize("text", ["{}", '{"rungs": 5}', '{"rungs": [7]}', '{"rungs": [], "checksum": "00"}', "?"])
def test_a_damaged_search_leaves_its_scores(tmp_path: Path, text: str) -> None:
    path = ranked.put(tmp_path, ranked.result())
    path.with_name("dtd-0123abcd.search.json").write_text(text, "utf-8")
    found = results(tmp_path)
    assert found.found[0].search is None
    assert [line["path"] for line in found.skipped] == ["rank/dtd-0123abcd.search.json"]


def test_a_search_without_scores_is_named(tmp_path: Path) -> None:
    ranked.put(tmp_path, ranked.result(), ranked.search()).unlink()
    assert [line["reason"] for line in results(tmp_path).skipped] == ["a search whose scores are not there"]


def test_of_many_results_the_newest_are_read(tmp_path: Path) -> None:
    for number in range(MOST_RESULTS + 2):
        ranked.put(tmp_path, ranked.result(made=f"2026-11-30T10:{number:02d}:00+00:00"), digest=f"{number:03d}")
    found = results(tmp_path)
    assert len(found.found) == MOST_RESULTS
    assert [line["path"] for line in found.skipped] == ["rank/dtd-001.rank.json", "rank/dtd-000.rank.json"]


def test_in_the_folder_of_all_runs_nothing_of_it_is_a_stranger(tmp_path: Path) -> None:
    ranked.put(tmp_path, ranked.result(), ranked.search())
    (tmp_path / "rank" / "features").mkdir()
    for name in ("lock", "features/resnet.npz", "dtd-0123abcd.ledger.json"):
        (tmp_path / "rank" / name).write_text("", "utf-8")
    alone = collect(tmp_path)
    assert (alone.entries, alone.skipped, len(alone.ranked)) == ([], [], 1)
    synthetic.write(tmp_path, synthetic.record("dtd", "resnet"))
    (tmp_path / "notes.txt").write_text("", "utf-8")
    path_of(tmp_path, "dtd", "bad").write_text("", "utf-8")
    both = collect(tmp_path)
    assert (len(both.entries), len(both.ranked)) == (1, 1)
    assert [line["path"] for line in both.skipped] == ["notes.txt", "rank/dtd-bad.rank.json"]


def test_what_others_write_is_cleaned(tmp_path: Path) -> None:
    made = ranked.result(rule="a\x1b[31mb", notes=("x" * 2000,))
    found = read(ranked.put(tmp_path, made))
    assert "\x1b" not in found.rule
    assert len(found.notes[0]) == 1000
    assert replace(found, rule=made.rule, notes=made.notes) == made
