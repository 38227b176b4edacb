"""Images until a recipe is as good as another: the arithmetic, and the commands on little."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest

from benchmarks.recipe_plot import best_so_far, draw, mean_curve
from benchmarks.time_to_accuracy import (
    Runs,
    Trained,
    by_pair,
    difference,
    image_ratio,
    of_cells,
    of_data,
    reached,
    read_runs,
    read_table,
    settled,
    spent,
    write_table,
)
from engine.errors import UserError
from engine.paths import PROJECT
from reporting.statistics import student
from tests.reporting import synthetic


def run(*curve: float, data: str = "a", model: str = "m", seed: int = 0, test: float = 0.5) -> Trained:
    losses = tuple(1 - top1 for top1 in curve)
    return Trained("fast", data, model, seed, 10, 100, curve, losses, max(curve), test, 1.0, 2.0)


def runs(*several: Trained) -> Runs:
    return {each.cell: each for each in several}


def test_images_until_a_target() -> None:
    found = run(0.2, 0.5, 0.4, 0.6)
    assert (found.images, found.images_to_best) == (40, 40)
    assert [found.images_to(target) for target in (0.1, 0.2, 0.45, 0.5, 0.6, 0.61)] == [10, 10, 20, 20, 40, None]


def test_where_the_target_is_missed_the_other_recipe_counts_as_well() -> None:
    reference = run(0.1, 0.3, 0.3, 0.2)
    assert spent(run(0.2, 0.3), reference) == 20
    assert spent(run(0.2, 0.29), reference) == 20 + 40
    # the reference itself has it before it stops
    assert spent(reference, reference) == 20


def test_the_ratio_is_a_geometric_mean_over_pairs_of_means_over_seeds() -> None:
    """One pair with three seeds counts as much as one with one."""
    reference = runs(
        *(run(*[0.5] * 8, seed=seed) for seed in range(3)),
        run(*[0.5] * 4, data="b"),
    )
    fast = runs(run(0.5, seed=0), run(0.5, seed=1), run(0.4, 0.5, seed=2), run(0.5, data="b"))
    found = image_ratio(fast, reference)
    expected = exp(((log(1 / 8) * 2 + log(2 / 8)) / 3 + log(1 / 4)) / 2)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    assert found.low == pytest.approx(exp((log(1 / 8) * 2 + log(2 / 8)) / 3))  # of two pairs, one twice
    assert reached(fast, reference) == 1
    assert image_ratio(fast, reference, whole=True).value == pytest.approx(expected)
    # cells that one lacks are left out
    assert image_ratio(of_data(fast, ["b"]), reference).value == pytest.approx(1 / 4)


def test_a_difference_has_students_interval_over_pairs() -> None:
    reference = runs(run(0.5), run(0.5, seed=1), run(0.5, data="b"), run(0.5, data="c"))
    better = runs(
        run(0.5, test=0.6), run(0.5, seed=1, test=0.8), run(0.5, data="b", test=0.5), run(0.5, data="c", test=0.55)
    )
    found = difference(better, reference)
    values = [0.2, 0.0, 0.05]
    mean = sum(values) / 3
    deviation = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    assert found.value == pytest.approx(mean)
    assert found.high - found.value == pytest.approx(student(3) * deviation / 3**0.5)
    assert difference(better, reference, "test_nll").value == 0


def test_a_run_that_stops_where_val_can_tell_no_gain() -> None:
    """Of 100 images, 0.5 is told from more than 0.596."""
    assert settled(run(0.5, 0.55, 0.59, 0.59, 0.9)) == 4
    assert settled(run(0.5, 0.55, 0.61, 0.62, 0.62, 0.62, 0.9)) == 6
    assert settled(run(0.5, 0.55, 0.59, 0.59, 0.9), patience=4) == 5
    assert settled(run(0.5)) == 1


def test_cells_of_some_networks_and_seeds() -> None:
    several = runs(run(0.1), run(0.1, seed=1), run(0.1, model="n"))
    assert list(of_cells(several, ["m"], range(1))) == [("m", "a", 0)]
    assert by_pair(several, dict(zip(several, (1.0, 3.0, 5.0), strict=True))) == [2.0, 5.0]


def made(folder: Path, recipe: str, seed: int, model: str = "resnet") -> None:
    synthetic.write(folder / recipe, synthetic.record("eurosat", model, seed, recipe=recipe))


def test_records_are_read_and_two_of_a_cell_refused(tmp_path: Path) -> None:
    made(tmp_path, "adamw-sgd", 0)
    made(tmp_path, "cosine", 0)
    made(tmp_path, "cosine", 1)
    found = read_runs(tmp_path)
    assert {recipe: len(each) for recipe, each in found.items()} == {"adamw-sgd": 1, "cosine": 2}
    one = found["cosine"]["resnet", "EuroSAT", 1]
    assert one.val == pytest.approx(max(one.curve), abs=1e-4)
    assert one.images == one.pass_images * len(one.curve) > 0
    made(tmp_path / "again", "cosine", 1)
    with pytest.raises(UserError, match="two runs of cosine"):
        read_runs(tmp_path)


def test_a_file_holds_all_that_tables_are_made_of(tmp_path: Path) -> None:
    found = {
        "fast": runs(run(1 / 3, 2 / 3), run(0.25, model="n", test=1 / 7)),
        "cosine": runs(replace(run(0.5, seed=2), recipe="cosine")),
    }
    write_table(tmp_path / "runs.csv", found)
    again = read_table(tmp_path / "runs.csv")
    assert {recipe: list(each) for recipe, each in again.items()} == {name: list(each) for name, each in found.items()}
    one, other = again["fast"]["m", "a", 0], found["fast"]["m", "a", 0]
    assert one.curve == pytest.approx(other.curve, abs=1e-4)
    assert one.pass_images == 10
    assert one.losses == pytest.approx((2 / 3, 1 / 3), abs=1e-3)
    assert again["fast"]["n", "a", 0].test == pytest.approx(1 / 7, abs=1e-6)
    assert one.images_to(other.val) == 20  # what was rounded reaches itself


def test_the_picture(tmp_path: Path) -> None:
    long = run(0.2, 0.4, 0.3, 0.5)
    assert best_so_far(long, 6).tolist() == [0.2, 0.4, 0.4, 0.5, 0.5, 0.5]
    found = {"adamw-sgd": runs(long, run(0.4, data="b")), "fast": runs(run(0.5), run(0.6, data="b"))}
    assert mean_curve(found["adamw-sgd"], 2) == pytest.approx([0.3, 0.4])
    draw(found, ["adamw-sgd", "fast"], ["a", "b"], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_published_makes_its_tables() -> None:
    """The file that the guide's numbers are from."""
    published = read_table(PROJECT / "docs" / "recipes.csv")
    assert {"adamw-sgd", "cosine", "fast"} <= published.keys()
    printed = command("comparison")
    assert printed.count("\n") > 10
    (level,) = re.findall(r"^fast +100 +([0-9.]+)% +([0-9.]+)% ", printed, re.MULTILINE)
    assert 0 < float(level[0]) < float(level[1]) < 100
    assert "fast" in command("screening")


