"""ranking/scores.py against straightforward versions of each score, bounds, limiting cases and known faults."""

import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from engine.errors import UserError
from ranking import probe as probing
from ranking.probe import STRENGTHS, probe
from ranking.scaling import Features, Groups, Numbers, Whole, one_hot, standardised
from ranking.scores import (
    SCORES,
    _shrinkage,
    _spectrum,
    _votes,
    all_scores,
    evidence,
    hscore,
    knn,
    logme,
    lonely_classes,
)

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def clusters(images: int, dimensions: int, classes: int, apart: float, seed: int = 0) -> tuple[Numbers, Whole]:
    """Features of normal noise around class means, which are so many deviations from 0 in each dimension."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    means = apart * random.normal(size=(classes, dimensions))
    return means[labels] + random.normal(size=(images, dimensions)), labels


# how features are brought to one scale


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dimensions", [5, 64, 130])
def test_each_dimension_has_mean_0_and_deviation_1(dtype: type, dimensions: int) -> None:
    features: Features = RANDOM.normal(3, 2, size=(50, dimensions)).astype(dtype)
    features[:, 2] = 7
    scaled = standardised(features)
    assert scaled.dtype == np.float32
    assert scaled.shape == (50, dimensions - 1)
    exact = np.delete(features.astype(np.float64), 2, axis=1)
    np.testing.assert_allclose(scaled, (exact - exact.mean(axis=0)) / exact.std(axis=0), atol=1e-6)


def test_values_at_the_ends_of_their_kind_neither_overflow_nor_vanish() -> None:
    signs = np.array([1, -1, 1, -1, -1, 1])[:, None]
    for dtype, values in ((np.float16, [65504, 6e-8]), (np.float32, [3e38, 1e-44]), (np.float64, [1.7e308, 1e-307])):
        np.testing.assert_allclose(standardised((signs * np.array(values)).astype(dtype)), np.tile(signs, 2), rtol=1e-6)


def test_half_precision_sums_do_not_stop_growing() -> None:
    """2,048 ones are as far as float16 counts: a mean over 20,000 images by it would be far off."""
    features = np.ones((20_000, 1), np.float16)
    features[::2] = 3
    np.testing.assert_allclose(standardised(features)[:2, 0], [1, -1], rtol=1e-6)


def test_rounding_is_no_variation() -> None:
    features = RANDOM.normal(size=(20, 3))
    features[:, 1] = 1000 + 1e-5 * features[:, 1]
    assert standardised(features.astype(np.float32)).shape == (20, 2)
    assert standardised(np.zeros((4, 3))).shape == (4, 0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_by_name(wrong: float) -> None:
    features, labels = clusters(20, 100, 2, 1.0)
    features[[3, 7], 70] = wrong
    with pytest.raises(UserError, match=rf"not finite: {wrong} in dimension 70 of image 3 .* 2 images"):
        all_scores(features, labels)


def test_features_are_never_overwritten() -> None:
    for images, dimensions in ((40, 60), (60, 10)):
        features, labels = clusters(images, dimensions, 3, 0.5)
        before = features.copy()
        features.flags.writeable = labels.flags.writeable = False
        all_scores(features, labels)
        assert (features == before).all()


# nearest neighbours


def plain_knn(features: Features, labels: Whole, groups: Groups = None) -> tuple[float, float]:
    """Leave one out, an image at a time, in float64."""
    scaled = standardised(features).astype(np.float64)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    of = list(range(len(labels))) if groups is None else list(groups)
    right = []
    for image in range(len(labels)):
        others = [other for other in range(len(labels)) if of[other] != of[image]]
        if labels[image] not in labels[others]:
            continue
        near = [labels[other] for other in sorted(others, key=lambda other: -scaled[image] @ scaled[other])][:5]
        votes = Counter(near)
        most = max(votes.values())
        winner = next(label for label in near if votes[label] == most)
        right.append((near[0] == labels[image], winner == labels[image]))
    one, five = np.mean(right, axis=0).tolist()
    return one, five


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_knn_is_leave_one_out(seed: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(60, 8, 7, 0.5, seed)
    labels[5] = 20  # a class of one image
    monkeypatch.setattr("ranking.scores.SIMILARITIES", rows * len(labels))
    assert knn(features, labels) == pytest.approx(plain_knn(features, labels))
    groups = [f"patient {number}" for number in np.random.default_rng(seed).integers(0, 12, len(labels))]
    assert knn(features, labels, groups) == pytest.approx(plain_knn(features, labels, groups))


def at_angles(*degrees: float) -> Numbers:
    """Images whose standardised features lie at these angles: each has its opposite, so that means are 0."""
    turns = np.radians(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def test_knn_by_hand() -> None:
    """On a square's corners each image has its pair at 0 degrees, and two pairs at 90: those outvote its own."""
    features = at_angles(45, 135, 225, 315, 45, 135, 225, 315)
    assert knn(features, np.array([0, 1, 2, 3, 0, 1, 2, 3])) == (1, 0)
    # the pair is of the other class, as is one of each other pair
    assert knn(features, np.array([0, 0, 0, 0, 1, 1, 1, 1])) == (0, 0)
    assert knn(features, np.array([0, 0, 1, 1, 0, 0, 1, 1])) == (1, 1)


