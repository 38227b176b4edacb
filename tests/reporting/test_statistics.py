"""reporting/statistics.py against Demšar 2006, scipy, statsmodels and scikit-posthocs."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]
from statsmodels.stats.proportion import proportion_confint  # type: ignore[import-untyped]

from reporting import statistics
from reporting.statistics import (
    Difference,
    Numbers,
    cliques,
    critical_difference,
    datasets_for,
    fisher,
    friedman,
    holm,
    interval,
    marks,
    over_images,
    over_seeds,
    pareto,
    ranks,
    sign_flips,
    smallest_signed_rank,
    t_test,
    wilson,
)

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


def p_over_seeds(a: Sequence[float] | Numbers, b: Sequence[float] | Numbers, start: int = 0) -> float:
    """The p-value of a difference by seeds alone, `b` having those from `start` on."""
    first, second = dict(enumerate(a)), dict(enumerate(b, start))
    return t_test(float(np.mean(a) - np.mean(b)), over_seeds(first, second))


def test_seeds_are_paired_where_five_are_shared() -> None:
    a, b = RANDOM.random(6), RANDOM.random(6)
    assert p_over_seeds(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert p_over_seeds(a, b, start=4) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_seeds_are_not_paired_under_five_shared_ones() -> None:
    """With three, the paired test has 2 degrees of freedom, and would not tell five points apart."""
    a, b = [0.900, 0.905, 0.910], [0.860, 0.855, 0.846]
    assert stats.ttest_rel(a, b).pvalue > 0.01
    found = p_over_seeds(a, b)
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert found < 0.001
    four, others = RANDOM.random(4), RANDOM.random(4)
    assert p_over_seeds(four, others) == pytest.approx(stats.ttest_ind(four, others, equal_var=False).pvalue)


def test_seeds_without_variance() -> None:
    five = [0.5 + seed / 10 for seed in range(5)]
    assert p_over_seeds(five, five) == 1
    assert p_over_seeds(five, [value - 0.1 for value in five]) == 0
    assert p_over_seeds([1.0] * 3, [1.0] * 3, start=3) == 1
    assert p_over_seeds([1.0] * 3, [0.9] * 3) == 0
    lower = [value - 0.1 for value in five]
    lower[2] += 1e-9
    assert p_over_seeds(five, lower) < 1e-6


def test_wilson_is_statsmodels() -> None:
    for right, images in ((4, 8), (0, 8), (8, 8), (9_731, 10_000), (1, 1)):
        expected = proportion_confint(right, images, method="wilson")
        assert wilson(right / images, images) == pytest.approx(expected, abs=1e-12)
    assert wilson(0.5, 0) is None


def test_sign_flips_of_one_seed_are_mcnemars_exact_test() -> None:
    for better, worse in ((2, 0), (5, 0), (6, 0), (12, 3), (40, 20), (7, 7)):
        found = sign_flips(np.repeat([1, -1, 0], [better, worse, 5]))
        table = [[3, better], [worse, 2]]
        assert found == pytest.approx(mcnemar(table, exact=True).pvalue), (better, worse)
    assert sign_flips(np.zeros(4, np.int64)) == 1


def test_sign_flips_over_seeds_go_through_every_choice_of_signs() -> None:
    sums = np.array([3, 1, -2, 2, 0, 1, 1])
    flipped = [abs((sums * signs).sum()) for signs in itertools.product((-1, 1), repeat=len(sums))]
    assert sign_flips(sums) == pytest.approx(np.mean(np.array(flipped) >= abs(sums.sum())))
    many = np.repeat([1, 2, -1, -3], [450, 100, 380, 60])
    normal = 2 * stats.norm.sf(many.sum() / math.sqrt((many**2).sum()))
    assert sign_flips(many) == pytest.approx(normal, rel=0.1)
    assert sign_flips(np.concatenate([many] * 2)) == pytest.approx(
        2 * stats.norm.sf(2 * many.sum() / math.sqrt(2 * (many**2).sum()))
    )


def test_fisher_is_scipys() -> None:
    for first, second, images in ((4, 6, 8), (0, 8, 8), (50, 70, 100), (0, 1, 1), (9_000, 9_100, 10_000), (0, 0, 5)):
        expected = stats.fisher_exact([[first, images - first], [second, images - second]]).pvalue
        assert fisher(first / images, second / images, images) == pytest.approx(expected, rel=1e-6)


def test_seeds_and_images_together_vary_as_a_bootstrap_of_both() -> None:
    """Owen's pigeonhole bootstrap: seeds of each backbone and images drawn with replacement, independently."""
    random = np.random.default_rng(1)
    hard = random.normal(0, 1.5, 600)
    right = [hard + random.normal(0, 1, (4, 600)) + random.normal(0, 0.2, (4, 1)) < level for level in (0.9, 0.6)]
    draws = []
    for _ in range(1500):
        images = random.integers(0, 600, 600)
        draws.append(np.subtract(*(of[random.integers(0, 4, 4)][:, images].mean() for of in right)))
    scores = [dict(enumerate(of.mean(axis=1).tolist())) for of in right]
    seeds = over_seeds(*scores)
    # a bootstrap of four seeds has three quarters of their variance
    expected = 0.75 * seeds.variance + over_images(right[0].mean(axis=0) - right[1].mean(axis=0)).variance
    assert np.var(draws) == pytest.approx(expected, rel=0.2)


def test_holm_is_statsmodels() -> None:
    p_values = RANDOM.random(9) ** 3
    assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def marked(scores: Mapping[str, Mapping[int, float]]) -> dict[str, str]:
    """The marks by a test over seeds alone."""

    def compare(first: str, other: str) -> Difference:
        a, b = (scores[name] for name in (first, other))
        return Difference(t_test(float(np.mean(list(a.values())) - np.mean(list(b.values()))), over_seeds(a, b)))

    return marks(scores, compare)[0]


def test_marks() -> None:
    def scores(mean: float, *noise: float) -> dict[int, float]:
        return {seed: mean + error for seed, error in enumerate(noise)}

    found = marked(
        {
            "best": scores(0.90, 0.01, -0.01, 0.0),
            "near": scores(0.895, -0.01, 0.01, 0.0),
            "far": scores(0.80, 0.001, -0.001, 0.0),
            "few": scores(0.895, 0.0, 0.001),
        }
    )
    assert found == {"best": "best", "near": "tied", "far": "", "few": ""}


def test_no_tie_is_claimed_under_three_seeds_and_nothing_is_best_alone() -> None:
    assert marked({"a": {0: 0.9, 1: 0.91}, "b": {0: 0.9, 1: 0.909}}) == {"a": "best", "b": ""}
    assert marked({"a": {0: 0.9, 1: 0.91, 2: 0.92}}) == {"a": ""}
    assert marked({"a": {0: 1.0}, "b": {0: 1.0}}) == {"a": "best", "b": "best"}


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
    assert [smallest_signed_rank(datasets) for datasets in (0, 1, 5, 6)] == [1, 1, 0.0625, 0.03125]


def test_how_many_datasets_tell_ranks_apart() -> None:
    needed = datasets_for(1, 4)
    assert critical_difference(4, needed) <= 1 < critical_difference(4, needed - 1)


def test_pareto() -> None:
    assert pareto([1, 2, 3, 2, None], [0.8, 0.9, 0.85, 0.9, 0.99]) == [True, True, False, True, False]
    assert pareto([1, 2], [None, 0.9]) == [False, True]
