"""Metrics against hand-worked examples and against plain formulas."""

import json
import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from engine.training.metrics import METRICS, Predictions, evaluate

# scikit-learn warns where a metric is undefined or a class is missing; no user should see that
pytestmark = pytest.mark.filterwarnings("error")


def from_probabilities(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    return np.log(np.array(rows, np.float64)).astype(np.float32)


def measure(logits: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, Any]:
    found = evaluate(np.asarray(logits, np.float32), np.asarray(labels, np.int64))
    assert list(found) == ["images", *METRICS, "per_class_recall", "confusion"]
    json.dumps(found, allow_nan=False)
    return found


def matrix(found: dict[str, Any]) -> list[list[int]]:
    """The whole confusion matrix, a row per true class."""
    classes = len(found["per_class_recall"])
    whole = [[0] * classes for _ in range(classes)]
    for true, predicted, images in zip(
        *(found["confusion"][key] for key in ("true", "predicted", "images")), strict=True
    ):
        assert images > 0
        assert whole[true][predicted] == 0
        whole[true][predicted] = images
    return whole


def test_every_metric_is_computed_and_lies_where_it_says() -> None:
    random = np.random.default_rng(0)
    found = measure(random.normal(size=(40, 7)), random.integers(0, 7, 40))
    assert set(METRICS) >= {"top1", "top5", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece"}
    assert all(0 <= found[name] <= metric.most for name, metric in METRICS.items())


def test_only_an_optional_metric_can_be_missing() -> None:
    found = measure([[1.0, 0.0]], [0])
    assert {name for name in METRICS if found[name] is None} == {
        name for name, each in METRICS.items() if each.optional
    }


def test_binary_by_hand() -> None:
    found = measure(from_probabilities([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]), [0, 0, 1, 1])
    assert found["images"] == 4
    assert found["top1"] == 0.75
    assert found["top5"] is None
    assert found["per_class_recall"] == [0.5, 1.0]
    assert found["balanced_accuracy"] == 0.75
    assert matrix(found) == [[1, 1], [0, 2]]
    # class 0: precision 1, recall 1/2, F1 2/3; class 1: precision 2/3, recall 1, F1 4/5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["auroc"] == 1.0
    assert found["nll"] == pytest.approx(-math.log(0.9 * 0.4 * 0.7 * 0.8) / 4, rel=1e-6)
    # four bins of one image each: (12, 13]/15 holds 0.8, (13, 14]/15 0.9, (10, 11]/15 0.7, (8, 9]/15 0.6
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4, rel=1e-6)


def test_binary_auroc_is_that_of_class_1_with_half_for_ties() -> None:
    # scores of class 1: negatives 0.1, 0.5; positives 0.5, 0.3 -> pairs 1, 1/2, 1, 0
    logits = from_probabilities([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.7, 0.3]])
    assert measure(logits, [0, 0, 1, 1])["auroc"] == pytest.approx(2.5 / 4)


def test_three_classes_by_hand() -> None:
    rows = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7], [0.5, 0.1, 0.4]]
    found = measure(from_probabilities(rows), [0, 0, 1, 2, 2])
    assert found["top1"] == pytest.approx(3 / 5)
    assert matrix(found) == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert found["per_class_recall"] == [0.5, 1.0, 0.5]
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    # F1 = 2 TP / (2 TP + FP + FN): 2/4, 2/3, 2/3
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    # class 0: 0.6, 0.2 against 0.1, 0.1, 0.5 -> 5/6; class 1: 0.7 beats all 4; class 2: 0.7, 0.4 beat all 3
    assert found["auroc"] == pytest.approx((5 / 6 + 1 + 1) / 3)
    assert found["nll"] == pytest.approx(-math.log(0.6 * 0.2 * 0.7 * 0.7 * 0.4) / 5, rel=1e-6)


