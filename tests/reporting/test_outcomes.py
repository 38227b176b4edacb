"""reporting/outcomes.py: what the test images say of two backbones, and what is said where they can't."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.files import read_small
from reporting import outcomes, predictions
from reporting.build import build
from reporting.collect import collect
from reporting.comparable import Repeats, divide
from reporting.entry import ALL_IMAGES
from reporting.statistics import Difference
from tests.reporting import synthetic


def first(right: int, images: int) -> list[bool]:
    """Outcomes of so many images, the first of them right."""
    return [index < right for index in range(images)]


def runs(folder: Path, name: str, *outcomes_by_seed: Sequence[bool], dataset: str = "dtd") -> list[Path]:
    return [synthetic.write_outcome(folder, dataset, name, seed, right) for seed, right in enumerate(outcomes_by_seed)]


def made(folder: Path) -> dict[str, Any]:
    return build(collect(folder), folder)


def cells(folder: Path) -> dict[str, Repeats]:
    ((group,), _) = divide(collect(folder).entries)
    return {b: cell for (_, b, budget), cell in group.cells.items() if budget == ALL_IMAGES}


def compared(folder: Path, one: str = "swin", other: str = "resnet") -> Difference:
    of = cells(folder)
    return outcomes.compare(of[one], of[other])


def test_eight_images_that_are_the_same_in_three_seeds_make_no_winner(tmp_path: Path) -> None:
    """4 of 8 against 6 of 8: no seed differs, but eight other images could have said the opposite."""
    runs(tmp_path, "resnet", *[first(4, 8)] * 3)
    runs(tmp_path, "swin", *[first(6, 8)] * 3)
    report = made(tmp_path)
    (group,) = report["groups"]
    ranking = group["budgets"][0]["rankings"]["overall"]
    assert ranking["answer"] == ("swin: best mean top-1 on DTD, 75.00%; resnet is not significantly below the best.")
    assert ranking["evidence"][0] == (
        "DTD: best swin, 75.00% of 8 test images; not significantly below: resnet. Test images that tell the best "
        "apart from resnet (2): no test is significant under 6."
    )
    marks = {cell["b"]: cell["marks"] for cell in group["cells"]}
    assert [marks[b]["top1"] for b in sorted(marks)] == ["tied", "best"]
    of_test = {cell["b"]: cell["of_test"] for cell in group["cells"]}
    assert of_test[0] == pytest.approx([0.2152, 0.7848], abs=1e-4)  # Wilson's interval of 4 of 8
    assert report["skipped"] == []


def test_the_interval_of_the_test_part_is_of_its_images_whatever_the_seeds(tmp_path: Path) -> None:
    runs(tmp_path / "one", "swin", first(6, 8))
    runs(tmp_path / "five", "swin", *[first(6, 8)] * 5)
    ends = [made(tmp_path / name)["groups"][0]["cells"][0]["of_test"] for name in ("one", "five")]
    assert ends[0] == ends[1] == pytest.approx([0.4093, 0.9285], abs=1e-4)


@pytest.mark.parametrize(("better", "p"), [(5, 0.0625), (6, 0.03125)])
def test_one_more_image_makes_the_exact_test_significant(tmp_path: Path, better: int, p: float) -> None:
    runs(tmp_path, "swin", *[first(90 + better, 100)] * 3)
    runs(tmp_path, "resnet", *[first(90, 100)] * 3)
    found = compared(tmp_path)
    assert found.p == pytest.approx(p)
    assert (found.differing, found.unpaired) == (better, False)


def test_images_in_pairs_show_what_two_samples_do_not(tmp_path: Path) -> None:
    """30 of 1,000 images, all one way: McNemar's test sees them, Fisher's does not."""
    paths = [*runs(tmp_path, "swin", *[first(830, 1000)] * 3), *runs(tmp_path, "resnet", *[first(800, 1000)] * 3)]
    paired = compared(tmp_path)
    assert (paired.p < 1e-6, paired.differing) == (True, 30)
    for path in paths:
        (path / "predictions.npz").unlink()
    unpaired = compared(tmp_path)
    assert (round(unpaired.p, 3), unpaired.differing, unpaired.unpaired, unpaired.problems) == (0.095, None, True, ())


def test_images_are_paired_by_name_whatever_their_order(tmp_path: Path) -> None:
    *_, last = runs(tmp_path, "swin", *[first(830, 1000)] * 3)
    runs(tmp_path, "resnet", *[first(800, 1000)] * 3)
    before = compared(tmp_path)
    with np.load(last / "predictions.npz") as content:
        turned = {part: content[part][::-1] for part in content.files}
    np.savez_compressed(last / "predictions.npz", **turned)
    assert compared(tmp_path) == before


def test_seeds_that_vary_as_much_as_the_means_differ(tmp_path: Path) -> None:
    """Of 10,000 images 100 are a difference by any test of images, but not for training that varies by 200."""
    runs(tmp_path, "swin", first(9100, 10_000), first(9300, 10_000), first(8900, 10_000))
    runs(tmp_path, "resnet", first(9000, 10_000), first(8800, 10_000), first(9200, 10_000))
    assert compared(tmp_path).p == pytest.approx(0.573, abs=1e-3)


def damaged(run: Path, **changes: Any) -> None:
    with np.load(run / "predictions.npz") as content:
        parts = dict(content)
    np.savez_compressed(run / "predictions.npz", **parts | changes)


ALL_WRONG = np.eye(2, dtype=np.float32)[1 - np.arange(40) % 2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"names": np.array([f"other/{index:05d}" for index in range(40)])},
            "not paired: its test images are not named",
        ),
        ({"logits": ALL_WRONG[:8]}, "can't be read: names (40,) and logits (8, 2): 40 images, 2 classes"),
        (
            {"logits": np.full((40, 2), np.nan, np.float32)},
            "can't be read: the logits of 40 of 40 images are not finite",
        ),
        ({"logits": np.zeros((40, 400_000), np.bool_)}, "can't be read: 16,"),
        ({"names": np.array([b"x", None] * 20)}, "can't be read: Object arrays cannot be loaded"),
        ({"names": np.arange(40)}, "can't be read: names int64 and logits float32"),
    ],
)
def test_predictions_that_cannot_be_used_pair_nothing(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    runs(tmp_path, "swin", *[first(36, 40)] * 3)
    *_, last = runs(tmp_path, "resnet", *[first(20, 40)] * 3)
    damaged(last, **changes)
    found = compared(tmp_path)
    assert (found.unpaired, [run for run, _ in found.problems]) == (True, [str(last.relative_to(tmp_path))])
    report = made(tmp_path)
    (line,) = report["skipped"]
    assert line["path"].endswith("predictions.npz")
    assert line["reason"].startswith(reason)
    assert report["groups"][0]["budgets"][0]["unpaired"] == ["DTD"]


@pytest.mark.parametrize("kind", ["text", "folder", "empty"])
def test_predictions_that_are_no_archive(tmp_path: Path, kind: str) -> None:
    runs(tmp_path, "swin", *[first(36, 40)] * 3)
    *_, last = runs(tmp_path, "resnet", *[first(20, 40)] * 3)
    path = last / "predictions.npz"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("no archive" if kind == "text" else "")
    assert len(made(tmp_path)["skipped"]) == 1


def test_five_shared_seeds_are_paired_and_others_left_out(tmp_path: Path) -> None:
    runs(tmp_path, "swin", *[first(36 + seed % 2, 40) for seed in range(6)])
    runs(tmp_path, "resnet", *[first(20 + seed % 2, 40) for seed in range(5)])
    found = compared(tmp_path)
    assert found.differing == 17  # the last of them in some seeds alone
    assert found.p < 1e-3


def test_all_right_against_all_wrong_and_equal_ones(tmp_path: Path) -> None:
    for name, right in {"swin": 6, "resnet": 0, "convnext": 6}.items():
        runs(tmp_path, name, *[first(right, 6)] * 3)
    assert compared(tmp_path).p == pytest.approx(2 / 2**6)
    assert compared(tmp_path, "swin", "convnext").p == 1


def test_two_images_can_never_tell(tmp_path: Path) -> None:
    runs(tmp_path, "swin", *[first(2, 2)] * 3)
    runs(tmp_path, "resnet", *[first(0, 2)] * 3)
    ranking = made(tmp_path)["groups"][0]["budgets"][0]["rankings"]["overall"]
    assert "resnet is not significantly below the best" in ranking["answer"]
    assert "from resnet (2): no test is significant under 6." in ranking["evidence"][0]
    shutil.rmtree(tmp_path / "dtd" / "resnet")
    for seed in range(3):
        run = synthetic.write_outcome(tmp_path, "dtd", "resnet", seed, first(0, 2))
        (run / "predictions.npz").unlink()
    assert compared(tmp_path).p == pytest.approx(1 / 3)  # Fisher's test of 2 of 2 against 0 of 2


def test_what_is_read_once_is_kept_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(tmp_path, "swin", *[first(36, 40)] * 3)
    *_, last = runs(tmp_path, "resnet", *[first(20, 40)] * 3)
    read: list[str] = []

    def noting(path: Path, most: int) -> bytes:
        read.append(str(path))
        return read_small(path, most)

    monkeypatch.setattr(predictions, "read_small", noting)
    made(tmp_path)
    made(tmp_path)
    assert len(read) == len(set(read)) == 6
    damaged(last)
    read.clear()
    made(tmp_path)
    assert read == [str(last / "predictions.npz")]
