"""reporting/ranking.py, complete.py and answers.py: what is ranked, and every reason not to."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import PUBLISHED
from reporting import published, ranking, statistics
from reporting.cd_diagram import diagram
from reporting.collect import collect
from reporting.comparable import ComparableGroup, divide
from reporting.complete import complete_block
from reporting.entry import ALL_IMAGES, Budget
from tests.reporting import synthetic

FIVE = ("ucmerced", "eurosat", "galaxy10", "breakhis_40x", "rsna")  # of four domains, with few classes
SIX = (*FIVE, "digits")
# so far apart that no seed can turn them around
LEVELS = {"convnext": 0.95, "swin": 0.90, "resnet": 0.80, "mobilenet": 0.70}


def group_of(folder: Path, *records: dict[str, Any]) -> ComparableGroup:
    for record in records:
        synthetic.write(folder, record)
    groups, _ = divide(collect(folder).entries)
    return groups[0]


def grid(
    datasets: tuple[str, ...] = FIVE,
    levels: dict[str, float] = LEVELS,
    seeds: int = 3,
    without: tuple[tuple[str, str], ...] = (),
    **changes: Any,
) -> list[dict[str, Any]]:
    """Runs of every dataset and backbone, the accuracy of a backbone about the same on each."""
    return [
        synthetic.record(dataset, name, seed, top1=level + 0.003 * seed + 0.002 * place, **changes)
        for place, dataset in enumerate(datasets)
        for name, level in levels.items()
        for seed in range(seeds)
        if (dataset, name) not in without
    ]


def ranked(folder: Path, *records: dict[str, Any], scope: str = "overall") -> dict[str, Any]:
    return ranking.ranking(group_of(folder, *records), ALL_IMAGES, scope)


def test_five_datasets_and_three_seeds_are_tested(tmp_path: Path) -> None:
    found = ranked(tmp_path, *grid())
    assert (found["kind"], found["enough"]) == ("tested", True)
    assert found["backbones"] == list(LEVELS)
    assert found["ranks"] == {"convnext": "1.00", "swin": "2.00", "resnet": "3.00", "mobilenet": "4.00"}
    friedman = "Friedman: χ²(3) = 15.00, p = 0.002; Iman-Davenport: F(3, 12) is infinite, the ranks being the same on"
    nemenyi = "Nemenyi: average ranks that differ by less than 2.10 can't be told apart at 0.05."
    assert found["tests"] == [
        f"{friedman} every dataset, p < 0.001. {nemenyi}",
        "Not distinguishable from each other: convnext, swin and resnet; swin, resnet and mobilenet.",
    ]
    assert nemenyi in found["evidence"]
    assert found["caption"] == "Average ranks by top-1 over 5 datasets (all domains); 1 is best."
    assert found["cliques"] == [["convnext", "swin", "resnet"], ["swin", "resnet", "mobilenet"]]
    assert found["answer"] == (
        "convnext: best average rank over 5 datasets, 1.00 among 4 backbones. swin and resnet can't be told apart from "
        "it; the other one is significantly worse."
    )
    assert found["svg"].startswith("<svg")


def test_one_that_beats_all_others(tmp_path: Path) -> None:
    found = ranked(tmp_path, *grid((*FIVE, "digits"), {"convnext": 0.95, "swin": 0.9, "resnet": 0.8}, 3))
    assert "swin can't be told apart" in found["answer"]
    many = tuple(dataset.key for dataset in PUBLISHED if dataset.classes <= 102)
    clear = ranked(tmp_path / "more", *grid((*many, "digits"), {"convnext": 0.95, "swin": 0.9, "resnet": 0.8}, 3))
    assert (len(clear["datasets"]), clear["independent"]) == (16, 13)
    assert clear["answer"].endswith("1.00 among 3 backbones, significantly better than every other.")


def test_ranks_that_do_not_differ_have_no_winner(tmp_path: Path) -> None:
    names = ("convnext", "swin", "resnet")
    records = [
        synthetic.record(dataset, name, seed, top1=0.8 + 0.05 * ((place + shift) % 3))
        for place, dataset in enumerate((*FIVE, "digits"))
        for shift, name in enumerate(names)
        for seed in range(3)
    ]
    found = ranked(tmp_path, *records)
    assert found["kind"] == "tested"
    assert found["answer"].startswith("No winner: over 6 datasets, the average ranks of 3 backbones do not differ")
    assert [set(clique) for clique in found["cliques"]] == [set(names)]


def test_two_backbones_are_tested_by_signed_ranks(tmp_path: Path) -> None:
    """Of five datasets, not even five wins can be significant, and it says so; of six they are."""
    two = {"convnext": 0.95, "swin": 0.75}
    found = ranked(tmp_path / "five", *grid(levels=two))
    assert (found["kind"], found["tests"], found["svg"]) == ("means", [], None)
    assert found["answer"].endswith(
        "Too few datasets for rank tests (5 of 6): that of two backbones is Wilcoxon's signed-rank test, and it can't "
        "give less than p = 0.062 over 5 datasets, 6 are needed."
    )
    assert found["missing"] == ["1 more dataset for the rank test of two backbones, which takes 6"]
    more = ranked(tmp_path / "six", *grid((*FIVE, "digits"), two))
    assert (more["kind"], more["cliques"], more["svg"]) == ("tested", [], None)
    assert more["answer"].startswith("convnext: significantly better than swin (p = 0.031")
    assert more["tests"] == ["convnext against swin: p = 0.031 by Wilcoxon's signed-rank test over 6 datasets."]


def test_six_datasets_of_which_one_does_not_differ(tmp_path: Path) -> None:
    equal = [synthetic.record("digits", name, seed, top1=0.5) for name in ("convnext", "swin") for seed in range(3)]
    found = ranked(tmp_path / "one", *grid(levels={"convnext": 0.95, "swin": 0.75}), *equal)
    assert found["answer"] == (
        "No winner: convnext and swin can't be told apart (p = 0.062 by Wilcoxon's signed-rank test over 6 datasets, "
        "of which only 5 differ: it can't give less than p = 0.062 over 5 datasets, 6 are needed)."
    )
    same = ranked(tmp_path / "all", *grid((*FIVE, "digits"), {"convnext": 0.9, "swin": 0.9}))
    assert same["answer"] == "No winner: convnext and swin are equal on each of 6 datasets."


def test_too_few_seeds_in_one_cell(tmp_path: Path) -> None:
    records = [record for record in grid() if (record["dataset"]["key"], record["seed"]) != ("rsna", 2)]
    found = ranked(tmp_path, *records)
    assert (found["kind"], found["enough"], found["svg"]) == ("none", False, None)
    assert found["cliques"] == found["tests"] == []
    assert found["answer"] == "Not enough evidence: 4 of 20 cells have fewer than 3 seeds."
    assert found["missing"] == [
        "4 more runs for 3 seeds in every cell: RSNA Pneumonia/resnet has 2, RSNA Pneumonia/convnext has 2, RSNA "
        "Pneumonia/swin has 2 and RSNA Pneumonia/mobilenet has 2"
    ]
    assert "without a claim: convnext has the highest mean top-1" in found["evidence"][0]


def test_one_seed(tmp_path: Path) -> None:
    found = ranked(tmp_path, *grid(seeds=1))
    assert found["answer"] == "Not enough evidence: all 20 cells have fewer than 3 seeds."
    assert found["missing"][0].startswith("40 more runs for 3 seeds in every cell")


def test_four_datasets_are_not_tested(tmp_path: Path) -> None:
    found = ranked(tmp_path, *grid(FIVE[:4]))
    assert (found["kind"], found["enough"], found["tests"], found["svg"]) == ("means", False, [], None)
    assert found["missing"] == ["1 more dataset for rank tests, which take 5"]
    assert found["answer"].startswith(
        "convnext: best mean top-1 on UCMerced, EuroSAT, Galaxy10 DECaLS and BreakHis 40x, 95."
    )
    assert found["answer"].endswith("Too few datasets for rank tests (4 of 5).")


def test_a_domain_of_one_dataset_is_answered_by_seeds(tmp_path: Path) -> None:
    levels = {"convnext": 0.9, "swin": 0.9, "mobilenet": 0.7}
    records = [
        synthetic.record("dtd", name, seed, top1=level + 0.01 * ((seed + shift) % 3) + 0.001 * shift)
        for shift, (name, level) in enumerate(levels.items())
        for seed in range(3)
    ]
    found = ranked(tmp_path, *records, scope="texture")
    assert found["kind"] == "means"
    assert found["answer"] == (
        f"swin: best mean top-1 on DTD, {found['mean']['swin']}%; convnext is not significantly below the best. "
        "Too few texture datasets for rank tests (1 of 5)."
    )


def test_the_others_are_below_on_each_dataset_or_on_some(tmp_path: Path) -> None:
    found = ranked(tmp_path / "each", *grid(("dtd", "eurosat")))
    assert "; every other is significantly below the best on each of them. " in found["answer"]
    two = grid(("dtd", "eurosat"), {"convnext": 0.9, "swin": 0.7})
    for record in two:
        if record["dataset"]["key"] == "eurosat":
            record["test"] = synthetic.record("eurosat", "swin", record["seed"], top1=0.9)["test"]
    some = ranked(tmp_path / "some", *two)
    assert "; swin is significantly below the best on some of them. " in some["answer"]


def test_equal_means_are_said_to_be_equal(tmp_path: Path) -> None:
    levels = {"convnext": 0.5, "swin": 0.5, "mobilenet": 0.2}
    found = ranked(tmp_path, *grid(("dtd",), levels), scope="texture")
    assert found["answer"].startswith(
        f"convnext and swin are equal, {found['mean']['swin']}%: the best mean top-1 on DTD; mobilenet is "
        "significantly below them. "
    )
    assert found["evidence"][0].startswith("DTD: best convnext and swin, equal, ")
    all_equal = ranked(tmp_path / "two", *grid(("dtd",), {"convnext": 0.5, "swin": 0.5}), scope="texture")
    assert f"are equal, {found['mean']['swin']}%: their mean top-1 on DTD. Too few" in all_equal["answer"]


def test_another_backbone_was_run_too_seldom(tmp_path: Path) -> None:
    without = tuple((dataset, "swin") for dataset in FIVE[:3])
    found = ranked(tmp_path, *grid(levels={"resnet": 0.8, "swin": 0.9}, without=without))
    assert found["answer"] == "Not enough evidence: only resnet was run on at least half of the 5 datasets."


def test_datasets_of_ones_own(tmp_path: Path) -> None:
    records = grid(("dtd",), {"convnext": 0.9, "swin": 0.5})
    for record in records:
        record["dataset"] |= {"key": "mine", "domain": "own"}
    assert "Too few datasets of your own for rank tests (1 of 6)." in ranked(tmp_path, *records, scope="own")["answer"]


def test_one_backbone(tmp_path: Path) -> None:
    found = ranked(tmp_path, *grid(levels={"swin": 0.9}))
    assert (found["kind"], found["ranks"]) == ("none", {})
    assert found["answer"] == "Not enough evidence: only swin was run."
    assert found["missing"] == ["3 seeds of at least one more backbone on the same datasets"]


def test_no_dataset_of_the_domain(tmp_path: Path) -> None:
    found = ranked(tmp_path, *grid(), scope="plant")
    assert found["answer"] == "Not enough evidence: no finished run on plant data."
    assert found["missing"] == ["3 seeds of at least two backbones on a dataset (PlantVillage and PlantCLEF)"]
    assert (found["backbones"], found["datasets"], found["mean"]) == ([], [], {})


def test_no_dataset_that_all_were_run_on(tmp_path: Path) -> None:
    pairs = (("ucmerced", "swin"), ("eurosat", "resnet"))
    found = ranked(tmp_path, *grid(FIVE[:2], {"swin": 0.9, "resnet": 0.8}, without=pairs))
    assert found["answer"] == "Not enough evidence: no dataset on which all of resnet and swin were run."
    assert found["missing"] == ["dataset UCMerced: no run of swin", "dataset EuroSAT: no run of resnet"]


def test_no_backbone_on_half_of_the_datasets(tmp_path: Path) -> None:
    pairs = tuple(
        (dataset, name) for dataset in FIVE[:3] for name in ("a", "b", "c") if FIVE.index(dataset) != "abc".index(name)
    )
    levels = dict(zip(("resnet", "swin", "convnext"), (0.8, 0.8, 0.8), strict=True))
    names = dict(zip("abc", levels, strict=True))
    found = ranked(tmp_path, *grid(FIVE[:3], levels, without=tuple((d, names[n]) for d, n in pairs)))
    assert found["answer"] == "Not enough evidence: no backbone was run on half of the datasets."


def test_what_is_left_out_of_a_block(tmp_path: Path) -> None:
    """First the backbone that lacks more than half of the datasets, then the dataset that another lacks."""
    without = (*((dataset, "mobilenet") for dataset in FIVE[:3]), ("rsna", "swin"))
    found = ranked(tmp_path, *grid(without=without))
    assert found["left_out"] == [
        {"what": "backbone mobilenet", "why": "no run on 3 of 5 datasets"},
        {"what": "dataset RSNA Pneumonia", "why": "no run of swin"},
    ]
    assert found["datasets"] == list(FIVE[:4])
    assert found["kind"] == "means"  # four datasets are too few
    assert "mobilenet" not in found["ranks"]


def test_budgets_are_ranked_apart(tmp_path: Path) -> None:
    few = grid(seeds=1, budget="5 shots")
    group = group_of(tmp_path, *grid(), *few)
    assert ranking.ranking(group, ALL_IMAGES, "overall")["kind"] == "tested"
    assert ranking.ranking(group, Budget(5), "overall")["kind"] == "none"
    empty = ranking.ranking(group, Budget(5), "plant")
    assert empty["answer"] == "Not enough evidence: no finished run on plant data with 5 shots a class."


def test_datasets_of_the_same_subjects_are_one_dataset(tmp_path: Path) -> None:
    """BreakHis at four magnifications: four rows make no five datasets, and weigh as much as one."""
    rows = ("breakhis_40x", "breakhis_100x", "breakhis_200x", "breakhis_400x", "rsna")
    records = grid(rows, {"convnext": 0.9, "swin": 0.8, "resnet": 0.7})
    found = ranked(tmp_path, *records)
    assert (found["kind"], found["independent"], len(found["datasets"])) == ("means", 2, 5)
    assert "Too few datasets for rank tests (2 of 5)" in found["answer"]
    assert "3 more datasets for rank tests, which take 5" in found["missing"]
    same = (
        "BreakHis 40x, BreakHis 100x, BreakHis 200x and BreakHis 400x show the same subjects: their mean counts as one"
    )
    assert f"{same} dataset." in found["evidence"]
    group = group_of(tmp_path, *records)
    block = complete_block(group, ALL_IMAGES, rows)
    of_rows = np.array([[block.cells[row, name].mean() for name in block.backbones] for row in rows])
    np.testing.assert_allclose(block.scores, [of_rows[:4].mean(axis=0), of_rows[4]])
    pair = ranking.pairs(group, ALL_IMAGES)[0]
    assert (pair["datasets"], pair["enough"]) == (2, False)
    expected = np.diff(block.scores[:, [block.backbones.index(pair["b"]), block.backbones.index(pair["a"])]], axis=1)
    assert pair["difference"] == pytest.approx(100 * expected.mean(), abs=0.005)


def test_pairs(tmp_path: Path) -> None:
    pairs = {(pair["a"], pair["b"]): pair for pair in ranking.pairs(group_of(tmp_path, *grid(SIX)), ALL_IMAGES)}
    assert len(pairs) == 6
    pair = pairs["resnet", "convnext"]
    assert pair["difference"] == pytest.approx(-15, abs=0.5)
    assert pair["low"] <= pair["difference"] <= pair["high"] < 0
    assert (pair["better"], pair["datasets"], pair["enough"], pair["differs"], pair["why"]) == (0, 6, True, True, "")
    agrees = "The 95 % interval of the bootstrap excludes 0, and Wilcoxon's signed-rank test (p = 0.031) agrees"
    assert pair["said"] == agrees


def test_a_bootstrap_that_the_signed_ranks_do_not_support(tmp_path: Path) -> None:
    """Of six datasets, a is ahead on five by much, and behind on one by the least."""
    one = {"digits": -0.01}
    records = [
        synthetic.record(
            dataset, name, seed, top1=0.7 + (one.get(dataset, 0.1 + 0.01 * place) if name == "swin" else 0)
        )
        for place, dataset in enumerate(SIX)
        for name in ("swin", "resnet")
        for seed in range(3)
    ]
    (pair,) = ranking.pairs(group_of(tmp_path, *records), ALL_IMAGES)
    assert pair["high"] < 0
    assert not pair["differs"]
    assert pair["said"] == (
        "No claim: the 95 % interval of the bootstrap excludes 0, but Wilcoxon's signed-rank test (p = 0.062) does not "
        "support a difference"
    )


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (grid(FIVE, {"swin": 0.9, "resnet": 0.8}), "5 shared datasets of 6"),
        (grid(SIX, {"swin": 0.9, "resnet": 0.8}, 2), "2 shared seeds of 3 on some dataset"),
        (grid(FIVE[:1], {"swin": 0.9, "resnet": 0.8}, 1), "1 shared dataset of 6, 1 shared seed of 3 on some dataset"),
        (
            [synthetic.record("rsna", "swin", 0), synthetic.record("rsna", "resnet", 1)],
            "no dataset and seed that both were run with",
        ),
    ],
)
def test_pairs_that_can_not_be_compared(tmp_path: Path, records: list[dict[str, Any]], why: str) -> None:
    (pair,) = ranking.pairs(group_of(tmp_path, *records), ALL_IMAGES)
    assert (pair["enough"], pair["why"]) == (False, why)
    assert pair["low"] is pair["high"] is pair["better"] is None


def test_beside_the_published_ranking(tmp_path: Path) -> None:
    group = group_of(tmp_path, *grid(FIVE, protocol="paper"))
    found = published.beside_ours({scope: ranking.ranking(group, ALL_IMAGES, scope) for scope in published.RANKING})
    rows = {row["domain"]: row for row in found["rows"]}
    assert (rows["astronomy"]["best"], rows["astronomy"]["better"]) == ("wavemix", "convnext")
    assert rows["astronomy"]["ours"] == list(LEVELS)
    assert (rows["texture"]["ours"], rows["texture"]["why"]) == (
        None,
        "Not enough evidence: no finished run on texture data.",
    )
    assert rows["medical"]["better"] is None


def test_the_diagram_takes_the_pages_colours_and_is_always_the_same() -> None:
    average = dict(zip(["a$b", "c", "d", "e"], np.array([1.2, 2.4, 2.6, 3.8]), strict=True))
    drawing = diagram(average, 1.3, statistics.cliques(average, 1.3))
    assert drawing == diagram(average, 1.3, statistics.cliques(average, 1.3))
    assert drawing.startswith("<svg")
    assert "currentColor" in drawing
    assert 'role="img" aria-label="Critical-difference diagram: a$b 1.20, c 2.40, d 2.60, e 3.80"' in drawing
    for absent in ("#000000", "#ffffff", "<style", "clip-path", "<!DOCTYPE", "<metadata", "http://www.w3.org/1999/02"):
        assert absent not in drawing, absent
    for name in ("a$b 1.20", "3.80 e", "critical difference 1.30"):
        assert name in drawing.replace("\N{NO-BREAK SPACE}", " ")
    other = diagram(average | {"e": 4.0}, 1.3, [])
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (drawing, other)]
    assert not ids[0] & ids[1]