def plain(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[dict[str, Any], list[float | None]]:
    """The same metrics, and the recalls, image by image and class by class."""
    classes = logits.shape[1]
    predictions, confidences, losses, top5 = [], [], [], 0
    probabilities = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        probabilities.append([math.exp(value) / total for value in row])
        predictions.append(row.index(max(row)))
        confidences.append(max(probabilities[-1]))
        losses.append(-math.log(probabilities[-1][label]))
        top5 += label in sorted(range(classes), key=lambda index, row=row: (-row[index], index))[:5]  # type: ignore[misc]
    recalls, scores, areas = {}, [], []
    for index in sorted(set(labels.tolist())):
        true = [prediction == index for prediction in predictions]
        own = [label == index for label in labels.tolist()]
        hits = sum(a and b for a, b in zip(true, own, strict=True))
        recalls[index] = hits / sum(own)
        scores.append(2 * hits / (sum(true) + sum(own)))
        positive = [row[index] for row, mine in zip(probabilities, own, strict=True) if mine]
        negative = [row[index] for row, mine in zip(probabilities, own, strict=True) if not mine]
        wins = sum((a > b) + (a == b) / 2 for a in positive for b in negative)
        areas.append(wins / (len(positive) * len(negative)))
    error = 0.0
    for bin_index in range(15):
        inside = [i for i, c in enumerate(confidences) if bin_index / 15 < c <= (bin_index + 1) / 15]
        if inside:
            accuracy = sum(predictions[i] == labels[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return {
        "top1": sum(a == b for a, b in zip(predictions, labels.tolist(), strict=True)) / len(labels),
        "top5": top5 / len(labels) if classes > 5 else None,
        "balanced_accuracy": sum(recalls.values()) / len(recalls),
        "macro_f1": sum(scores) / len(scores),
        "auroc": areas[1] if classes == 2 else sum(areas) / len(areas),
        "nll": sum(losses) / len(losses),
        "ece": error,
    }, [recalls.get(index) for index in range(classes)]


@pytest.mark.parametrize("classes", [2, 3, 5, 6, 12])
@pytest.mark.parametrize("absent", [False, True])
def test_plain_formulas(classes: int, absent: bool) -> None:
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes - (absent and classes > 2), 150)
    logits = random.normal(size=(75, classes)).astype(np.float32).repeat(2, axis=0)
    logits[::3, 0] = logits[::3, -1]
    found = measure(logits, labels)
    metrics, recalls = plain(logits, labels)
    assert found["per_class_recall"] == recalls
    for name, expected in metrics.items():
        assert found[name] == (None if expected is None else pytest.approx(expected, rel=1e-9)), name


@pytest.mark.parametrize("classes", [2, 7])
def test_auroc_is_scikit_learns(classes: int) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 400)
    logits = random.normal(size=(200, classes)).astype(np.float32).repeat(2, axis=0)  # ties
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert measure(logits, labels)["auroc"] == pytest.approx(expected, rel=1e-12)


def test_class_absent_from_the_labels() -> None:
    logits = np.full((4, 6), -5.0)
    logits[range(4), [0, 1, 5, 3]] = 5  # the third image is taken for class 5, which no label names
    found = measure(logits, [0, 1, 2, 3])
    assert found["per_class_recall"] == [1.0, 1.0, 0.0, 1.0, None, None]
    assert found["balanced_accuracy"] == 0.75
    assert found["macro_f1"] == 0.75
    assert found["auroc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)  # class 2 has the same probability everywhere
    assert matrix(found)[2] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_single_image(classes: int) -> None:
    found = measure(np.zeros((1, classes)), [0])
    assert (found["images"], found["top1"], found["balanced_accuracy"], found["macro_f1"]) == (1, 1.0, 1.0, 1.0)
    assert found["auroc"] is None
    assert found["nll"] == pytest.approx(math.log(classes))
    assert found["ece"] == pytest.approx(1 - 1 / classes)
    assert found["top5"] == (1.0 if classes > 5 else None)
    assert found["per_class_recall"] == [1.0] + [None] * (classes - 1)


def test_single_image_that_is_wrong() -> None:
    found = measure([[1.0, 0.0, 0.0]], [2])
    assert (found["top1"], found["macro_f1"], found["per_class_recall"]) == (0.0, 0.0, [None, None, 0.0])


def test_calibrated() -> None:
    rows = [[0.75, 0.25]] * 4 + [[0.4, 0.6]] * 5
    assert measure(from_probabilities(rows), [0, 0, 0, 1, 1, 1, 1, 0, 0])["ece"] == pytest.approx(0, abs=1e-7)


def test_overconfident() -> None:
    assert measure([[100.0, 0.0]] * 4, [0, 1, 1, 1])["ece"] == pytest.approx(0.75)


def test_errors_in_opposite_directions_cancel_only_within_a_bin() -> None:
    together = from_probabilities([[0.75, 0.25], [0.78, 0.22]])  # both in (11, 12]/15
    assert measure(together, [0, 1])["ece"] == pytest.approx((0.75 + 0.78 - 1) / 2, rel=1e-6)
    apart = from_probabilities([[0.75, 0.25], [0.95, 0.05]])
    assert measure(apart, [0, 1])["ece"] == pytest.approx((0.25 + 0.95) / 2, rel=1e-6)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    # five equal logits: the confidence is 1/5 = 3/15 and shares (2, 3]/15 with nobody; 0.21 lies in (3, 4]/15
    rows = [[0.2] * 5, [0.21, 0.1975, 0.1975, 0.1975, 0.1975]]
    assert measure(from_probabilities(rows), [0, 1])["ece"] == pytest.approx((0.8 + 0.21) / 2, rel=1e-5)


def test_top5_ties_rank_the_lower_class_first() -> None:
    equal = np.zeros((7, 7))
    assert measure(equal, range(7))["top5"] == pytest.approx(5 / 7)
    assert measure(equal, range(7))["top1"] == pytest.approx(1 / 7)
    ahead = np.array([[0.0, 0, 0, 0, 0, 0, 1]])  # class 6, then 0, 1, 2, 3
    assert measure(ahead, [3])["top5"] == 1.0
    assert measure(ahead, [4])["top5"] == 0.0


def test_huge_logits() -> None:
    found = measure([[3e38, -3e38], [3e38, -3e38]], [0, 1])
    assert found["nll"] == pytest.approx(3e38, rel=1e-6)
    assert found["ece"] == 0.5


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), [], "nothing to evaluate"),
        (np.zeros((2, 1)), [0, 0], "nothing to evaluate"),
        (np.zeros((2, 3)), [0], r"found \(2, 3\) and \(1,\)"),
        (np.zeros(3), [0, 0, 0], "expected logits"),
        (np.zeros((2, 3)), [[0], [1]], "expected logits"),
        (np.zeros((2, 3)), [0, 3], "from 0 to 2"),
        (np.zeros((2, 3)), [0, -1], "from 0 to 2"),
        ([[0.0, math.nan], [0, 0], [0, math.inf]], [0, 0, 0], "2 of 3 images are not finite"),
    ],
)
def test_refused(logits: npt.ArrayLike, labels: npt.ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(logits, labels)


def test_labels_that_are_not_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="must be integers"):
        evaluate(np.zeros((1, 2), np.float32), np.zeros(1))  # type: ignore[arg-type]