def test_the_nearest_breaks_ties_of_five() -> None:
    labels = np.array([0, 1, 1, 2, 2, 3, 3])
    similar = np.array(
        [
            [-np.inf, 0.9, 0.5, 0.8, 0.7, 0.6, 0.1],  # 1, 2, 2, 3, 1: classes 1 and 2 tie, 1 is nearest
            [0.9, -np.inf, 0.1, 0.6, 0.7, 0.8, 0.5],  # 0, 3, 2, 2, 3: classes 3 and 2 tie, 3 is nearer; not 0
            [0.9, -np.inf, -np.inf, -np.inf, -np.inf, 0.8, 0.7],  # three count
        ],
        dtype=np.float32,
    )
    one, five = _votes(similar, labels)
    assert one.tolist() == [1, 0, 0]
    assert five.tolist() == [1, 3, 3]


def test_an_images_own_group_does_not_help_it() -> None:
    """Each patient has two copies of one photograph, of a class drawn at random: only copies know it."""
    photographs = RANDOM.normal(size=(200, 16))
    features, labels = np.repeat(photographs, 2, axis=0), np.repeat(RANDOM.integers(0, 2, 200), 2)
    groups = [f"p{number // 2}" for number in range(400)]
    assert knn(features, labels)[0] == 1  # type: ignore[index]
    for accuracy in (*knn(features, labels, groups), probe(features, labels, groups)):  # type: ignore[misc]
        assert 0.35 < accuracy < 0.65


def test_lonely_classes() -> None:
    labels = np.array([0, 0, 1, 3, 3, 3])
    assert lonely_classes(labels) == [1]
    assert lonely_classes(labels, ["a", "b", "c", "d", "d", "d"]) == [1, 3]


def test_memory_of_knn_is_flat() -> None:
    features, labels = clusters(8000, 8, 2, 1.0)
    tracemalloc.start()
    knn(features, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000 * 8000 * 4 / 2


# the linear probe


def ridge(scaled: Features, labels: Whole, train: Whole, test: Whole, strength: float) -> Whole:
    """scikit-learn's predictions."""
    model = RidgeClassifier(alpha=strength * scaled.shape[1]).fit(scaled[train].astype(np.float64), labels[train])
    return np.asarray(model.predict(scaled[test].astype(np.float64)))


SHAPES = [(60, 90), (90, 60), (60, 60)]


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("form", [probing._dual, probing._primal])
@pytest.mark.parametrize(("images", "dimensions"), SHAPES)
def test_a_fit_without_some_folds_is_scikit_learns(
    images: int, dimensions: int, form: Callable[..., Any], strength: float, classes: int
) -> None:
    features, labels = clusters(images, dimensions, classes, 0.2)
    scaled, fold = standardised(features), np.random.default_rng(1).integers(0, 5, images)
    predict = form(scaled, labels, fold)(strength)
    for left_out in ((0,), (4,), (1, 3)):
        test = np.isin(fold, left_out)
        expected = ridge(scaled, labels, np.flatnonzero(~test), np.flatnonzero(test), strength)
        assert (predict(left_out) == expected).all()


def plain_probe(features: Features, labels: Whole, groups: Groups, own_scale: bool = False) -> float:
    """Nested cross-validation with a fit of its own for each fold, pair of folds and strength."""
    fold = probing._folds(labels, groups, 0)
    scaled = standardised(features)

    def right(train: Whole, test: Whole, strength: float) -> int:
        of = scaled
        if own_scale:
            part = features[train].astype(np.float64)
            kept = part.std(axis=0) > 0
            of = ((features - part.mean(axis=0)) / np.where(kept, part.std(axis=0), 1))[:, kept]
        return int((ridge(of, labels, train, test, strength) == labels[test]).sum())

    total = 0
    for outer in range(fold.max() + 1):
        rest = [number for number in range(fold.max() + 1) if number != outer]
        inner = [
            sum(
                right(np.flatnonzero(~np.isin(fold, (outer, number))), np.flatnonzero(fold == number), strength)
                for number in rest
            )
            for strength in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmax(inner))]
        total += right(np.flatnonzero(fold != outer), np.flatnonzero(fold == outer), strength)
    return total / len(labels)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("images", "dimensions"), SHAPES)
