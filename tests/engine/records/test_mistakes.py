"""Likely label errors: by the definition, on labels that were changed on purpose; and which images a run keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.records.mistakes import LIKELIEST, WORST, likely_label_errors, probabilities_of, rows_to_keep, worst_rows

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def predicted(images: int, classes: int, seed: int, sureness: float = 3.0) -> tuple[Floats, Labels]:
    """Logits of a model that is right mostly, and the right labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += sureness
    return logits, labels


def by_definition(probabilities: Floats, labels: Labels) -> dict[int, int]:
    """Image -> class that is likely, written down as the paper has it, an image at a time."""
    classes = range(probabilities.shape[1])
    thresholds = {j: float(probabilities[labels == j, j].mean()) for j in classes if (labels == j).any()}
    found = {}
    for image, (given, row) in enumerate(zip(labels.tolist(), probabilities.tolist(), strict=True)):
        likely = [j for j, threshold in thresholds.items() if row[j] >= threshold]
        best = max(likely, key=lambda j: row[j], default=given)
        if best != given and row.index(max(row)) != given:
            found[image] = best
    return found


def test_they_are_those_of_the_definition() -> None:
    for seed in range(20):
        logits, labels = predicted(300, 4, seed, sureness=1.5)
        probabilities = probabilities_of(logits, labels, 1.3)
        found = likely_label_errors(probabilities, labels)
        assert dict(zip(found.rows.tolist(), found.suggested.tolist(), strict=True)) == by_definition(
            probabilities, labels
        )
        assert (np.diff(probabilities[found.rows, labels[found.rows]]) >= 0).all()
        assert len(found.rows) > 10


def test_labels_that_were_changed_are_found_with_their_own_class() -> None:
    logits, true = predicted(2000, 5, 0, sureness=6.0)
    changed = np.random.default_rng(1).permutation(2000)[:100]
    labels = true.copy()
    labels[changed] = (true[changed] + 1) % 5
    found = likely_label_errors(probabilities_of(logits, labels, None), labels)
    assert len(set(found.rows.tolist()) & set(changed.tolist())) > 90
    assert np.isin(found.rows[:50], changed).mean() > 0.95
    right = np.isin(found.rows, changed)
    assert (found.suggested[right] == true[found.rows[right]]).mean() > 0.95


def test_a_class_without_images_is_never_suggested() -> None:
    logits, labels = predicted(500, 4, 2, sureness=1.0)
    labels[labels == 3] = 0
    found = likely_label_errors(probabilities_of(logits, labels, None), labels)
    assert (logits.argmax(axis=1) == 3).sum() > 50
    assert len(found.rows) > 10
    assert 3 not in found.suggested


def test_where_all_is_predicted_right_there_is_none() -> None:
    labels = np.arange(12) % 3
    found = likely_label_errors(probabilities_of(np.eye(3)[labels] * 2, labels, None), labels)
    assert (len(found.rows), len(found.suggested)) == (0, 0)


def test_a_run_keeps_the_worst_errors_and_then_the_likeliest_label_errors_once_each() -> None:
    logits, true = predicted(600, 3, 3, sureness=2.0)
    labels = np.where(np.arange(600) % 10 == 0, (true + 1) % 3, true)
    rows = rows_to_keep(logits.astype(np.float32), labels, 2.0)
    assert rows[:WORST].tolist() == worst_rows(logits.astype(np.float32), labels).tolist()
    suspects = likely_label_errors(probabilities_of(logits.astype(np.float32), labels, 2.0), labels).rows[:LIKELIEST]
    assert set(suspects.tolist()) <= set(rows.tolist())
    assert len(set(rows.tolist())) == len(rows) <= WORST + LIKELIEST
    assert (logits[rows].argmax(axis=1) != labels[rows]).all()
