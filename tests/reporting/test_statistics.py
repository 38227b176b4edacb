"""reporting/statistics.py against Demšar 2006, scipy, statsmodels and scikit-posthocs."""

import math

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from reporting import statistics
from reporting.statistics import cliques, critical_difference, friedman, holm, interval, marks, pareto, ranks, same_mean

# Demšar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 datasets
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
RANDOM = np.random.default_rng(0)


def test_the_worked_example() -> None:
    """Page 16: average ranks, chi2 = 9.28, F = 3.69 with 3 and 39 degrees of freedom, and the critical differences."""
    average = ranks(DEMSAR).mean(axis=0)
    assert average == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    tests = friedman(DEMSAR)
    assert tests.chi2 == pytest.approx(9.28, abs=0.005)
    assert tests.f == pytest.approx(3.69, abs=0.005)
    assert tests.p_f < 0.05  # the critical value of F(3, 39) is 2.85
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(("backbones", "q05"), [(2, 1.960), (3, 2.343), (5, 2.728), (7, 2.949), (10, 3.164)])
def test_the_published_critical_values(backbones: int, q05: float) -> None:
    """Demšar 2006, table 5 a."""
    scale = math.sqrt(backbones * (backbones + 1) / 60)
    assert critical_difference(backbones, 10) / scale == pytest.approx(q05, abs=1e-3)