def test_the_probe_is_nested_cross_validation(images: int, dimensions: int, grouped: bool) -> None:
    features, labels = clusters(images, dimensions, 3, 0.15)
    groups = [f"g{number // 3 % 11}" for number in range(images)] if grouped else None
    found = probe(features, labels, groups)
    assert found is not None
    assert found == pytest.approx(plain_probe(features, labels, groups))
    assert 0.34 < found < 1


def test_scaling_by_all_images_is_harmless() -> None:
    """Real images: what the scale alone sees of held-out ones, without their classes, moves the accuracy little."""
    pixels, labels = load_digits(return_X_y=True)
    features, labels = pixels[:300], labels[:300]
    assert probe(features, labels) == pytest.approx(plain_probe(features, labels, None, own_scale=True), abs=0.01)


def test_no_group_is_on_both_sides() -> None:
    labels = RANDOM.integers(0, 3, 100)
    groups = [f"g{number}" for number in RANDOM.integers(0, 20, 100)]
    fold = probing._folds(labels, groups, 0)
    assert all(len({fold[image] for image in range(100) if groups[image] == group}) == 1 for group in groups)
    assert len(set(fold.tolist())) == 5


def test_the_limits_of_the_probe() -> None:
    features, labels = clusters(300, 40, 3, 0.0)
    chance = probe(features, labels)
    assert chance is not None
    assert abs(chance - 1 / 3) < 0.12
    features, labels = clusters(300, 40, 3, 4.0)
    assert probe(features, labels) == 1
    assert probe(features, labels, seed=1) == 1


def test_the_seed_draws_the_folds() -> None:
    features, labels = clusters(60, 20, 3, 0.2)
    assert probe(features, labels, seed=3) == probe(features, labels, seed=3)
    assert len({probe(features, labels, seed=seed) for seed in range(5)}) > 1


def test_a_class_with_fewer_images_than_folds_is_trained_on() -> None:
    features, labels = clusters(60, 10, 3, 5.0)
    labels[:3] = 3
    features[:3] = 50
    assert probe(features, labels) == 1
    labels[0] = 4  # alone: it can't be right, and isn't counted
    assert probe(features, labels) is not None
    assert any("1 class with a single image" in note for note in all_scores(features, labels).notes)


def test_two_folds_choose_nothing() -> None:
    features, labels = clusters(8, 5, 4, 20.0)
    assert probe(features, labels) == 1
    assert any("fixed" in note for note in all_scores(features, labels).notes)


# LogME


def parts_of(features: Features, labels: Whole, number: int) -> tuple[Numbers, Numbers, Numbers, Numbers, float]:
    """F, y, squared singular values, (U' y)^2 and the rest of |y|^2."""
    scaled = standardised(features).astype(np.float64)
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    kept = singular > 1e-6 * singular[0]
    target = (labels == number).astype(np.float64)
    squares = (left[:, kept].T @ target) ** 2
    return scaled, target, singular[kept] ** 2, squares, float(target @ target - squares.sum())