def started(*words: str | Path, real: Path | str = "nowhere") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROJECT / "benchmarks" / "recipes.py", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "REAL": str(real)},
    )


def command(*words: str | Path, real: Path | str = "nowhere") -> str:
    done = started(*words, real=real)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_table_lacks_a_recipe(tmp_path: Path) -> None:
    write_table(tmp_path / "runs.csv", {"cosine": runs(replace(run(0.5), recipe="cosine"))})
    for words, missing in (
        (("screening",), "fast+10-epochs and adamw-sgd"),
        (("stopping",), "adamw-sgd"),
        (("comparison", "--recipes", "fast"), "adamw-sgd and fast"),
    ):
        done = started(*words, "--file", tmp_path / "runs.csv")
        assert done.returncode == 2
        assert f"has no run of {missing}. Train" in done.stderr
        assert "Traceback" not in done.stderr
    done = started("comparison", "--models", "unknown")
    assert done.returncode == 2
    assert "adamw-sgd, cosine, fast have no network, images and seed in common" in done.stderr


@pytest.mark.slow
def test_two_recipes_for_real(shared_data: Path, tmp_path: Path) -> None:
    """Birds: solved for a head, birds' own weights are at once what adamw-sgd comes to."""
    line = ("--models", "bird", "tf2", "--data", "cub4", "--seeds", "0", "--out", tmp_path / "runs")
    trained = {"adamw-sgd", "fast", "fast+10-epochs", "head-alone"}
    command("run", "--recipes", *trained, *line, real=shared_data.parent)
    file = ("--file", tmp_path / "runs.csv")
    command("collect", "--out", tmp_path / "runs", *file)
    found = read_table(tmp_path / "runs.csv")
    assert {recipe: len(each) for recipe, each in found.items()} == dict.fromkeys(trained, 2)
    assert all(each.curve[0] == found["fast"][cell].curve[0] for cell, each in found["head-alone"].items())
    assert "head-alone" in command("screening", *file)
    printed = command("comparison", "--recipes", "head-alone", *file, "--picture", tmp_path / "curves.png")
    assert "cub4" in printed


def test_a_pair_alone_has_no_interval() -> None:
    one = runs(run(0.5))
    assert difference(one, runs(replace(run(0.5), test=0.4))).value == pytest.approx(0.1)