def test_friedman_is_scipys_without_ties() -> None:
    scores = RANDOM.random((12, 6))
    found = friedman(scores)
    expected = stats.friedmanchisquare(*scores.T)
    assert (found.chi2, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_friedman_where_all_datasets_agree_or_none_differs() -> None:
    agreed = friedman(np.tile([0.1, 0.2, 0.3], (6, 1)))
    assert agreed.f is None
    assert agreed.p_f == 0
    assert agreed.chi2 == pytest.approx(12)
    equal = friedman(np.full((6, 3), 0.5))
    assert (equal.chi2, equal.p, equal.p_f) == (0, 1, 1)


def test_nemenyi_agrees_with_scikit_posthocs() -> None:
    scores = RANDOM.random((15, 5)) + np.arange(5) * 0.15
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy()
    average = ranks(scores).mean(axis=0)
    differ = np.abs(average[:, None] - average) >= critical_difference(5, 15)
    assert (differ == (p_values < 0.05)).all()
    assert differ.any()
    assert not differ.all()


def test_equal_scores_share_ranks() -> None:
    assert ranks(np.array([[0.3, 0.1 + 0.2, 0.9, 0.1]])).tolist() == [[2.5, 2.5, 1, 4]]


def test_cliques_are_the_largest_ones() -> None:
    average = {"a": 1.0, "b": 1.9, "c": 2.8, "d": 5.0}
    assert cliques(average, 1.0) == [["a", "b"], ["b", "c"]]
    assert cliques(average, 2.0) == [["a", "b", "c"]]
    assert cliques(average, 0.5) == []
    assert cliques(average, math.inf) == [["a", "b", "c", "d"]]


def test_interval_is_students() -> None:
    values = [0.91, 0.92, 0.95]
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx((expected[0], min(1.0, expected[1])))
    assert interval([0.9]) is None
    assert interval([0.99, 1.0]) == pytest.approx((0.9315, 1.0), abs=1e-3)


def test_same_mean_is_paired_where_seeds_are_shared() -> None:
    a, b = RANDOM.random(6), RANDOM.random(6)
    paired = same_mean(dict(enumerate(a)), dict(enumerate(b)))
    assert paired == pytest.approx(stats.ttest_rel(a, b).pvalue)
    apart = same_mean(dict(enumerate(a)), dict(enumerate(b, start=4)))
    assert apart == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_same_mean_is_not_paired_under_five_shared_seeds() -> None:
    """With three, the paired test has 2 degrees of freedom, and would not tell five points apart."""
    a, b = [0.900, 0.905, 0.910], [0.860, 0.855, 0.846]
    assert stats.ttest_rel(a, b).pvalue > 0.01
    found = same_mean(dict(enumerate(a)), dict(enumerate(b)))
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert found < 0.001
    four, others = RANDOM.random(4), RANDOM.random(4)
    expected = stats.ttest_ind(four, others, equal_var=False).pvalue
    assert same_mean(dict(enumerate(four)), dict(enumerate(others))) == pytest.approx(expected)


def test_same_mean_without_variance() -> None:
    five = {seed: 0.5 + seed / 10 for seed in range(5)}
    lower = {seed: value - 0.1 for seed, value in five.items()}
    assert same_mean(five, dict(five)) == 1
    assert same_mean(five, lower) == 0
    assert same_mean({0: 1.0, 1: 1.0, 2: 1.0}, {3: 1.0, 4: 1.0, 5: 1.0}) == 1
    assert same_mean({0: 1.0, 1: 1.0, 2: 1.0}, {0: 0.9, 1: 0.9, 2: 0.9}) == 0
    assert same_mean(five, lower | {2: lower[2] + 1e-9}) < 1e-6


def test_holm_is_statsmodels() -> None:
    p_values = RANDOM.random(9) ** 3
    assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_marks() -> None:
    def scores(mean: float, *noise: float) -> dict[int, float]:
        return {seed: mean + error for seed, error in enumerate(noise)}

    found = marks(
        {
            "best": scores(0.90, 0.01, -0.01, 0.0),
            "near": scores(0.895, -0.01, 0.01, 0.0),
            "far": scores(0.80, 0.001, -0.001, 0.0),
            "few": scores(0.895, 0.0, 0.001),
        }
    )
    assert found == {"best": "best", "near": "tied", "far": "", "few": ""}


def test_no_tie_is_claimed_under_three_seeds_and_nothing_is_best_alone() -> None:
    assert marks({"a": {0: 0.9, 1: 0.91}, "b": {0: 0.9, 1: 0.909}}) == {"a": "best", "b": ""}
    assert marks({"a": {0: 0.9, 1: 0.91, 2: 0.92}}) == {"a": ""}
    assert marks({"a": {0: 1.0}, "b": {0: 1.0}}) == {"a": "best", "b": "best"}


def test_bootstrap_over_datasets_is_scipys() -> None:
    """Where seeds don't differ, only datasets are drawn, as by scipy.stats.bootstrap."""
    means = RANDOM.normal(0.01, 0.02, 12)
    found = statistics.paired_bootstrap([[mean] * 3 for mean in means])
    expected = stats.bootstrap((means,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_bootstrap_draws_seeds_too() -> None:
    """One dataset: the spread is that of the mean of its seeds; no dataset needs as many as another."""
    seeds = RANDOM.normal(0.0, 0.02, 10)
    found = statistics.paired_bootstrap([list(seeds)])
    expected = stats.bootstrap((seeds,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)
    assert statistics.paired_bootstrap([[0.1] * 3, [0.1] * 7]).low == pytest.approx(0.1)


def test_bootstrap_is_seeded_and_counts_draws_half() -> None:
    differences = [[0.01, -0.02, 0.0], [0.03, 0.01, 0.02]]
    assert statistics.paired_bootstrap(differences) == statistics.paired_bootstrap(differences)
    assert statistics.paired_bootstrap([[0.0] * 3] * 5).better == 0.5
    assert statistics.paired_bootstrap([[0.01] * 3] * 5).better == 1


def test_signed_rank_needs_six_datasets() -> None:
    """Five wins of five are p = 0.0625: two-sided, no sign test of five can be significant."""
    assert statistics.signed_rank(np.arange(1, 6) / 100, np.zeros(5)) == pytest.approx(0.0625)
    assert statistics.signed_rank(np.arange(1, 7) / 100, np.zeros(6)) == pytest.approx(0.03125)
    assert statistics.signed_rank(np.ones(5), np.ones(5)) == 1


def test_pareto() -> None:
    assert pareto([1, 2, 3, 2, None], [0.8, 0.9, 0.85, 0.9, 0.99]) == [True, True, False, True, False]
    assert pareto([1, 2], [None, 0.9]) == [False, True]