def plain_logme(features: Features, labels: Whole) -> float:
    """Formula by formula, the log-determinant with all D directions."""
    found = []
    for number in np.unique(labels):
        scaled, _, sigma, squares, rest = parts_of(features, labels, number)
        images, dimensions = scaled.shape
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            m2 = (sigma * squares / (t + sigma) ** 2).sum()
            e = (squares / (1 + sigma / t) ** 2).sum() + rest
            alpha, beta = gamma / (m2 + 1e-5), (images - gamma) / (e + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        t = alpha / beta
        m2 = (sigma * squares / (t + sigma) ** 2).sum()
        e = (squares / (1 + sigma / t) ** 2).sum() + rest
        determinant = np.log(alpha + beta * sigma).sum() + (dimensions - len(sigma)) * np.log(alpha)
        value = dimensions / 2 * np.log(alpha) + images / 2 * np.log(beta) - determinant / 2
        found.append((value - beta / 2 * e - alpha / 2 * m2 - images / 2 * np.log(2 * np.pi)) / images)
    return float(np.mean(found))


@pytest.mark.parametrize("apart", [0.0, 0.2, 3.0])
@pytest.mark.parametrize(("images", "dimensions"), [(40, 100), (100, 40), (50, 50)])
def test_logme_is_that_of_a_singular_value_decomposition(images: int, dimensions: int, apart: float) -> None:
    features, labels = clusters(images, dimensions, 4, apart)
    assert logme(features, labels) == pytest.approx(plain_logme(features, labels), abs=1e-6)
    doubled = np.concatenate([features, features[:, ::-1]], axis=1)  # the covariance is singular
    assert logme(doubled, labels) == pytest.approx(plain_logme(doubled, labels), abs=1e-6)


@pytest.mark.parametrize("apart", [0.0, 0.3, 3.0])
@pytest.mark.parametrize(("images", "dimensions"), [(20, 30), (30, 12)])
def test_the_evidence_is_that_of_a_normal_distribution(images: int, dimensions: int, apart: float) -> None:
    features, labels = clusters(images, dimensions, 3, apart)
    for number in range(3):
        scaled, target, sigma, squares, rest = parts_of(features, labels, number)
        found = evidence(sigma, squares, rest, images)
        covariance = np.eye(images) / found.beta + scaled @ scaled.T / found.alpha
        exact = stats.multivariate_normal(cov=covariance).logpdf(target)
        assert found.value == pytest.approx(exact / images, rel=1e-9)


@pytest.mark.parametrize(("images", "dimensions"), [(40, 60), (80, 20)])
def test_alpha_and_beta_are_the_likeliest(images: int, dimensions: int) -> None:
    features, labels = clusters(images, dimensions, 3, 0.5)
    scaled, target, sigma, squares, rest = parts_of(features, labels, 0)
    found = evidence(sigma, squares, rest, images)
    for by_alpha, by_beta in ((1.2, 1), (1 / 1.2, 1), (1, 1.2), (1, 1 / 1.2)):
        covariance = np.eye(images) / (found.beta * by_beta) + scaled @ scaled.T / (found.alpha * by_alpha)
        assert stats.multivariate_normal(cov=covariance).logpdf(target) / images < found.value + 1e-6


@pytest.mark.parametrize("score", [logme, hscore])
def test_scores_grow_with_separation(score: Callable[[Features, Whole], float]) -> None:
    for images, dimensions in ((60, 120), (400, 20)):
        values = [score(*clusters(images, dimensions, 4, apart)) for apart in (0.0, 0.5, 2.0, 8.0)]
        assert values == sorted(values)
        assert values[-1] > values[0] + 0.3


def test_scores_do_not_depend_on_the_order_of_images_and_dimensions_or_on_scale() -> None:
    features, labels = clusters(60, 30, 4, 0.3)
    images, dimensions = RANDOM.permutation(60), RANDOM.permutation(30)
    turned = (features * 7 - 3)[np.ix_(images, dimensions)]
    for score in (logme, hscore):
        assert score(turned, labels[images]) == pytest.approx(score(features, labels), abs=1e-5)
    assert knn(turned, labels[images]) == pytest.approx(knn(features, labels))


def test_the_evidence_does_not_depend_on_rotation() -> None:
    """Of features that are already scaled: to scale them anew after a rotation would be another question."""
    for images, dimensions in ((30, 40), (60, 20)):
        features, labels = clusters(images, dimensions, 3, 0.5)
        scaled, targets = standardised(features), one_hot(labels)
        turn = np.linalg.qr(RANDOM.normal(size=(dimensions, dimensions)))[0]
        values = []
        for of in (scaled, (scaled @ turn).astype(np.float32)):
            sigma, squares = _spectrum(of, targets)
            values.append(evidence(sigma, squares[:, 0], float((labels == 0).sum() - squares[:, 0].sum()), images))
        assert values[0] == pytest.approx(values[1], rel=1e-4)


# the H-score


def plain_hscore(features: Features, labels: Whole) -> float:
    """With an inverse, in D x D."""
    scaled = standardised(features).astype(np.float64)
    shrinkage = ledoit_wolf_shrinkage(scaled)
    covariance = scaled.T @ scaled / len(scaled)
    shrunk = (1 - shrinkage) * covariance
    shrunk += shrinkage * np.trace(covariance) / scaled.shape[1] * np.eye(scaled.shape[1])
    means = np.stack([scaled[labels == number].mean(axis=0) for number in labels])
    return float(np.trace(np.linalg.inv(shrunk) @ ((1 - shrinkage) * means.T @ means / len(means))))


@pytest.mark.parametrize("apart", [0.0, 0.2, 3.0])
@pytest.mark.parametrize(("images", "dimensions"), [(40, 100), (100, 40), (50, 50)])
def test_hscore_is_that_of_an_inverse(images: int, dimensions: int, apart: float) -> None:
    features, labels = clusters(images, dimensions, 4, apart)
    assert hscore(features, labels) == pytest.approx(plain_hscore(features, labels), abs=1e-6)


@pytest.mark.parametrize(("images", "dimensions"), [(2, 5), (5, 1), (20, 30), (30, 20)])
def test_the_shrinkage_is_scikit_learns(images: int, dimensions: int) -> None:
    scaled = standardised(RANDOM.normal(size=(images, dimensions)) ** 3)
    exact = scaled.astype(np.float64)
    gram = exact @ exact.T if images <= dimensions else exact.T @ exact
    assert _shrinkage(scaled, gram) == pytest.approx(ledoit_wolf_shrinkage(exact), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(1, 40),
    st.integers(2, 6),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_hscore_keeps_its_bounds(
    images: int, dimensions: int, classes: int, apart: float, rank: int, seed: int
) -> None:
    """Of features of full rank, and of those that a few directions make: their covariance is singular."""
    features, labels = clusters(images, dimensions, classes, apart, seed)
    mixed = features[:, :rank] @ np.random.default_rng(seed).normal(size=(min(rank, dimensions), dimensions))
    for of in (features, mixed, mixed.astype(np.float16), np.sign(features)):
        found = hscore(of, labels)
        assert found is None or 0 <= found <= min(classes, images) - 1


def test_a_product_by_elements_before_the_trace_is_no_hscore() -> None:
    """Dimensions that depend on each other have an inverse with a large diagonal, which it takes as it is."""
    features, labels = clusters(400, 20, 4, 0.5)
    features = features @ (1 + 0.1 * RANDOM.normal(size=(20, 20)))
    scaled = standardised(features).astype(np.float64)
    means = np.stack([scaled[labels == number].mean(axis=0) for number in labels])
    faulty = np.trace(np.linalg.inv(scaled.T @ scaled / 400) * (means.T @ means / 400))
    assert faulty > 10 * 3
    assert hscore(features, labels) == pytest.approx(plain_hscore(features, labels), abs=1e-5)


def test_a_singular_covariance_is_no_hscore_beyond_the_bound() -> None:
    """Of fewer images than dimensions; a pseudo-inverse takes rounding for variance: for how much depends on it."""
    features, labels = clusters(60, 120, 12, 1.0)
    scaled = standardised(features)
    means = np.stack([scaled[labels == number].mean(axis=0) for number in labels])
    faulty = np.trace(np.linalg.pinv(scaled.T @ scaled / 60, rcond=1e-12) @ (means.T @ means / 60))
    found = hscore(features, labels)
    assert found is not None
    assert 11 > found > 5  # C - 1
    assert abs(faulty - found) > 1
    assert found == pytest.approx(plain_hscore(features, labels), abs=1e-6)


def test_one_dimension_is_not_shrunk_away() -> None:
    features, labels = clusters(60, 1, 2, 30.0)
    assert hscore(features, labels) == pytest.approx(plain_hscore(features, labels), abs=1e-6)
    assert hscore(features, labels) == pytest.approx(1, abs=0.1)


def test_two_opposite_images_have_a_singular_covariance_that_nothing_shrinks() -> None:
    features = np.array([[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    assert ledoit_wolf_shrinkage(features) == 0
    assert hscore(features, np.array([0, 1])) == pytest.approx(1, abs=1e-6)


# all of them


def test_every_score_has_a_name_a_value_and_its_seconds() -> None:
    features, labels = clusters(60, 20, 3, 1.0)
    scored = all_scores(features, labels)
    assert scored.values.keys() == scored.seconds.keys() == SCORES.keys()
    assert scored.notes == []
    assert all(type(value) is float for value in scored.values.values())
    one, five = knn(features, labels) or (None, None)
    assert scored.values == {
        "knn1": one,
        "knn5": five,
        "probe": probe(features, labels),
        "logme": logme(features, labels),
        "hscore": hscore(features, labels),
    }


def test_notes_say_what_was_left_out() -> None:
    features, labels = clusters(60, 20, 3, 1.0)
    features[:, :2] = 5
    labels[:2] = [7, 9]
    assert all_scores(features, labels).notes == [
        "k-NN and probe: images of 2 classes with a single image can't be told right, and are not counted.",
    ]
    groups = ["one"] * 2 + [f"g{number}" for number in range(58)]
    labels[:2] = 7
    assert "1 class with a single group" in all_scores(features, labels, groups).notes[0]


ODD = {
    "one class": (RANDOM.normal(size=(10, 4)), np.zeros(10, np.int64), None),
    "one image": (RANDOM.normal(size=(1, 4)), np.zeros(1, np.int64), None),
    "one image a class": (RANDOM.normal(size=(5, 4)), np.arange(5), None),
    "one class of two": (RANDOM.normal(size=(6, 4)), np.array([0, 0, 1, 2, 3, 4]), None),
    "two images a class": (RANDOM.normal(size=(4, 9)), np.array([0, 0, 1, 1]), None),
    "one group": (RANDOM.normal(size=(8, 4)), np.arange(8) % 2, ["a"] * 8),
    "two groups": (RANDOM.normal(size=(8, 4)), np.arange(8) % 2, ["a"] * 4 + ["b"] * 4),
    "a group is a class": (RANDOM.normal(size=(8, 4)), np.arange(8) % 2, ["a", "b"] * 4),
    "constant": (np.ones((8, 4)), np.arange(8) % 2, None),
    "one dimension": (RANDOM.normal(size=(8, 1)), np.arange(8) % 2, None),
    "identical images": (np.repeat(RANDOM.normal(size=(2, 4)), 4, axis=0), np.arange(8) % 2, None),
    "an image at the mean": (np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0], [0, 0]]), np.arange(6) % 2, None),
    "gaps in labels": (RANDOM.normal(size=(20, 4)), np.array([3, 90] * 10), None),
    "no dimension": (np.zeros((8, 0)), np.arange(8) % 2, None),
    "no image": (np.zeros((0, 4)), np.zeros(0, np.int64), None),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_raise_nothing(name: str) -> None:
    features, labels, groups = ODD[name]
    scored = all_scores(features, labels, groups)
    for value in scored.values.values():
        assert value is None or np.isfinite(value)
    assert scored.notes or None not in scored.values.values()  # what is missing has a reason
    none = {name for name, value in scored.values.items() if value is None}
    if name in ("one class", "one image", "constant", "no dimension", "no image"):
        assert none == SCORES.keys()
    if name in ("one image a class", "one class of two", "one group", "a group is a class"):
        assert none == {"knn1", "knn5", "probe"}
    if name in ("two images a class", "two groups", "one dimension", "gaps in labels", "identical images"):
        assert none == set()


def test_half_precision_changes_scores_little() -> None:
    features, labels = clusters(150, 100, 5, 0.5)
    single, half = (all_scores(features.astype(kind), labels).values for kind in (np.float32, np.float16))
    for name in SCORES:
        assert half[name] == pytest.approx(single[name], abs=0.02)


def test_targets_are_one_hot() -> None:
    assert one_hot(np.array([0, 2, 1])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
