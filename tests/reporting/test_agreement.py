"""reporting/agreement.py, truth.py and agreement_words.py: an order of backbones held against real fine-tuning."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import weightedtau

from common import BACKBONES
from reporting.agreement import (
    ORDER,
    PRIOR,
    Assessment,
    as_scores,
    assess,
    regret,
    sampled,
    scores_of,
    weighted_tau,
    weighted_taus,
)
from reporting.agreement_words import LITERATURE, sentences
from reporting.rank_results import SCORES, RankResult
from reporting.truth import Truth, find_truth, verified_in
from reporting.truth import mean_ranks as ranks_of
from tests.reporting import ranked, synthetic

ACCURACY = {"convnext": 0.72, "swin": 0.74, "resnet": 0.60, "regnet": 0.56}  # of names in the order of `ranked`
WEIGHTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ACCURACY}


def assess_in(result: RankResult, runs: Path) -> Assessment:
    """assess(), with the records below a folder of runs, as are the two that follow."""
    return assess(result, verified_in(runs))


def truth_in(runs: Path, key: str, test_part: str, weights: Mapping[str, str]) -> tuple[Truth | None, str]:
    return find_truth(verified_in(runs), key, test_part, weights)


def mean_ranks(runs: Path, without: str, weights: Mapping[str, str]) -> tuple[dict[str, float], int] | None:
    return ranks_of(verified_in(runs), without, weights)


def put(runs: Path, name: str, seed: int = 0, **changes: Any) -> Path:
    """A finished run whose accuracy is that of its backbone, and half a point more for every seed."""
    part = {"test_part": ranked.PART, **changes.pop("dataset", {})}
    top1 = changes.pop("top1", ACCURACY.get(name, 0.5) + 0.005 * seed)
    return synthetic.write(runs, synthetic.record("dtd", name, seed, top1=top1, dataset=part, **changes))


def fill(runs: Path, seeds: int = 2, names: Sequence[str] = tuple(ACCURACY), **changes: Any) -> None:
    for name in names:
        for seed in range(seeds):
            put(runs, name, seed, **changes)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_tau_is_scipys(ties: bool) -> None:
    random = np.random.default_rng(3)
    for backbones in (3, 4, 7, 11):
        values, truths = random.random(backbones), random.random((20, backbones))
        if ties:
            values, truths = np.round(values, 1), np.round(truths, 1)
        expected = [weightedtau(values, truth).statistic for truth in truths]
        assert weighted_taus(values, truths) == pytest.approx(expected, nan_ok=True)


def test_weighted_tau_by_hand() -> None:
    truth = {"a": 0.9, "b": 0.8, "c": 0.7}
    assert weighted_tau(as_scores(["a", "b", "c"]), truth) == pytest.approx(1)
    assert weighted_tau(as_scores(["c", "b", "a"]), truth) == pytest.approx(-1)
    # the pairs weigh 1 + 1/2, 1 + 1/3, 1/2 + 1/3; of the first two swapped, the first is the wrong one, by either ranks
    assert weighted_tau(as_scores(["b", "a", "c"]), truth) == pytest.approx((-3 / 2 + 4 / 3 + 5 / 6) / (11 / 3))
    assert weighted_tau(as_scores(["a", "c", "b"]), truth) == pytest.approx((3 / 2 + 4 / 3 - 5 / 6) / (11 / 3))


def test_weighted_tau_that_there_is_not() -> None:
    assert weighted_tau({"a": 1, "b": 2}, {"a": 0.1, "b": 0.2}) is None
    assert weighted_tau({"a": 1, "b": 2, "c": None}, {"a": 0.1, "b": 0.2, "c": 0.3}) is None
    assert weighted_tau({"a": 1, "b": 2, "c": 3}, {"a": 0.1, "b": 0.2, "d": 0.3}) is None
    assert weighted_tau(dict.fromkeys("abc", 1.0), {"a": 0.1, "b": 0.2, "c": 0.3}) is None
    assert weighted_tau({"a": 1, "b": 2, "c": 3}, dict.fromkeys("abc", 0.5)) is None


def test_regret_by_hand() -> None:
    truth = {"a": 0.70, "b": 0.90, "c": 0.80, "d": 0.50}
    order = as_scores(["d", "a", "c", "b"])
    assert [regret(order, truth, k) for k in (1, 2, 3, 4, 9)] == pytest.approx([40, 20, 10, 0, 0])
    assert regret(as_scores(["b", "a"]), truth, 1) == 0
    # of b, c and d, which are equal behind a, two of three choices have b in them, and one c
    tied = {"a": 2.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert regret(tied, truth, 1) == pytest.approx(20)
    assert regret(tied, truth, 2) == pytest.approx((0 + 10 + 20) / 3)
    assert regret(tied, truth, 3) == pytest.approx((0 + 0 + 10) / 3)
    assert regret({"a": 1.0, "b": None}, truth, 3) == pytest.approx(20)
    assert math.isnan(regret({"z": 1.0}, truth, 1))


def test_the_truth_is_the_mean_over_seeds_of_these_weights(tmp_path: Path) -> None:
    fill(tmp_path)
    truth, reason = truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)
    assert truth is not None
    assert reason == ""
    assert truth.means == pytest.approx({name: value + 0.0025 for name, value in ACCURACY.items()}, abs=1e-3)
    assert (truth.seeds, truth.images) == ((2, 2), 1880)
    assert truth_in(tmp_path, "dtd", ranked.PART, {**WEIGHTS, "tiny": "00" * 32})[0] is not None


def test_what_is_no_truth_of_an_order(tmp_path: Path) -> None:
    assert truth_in(tmp_path / "none", "dtd", ranked.PART, WEIGHTS)[1] == "no record of a run on these images is here"
    fill(tmp_path, names=("convnext", "swin"))
    put(tmp_path, "resnet", protocol="paper")
    put(tmp_path, "resnet", budget="5 shots", dataset={"taken": [5] * 47})
    put(tmp_path, "resnet", backbone={"weights_sha256": "11" * 32})
    put(tmp_path, "resnet", backbone={"weights": "none", "weights_sha256": None})
    put(tmp_path, "resnet", status="running", finished=None)
    put(tmp_path, "resnet", config={"tune": "linear"})
    put(tmp_path, "resnet", dataset={"partial": True, "differences": ["3 images are missing"]})
    put(tmp_path, "resnet", backbone={"weights_run": {"dataset": "a", "protocol": "honest", "weights": "x"}})
    few = "only 2 of the 4 backbones have runs that can be compared, and it takes 3 to speak of an order"
    assert truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS) == (None, few)
    other = "the 8 records of this dataset here had other test images"
    found = truth_in(tmp_path, "dtd", "ef" * 32, WEIGHTS)[1]
    assert found.endswith(other[4:].partition(" ")[2])
    unknown = truth_in(tmp_path, "dtd", ranked.PART, {"swin": "22" * 32})[1]
    assert unknown == "no finished fine-tuning of these weights, under the honest protocol and on all images, is here"
    put(tmp_path, "resnet")
    assert truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)[0] is not None


def test_of_several_groups_that_with_most_backbones_then_seeds_is_the_truth(tmp_path: Path) -> None:
    three = ("convnext", "swin", "resnet")
    fill(tmp_path, seeds=3, names=three, config={"batch_size": 8})
    fill(tmp_path, seeds=1)
    truth, _ = truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)
    assert truth is not None
    assert (len(truth.cells), truth.setting.flags) == (4, ())
    fill(tmp_path, seeds=2, config={"batch_size": 16})
    truth, _ = truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)
    assert truth is not None
    assert (truth.seeds, dict(truth.setting.flags)) == ((2, 2), {"batch_size": 16})


def test_short_runs_of_a_search_are_the_truth_where_nothing_else_is(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1, search="rung 1 of 2", config={"epochs": 2})
    assessment = assess_in(ranked.result(), tmp_path)
    assert assessment.truth is not None
    assert assessment.truth.setting.search == "rung 1 of 2"
    assert "in short runs of a search (rung 1 of 2) and no full trainings" in sentences(assessment)[0]
    fill(tmp_path, seeds=1, names=("convnext", "swin", "resnet"))
    truth, _ = truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)
    assert truth is not None
    assert (truth.setting.search, len(truth.cells)) == ("", 3)


def test_weights_of_a_file_and_names_that_this_project_lacks_count(tmp_path: Path) -> None:
    own = {"bird": "aa" * 32, "tf1": "bb" * 32, "tf2": "cc" * 32}
    for place, (name, sha256) in enumerate(own.items()):
        assert name not in BACKBONES
        backbone = {"name": name, "weights": f"inat_{name}", "weights_sha256": sha256}
        put(tmp_path, "resnet", top1=0.5 + 0.1 * place, backbone=backbone)
    names = tuple(reversed(own))
    result = ranked.result(
        names, backbones=tuple(ranked.backbone(name, n, weights_sha256=own[name]) for n, name in enumerate(names))
    )
    assessment = assess_in(result, tmp_path)
    assert list(assessment.measured) == list(names)
    tau = assessment.measures[ORDER].tau
    assert tau is not None
    assert tau.value == pytest.approx(1)


def outcomes(runs: Path, seeds: int, images: int) -> None:
    """Runs with predictions: each backbone gets the first so many images right, the next seed those and one more."""
    for place, name in enumerate(ACCURACY):
        for seed in range(seeds):
            right = np.arange(images) < round(images * (0.8 - 0.1 * place)) + seed
            synthetic.write_outcome(runs, "dtd", name, seed, list(right), dataset={"test_part": ranked.PART})


def test_images_are_paired_where_the_predictions_are_there(tmp_path: Path) -> None:
    outcomes(tmp_path, 2, 200)
    truth, _ = truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)
    assert truth is not None
    means, paired = sampled(truth)
    assert paired
    assert means.shape == (2000, 4)
    assert means.mean(axis=0) == pytest.approx([0.8025, 0.7025, 0.6025, 0.5025], abs=0.005)
    # seeds vary by half an image of 200, on both sides; images by the binomial distribution
    expected = [math.sqrt(p * (1 - p) / 200 + 0.005**2 / 8) for p in truth.means.values()]
    assert means.std(axis=0) == pytest.approx(expected, rel=0.1)
    # whoever gets one image right gets those of the others right, too: none can overtake another
    assert (np.diff(means, axis=1) < 0.01).all()
    assert (sampled(truth)[0] == means).all()
    for path in tmp_path.rglob("swin/*/predictions.npz"):
        path.unlink()
    alone, paired = sampled(truth)
    assert not paired
    assert alone.std(axis=0) == pytest.approx(expected, rel=0.1)
    assert (np.diff(alone, axis=1) > 0.01).any()


def test_one_seed_says_nothing_of_other_seeds(tmp_path: Path) -> None:
    outcomes(tmp_path, 1, 400)
    assessment = assess_in(ranked.result(), tmp_path)
    assert "not over seeds, of which there is one" in sentences(assessment)[2]
    assert "too narrow" not in sentences(assessment)[2]
    first = assessment.measured["convnext"]
    assert (first.value, first.low, first.high) == pytest.approx((80, 76, 84), abs=0.5)


def test_the_order_stands_beside_the_static_prior_and_every_score(tmp_path: Path) -> None:
    fill(tmp_path, seeds=3)
    backbones = [ranked.backbone(name, place) for place, name in enumerate(ranked.NAMES)]
    backbones[3] = ranked.backbone("regnet", 3, top1=None)
    assessment = assess_in(ranked.result(backbones=tuple(backbones)), tmp_path)
    assert set(assessment.measures) == {ORDER, PRIOR, *SCORES}
    order, prior = assessment.measures[ORDER], assessment.measures[PRIOR]
    truth = {name: value + 0.005 for name, value in ACCURACY.items()}
    assert order.tau is not None
    assert order.tau.value == pytest.approx(weighted_tau(as_scores(ranked.NAMES), truth))
    assert order.tau.low <= order.tau.value <= order.tau.high
    assert order.regret[1].value == pytest.approx(2, abs=0.1)
    assert order.regret[3].value == 0
    # the prior has the worst of three first; of regnet it is not known
    assert (prior.backbones, order.backbones) == (3, 4)
    assert prior.regret[1].value == pytest.approx(14, abs=0.1)
    said = sentences(assessment)
    assert said[0].startswith(
        "Where these images have been fine-tuned already (4 backbones, 3 seeds each): this order "
    )
    assert f"agrees with weighted tau {order.tau.value:.2f} (95 % " in said[0]
    assert "ImageNet accuracy alone, of the 3 of which it is known, -" in said[0]
    assert "Its first loses 2.0 points to the best (95 % " in said[0]
    assert "by ImageNet accuracy alone it is 14.0 and 0.0." in said[0]
    assert said[1].startswith("Each score by itself, weighted tau: 1-NN 0.")
    assert "binomial noise of 1,880 test images" in said[2]
    assert said[2].endswith(". Of so few seeds, they are rather too narrow.")


def test_of_backbones_that_were_not_trained_nothing_is_claimed(tmp_path: Path) -> None:
    """Whoever trains the first three in full must not read then that the best of the first three lost nothing."""
    fill(tmp_path, names=ranked.NAMES[:3], config={"size": [64, 64]})
    assessment = assess_in(ranked.result(), tmp_path)
    assert set(assessment.measures[ORDER].regret) == {1}
    said = sentences(assessment)[0]
    assert "(only 3 of the 4 backbones, 2 seeds each, at 64x64 pixels)" in said
    assert "Their first loses 2.0 points to the best of these (95 % " in said
    assert "first three" not in said
    assert said.endswith("; by ImageNet accuracy alone it is 14.0.")


def test_a_prior_that_is_not_known_is_not_said(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1)
    backbones = tuple(ranked.backbone(name, place, top1=None) for place, name in enumerate(ranked.NAMES))
    said = sentences(assess_in(ranked.result(backbones=backbones), tmp_path))[0]
    assert "ImageNet accuracy alone can't be held beside it, being known of none of them" in said
    assert said.endswith("(95 % 0.0 to 0.0).")


def of_domain(domain: str) -> RankResult:
    made = ranked.result()
    return replace(made, dataset=replace(made.dataset, domain=domain))


def test_without_records_the_literature_is_said_and_of_medical_images_that_scores_fail(tmp_path: Path) -> None:
    said = sentences(assess_in(of_domain("texture"), tmp_path))
    assert said == ["Nothing to hold this order against: no record of a run on these images is here.", *LITERATURE]
    medical = sentences(assess_in(of_domain("medical"), tmp_path))[-1]
    assert medical.startswith("On medical images such scores are known to fail")
    assert "2405.20420" in medical
    assert "2308.07444" in medical
    assert sentences(assess_in(of_domain("own"), tmp_path))[-1].startswith("Should these images be medical: ")
    fill(tmp_path, seeds=1)
    assert sentences(assess_in(of_domain("medical"), tmp_path))[-1] == medical


def test_a_record_that_its_files_contradict_is_no_truth(tmp_path: Path) -> None:
    outcomes(tmp_path, 1, 100)
    swin, resnet = (next(tmp_path.rglob(f"{name}/*/predictions.npz")) for name in ("swin", "resnet"))
    swin.write_bytes(resnet.read_bytes())
    truth, _ = truth_in(tmp_path, "dtd", ranked.PART, WEIGHTS)
    assert truth is not None
    assert list(truth.cells) == ["convnext", "resnet", "regnet"]


def test_scores_are_by_name() -> None:
    made = scores_of(ranked.result())
    assert made[ORDER] == {"convnext": -1, "swin": -2, "resnet": -3, "regnet": -4}
    assert made[PRIOR]["resnet"] == 82
    assert made["knn5"]["swin"] == pytest.approx(0.79)


def test_mean_ranks_over_other_datasets(tmp_path: Path) -> None:
    fill(tmp_path, seeds=1)
    assert mean_ranks(tmp_path, "dtd", WEIGHTS) is None
    for dataset in ("ucmerced", "eurosat"):
        for name in ACCURACY:
            worse = 0.2 if (dataset, name) == ("eurosat", "swin") else ACCURACY[name]
            synthetic.write(tmp_path, synthetic.record(dataset, name, top1=worse))
    found = mean_ranks(tmp_path, "dtd", WEIGHTS)
    assert found is not None
    ranks, datasets = found
    assert datasets == 2
    assert ranks == pytest.approx({"convnext": 1.5, "swin": 2.5, "resnet": 2.5, "regnet": 3.5})
    assert mean_ranks(tmp_path, "eurosat", WEIGHTS) is not None
    assert mean_ranks(tmp_path, "dtd", {**WEIGHTS, "tiny": "33" * 32}) is None
    assert mean_ranks(tmp_path, "dtd", {**WEIGHTS, "swin": "33" * 32}) is None
    assert mean_ranks(tmp_path, "dtd", {}) is None
    assert mean_ranks(tmp_path / "none", "dtd", WEIGHTS) is None


def test_datasets_of_the_same_subjects_are_one_and_none_with_that_asked_for(tmp_path: Path) -> None:
    for dataset in ("breakhis_40x", "breakhis_100x", "ucmerced"):
        for name in ACCURACY:
            worse = 0.2 if (dataset, name) == ("breakhis_40x", "swin") else ACCURACY[name]
            synthetic.write(tmp_path, synthetic.record(dataset, name, top1=worse))
    found = mean_ranks(tmp_path, "dtd", WEIGHTS)
    assert found is not None
    assert found[1] == 2
    assert found[0]["swin"] == pytest.approx(((4 + 1) / 2 + 1) / 2)
    assert mean_ranks(tmp_path, "breakhis_200x", WEIGHTS) is not None  # no record says whose those are
    assert mean_ranks(tmp_path, "breakhis_40x", WEIGHTS) is None


def test_short_runs_are_in_no_mean_rank(tmp_path: Path) -> None:
    for dataset in ("eurosat", "ucmerced"):
        for name in ACCURACY:
            synthetic.write(tmp_path, synthetic.record(dataset, name, search="rung 1 of 2"))
    assert mean_ranks(tmp_path, "dtd", WEIGHTS) is None