@pytest.mark.slow
def test_many_classes_are_quick() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(5_000, 1_000)).astype(np.float32)
    start = time.process_time()
    measure(logits, random.integers(0, 1_000, 5_000))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("margin", [1.0, 29.0, 40.0, 800.0, 1e30])
def test_auroc_of_very_sure_binary_logits(margin: float) -> None:
    assert measure([[0, margin], [0, 1.25 * margin]], [0, 1])["auroc"] == 1.0
    assert measure([[margin, 0], [1.25 * margin, 0]], [1, 0])["auroc"] == 1.0
    assert measure([[0, margin], [0, 1.25 * margin]], [1, 0])["auroc"] == 0.0


def test_auroc_of_one_very_sure_class_against_the_rest() -> None:
    logits = [[0, 0, 50], [0, 0, 40], [0, 0, 60], [90, 0, 0], [0, 95, 0]]
    assert measure(logits, [0, 2, 2, 0, 1])["auroc"] == pytest.approx((5 / 6 + 1 + 5 / 6) / 3)


def test_equal_logits_in_another_order_are_a_tie() -> None:
    random = np.random.default_rng(0)
    row = random.normal(size=9) * 20
    rows = np.array([np.append(random.permutation(row), 3.0) for _ in range(50)])
    labels = np.array([9, 8] * 25)
    of_class_9 = [roc_auc_score(labels == 9, [3.0] * 50)]
    assert of_class_9 == [0.5]
    predictions = Predictions(rows, labels)
    assert len(set(predictions.log_odds(9).tolist())) == 1


def test_the_loss_of_a_very_sure_right_answer_is_not_rounded_to_0() -> None:
    assert measure([[0, 40]], [1])["nll"] == pytest.approx(math.exp(-40), rel=1e-12)


def test_logits_in_half_precision_are_measured_in_full() -> None:
    logits = np.array([[0, 40], [0, 50], [11, 0]], np.float16)
    labels = np.array([0, 1, 0])
    assert evaluate(logits, labels) == evaluate(logits.astype(np.float64), labels)
    assert evaluate(logits, labels)["auroc"] == 1.0
