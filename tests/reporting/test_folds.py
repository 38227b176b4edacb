"""reporting/folds.py: the runs on all folds, pooled; what that gives by hand, and what is left of some of the folds."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import common
import folder
import grid
import report
from reporting import outcomes, statistics
from reporting.build import build
from reporting.collect import collect
from reporting.comparable import Repeats, divide
from reporting.entry import ALL_IMAGES, Budget, Entry
from reporting.folds import pool
from tests import toy
from tests.conftest import on_the_processor
from tests.reporting import synthetic

FLAGS = "pets -bs 8 --weights none --size 16 --plan off --precision fp32 --folds 3"
CLASSES = ("Forest", "River", "SeaLake")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Path]:
    """The records of real photographs in three folds: two backbones, one of them with two seeds, and few images."""
    place = tmp_path_factory.mktemp("folds")
    for name, step in zip(CLASSES, (3, 4, 7), strict=True):
        for path in sorted((shared_data / f"eurosat/2750/{name}").iterdir())[::step]:
            (place / "pets" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / "pets" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(common.BACKBONES, "tiny", replace(toy.TINY, lr=0.03))
        patch.setitem(common.BACKBONES, "slow", replace(toy.TINY, lr=1e-5))
        patch.chdir(place)
        for line in ("tiny --epochs 4", "slow --epochs 4", "tiny --epochs 4 --seed 1", "slow --epochs 4 --shots 12"):
            patch.setattr("sys.argv", ["folder.py", *shlex.split(f"{FLAGS} -model {line}")])
            with pytest.raises(SystemExit) as end:
                common.main(folder.DATASET, on_the_processor(shlex.split(f"{FLAGS} -model {line}")))
            assert not end.value.code
        yield place / "runs"


@pytest.fixture
def runs(ran: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(ran, tmp_path / "runs")


def made(runs: Path) -> dict[str, Any]:
    return report.make(runs, runs.parent / "report")


def of_folds(runs: Path, backbone: str = "tiny", seed: int = 0) -> list[Path]:
    """The folders of a backbone's runs with all images."""
    found = sorted(runs.glob(f"*/{backbone}/honest-seed{seed}-fold*"))
    return [run for run in found if json.loads((run / "record.json").read_text())["config"]["shots"] is None]


def cells(runs: Path) -> dict[str, Repeats]:
    groups, apart = divide(collect(runs).entries)
    assert not apart
    return {b: cell for (_, b, budget), cell in groups[0].cells.items() if budget == ALL_IMAGES}


def by_hand(folders: list[Path]) -> dict[str, float]:
    """Metrics of all images of several predictions.npz, by NumPy alone."""
    content = [dict(np.load(run / "predictions.npz")) for run in folders]
    labels = np.concatenate([of["labels"] for of in content])
    logits = np.concatenate([of["logits"] for of in content]).astype(np.float64)
    names = np.concatenate([of["names"] for of in content])
    assert len(set(names.tolist())) == len(names)
    predicted = logits.argmax(axis=1)
    recalls, f1 = [], []
    for label in range(len(CLASSES)):
        hits = np.sum((labels == label) & (predicted == label))
        recalls.append(hits / np.sum(labels == label))
        f1.append(2 * hits / (np.sum(labels == label) + np.sum(predicted == label)))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = [json.loads((run / "record.json").read_text())["test"] for run in folders]
    return {
        "images": len(labels),
        "top1": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(np.mean(f1)),
        "nll": float(np.mean(-np.log(shares[np.arange(len(labels)), labels]))),
        **{
            name: sum(of[name] * of["images"] for of in own) / sum(of["images"] for of in own)
            for name in ("auroc", "ece")
        },
    }


@pytest.mark.parametrize(("backbone", "seed"), [("tiny", 0), ("tiny", 1), ("slow", 0)])
def test_folds_are_pooled_as_by_hand(ran: Path, backbone: str, seed: int) -> None:
    folders = of_folds(ran, backbone, seed)
    assert len(folders) == 3
    (entry,) = (entry for entry in cells(ran)[backbone].runs if entry.seed == seed)
    assert entry.results
    expected = by_hand(folders)
    assert entry.version.test_images == expected.pop("images") == len(list((ran.parent / "pets").glob("*/*")))
    assert entry.results.values == pytest.approx(expected, abs=1e-6)
    records = [json.loads((run / "record.json").read_text()) for run in folders]
    assert entry.results.costs["train_seconds"] == pytest.approx(
        np.mean([of["costs"]["train_seconds"] for of in records])
    )
    recall = [entry.results.counts[entry.results.places == 4 * label].sum() for label in range(3)]
    sizes = [len(list((ran.parent / "pets" / name).iterdir())) for name in CLASSES]
    assert entry.results.recall == pytest.approx(np.divide(recall, sizes))


def test_the_page_and_the_tables_have_the_pooled_numbers(ran: Path, tmp_path: Path) -> None:
    told = report.make(ran, tmp_path / "report")
    assert (told["apart"], told["skipped"]) == ([], [])
    (group,) = told["groups"]
    assert group["title"].endswith(", 3 folds")
    assert any(note.startswith("Each image was tested once") for note in group["notes"])
    assert [budget["name"] for budget in group["budgets"]] == ["all", "12 shots"]
    (tiny,) = (cell for cell in group["cells"] if group["backbones"][cell["b"]]["name"] == "tiny")
    assert (tiny["seeds"], tiny["folds"], len(tiny["runs"])) == ([0, 1], 3, 6)
    top1 = [by_hand(of_folds(ran, "tiny", seed))["top1"] for seed in (0, 1)]
    assert tiny["values"]["top1"] == pytest.approx(top1, abs=1e-6)
    assert tiny["of_test"] == pytest.approx(
        statistics.wilson(float(np.mean(top1)), group["datasets"][0]["test"]), abs=1e-6
    )
    assert len(tiny["curve"]) == 5
    assert tiny["errors"]["of"] == "0, fold 1 of 3"
    sums = np.zeros((3, 3), dtype=int)
    for true, predicted, images in tiny["confusion"]:
        sums[true, predicted] += images
    assert sums.sum() == 2 * group["datasets"][0]["test"]
    row = next(line for line in (tmp_path / "report/results.csv").read_text().splitlines() if ',"tiny",' in line)
    assert f"{np.mean(top1):.7f}".rstrip("0") in row
    assert all(run.name in row for seed in (0, 1) for run in of_folds(ran, "tiny", seed))


def test_a_fold_that_is_missing_is_named_with_its_command(runs: Path) -> None:
    lost, *rest = of_folds(runs, "slow")
    shutil.rmtree(lost)
    told = made(runs)
    (reason,) = {line["reason"] for line in told["apart"]}
    assert [line["run"] for line in told["apart"]] == [str(run.relative_to(runs)) for run in rest]
    head, command = reason.removesuffix(" runs it").split(": ", 1)
    assert head == "fold 1 of 3 is missing, so the folds can't be pooled"
    words = shlex.split(command)
    assert words[1].endswith("grid.py")
    wanted = grid.cells_of(grid.parser().parse_args(words[2:]))
    assert [(cell.config.model, cell.config.fold, cell.config.epochs) for cell in wanted] == [
        ("slow", fold, 4) for fold in (1, 2, 3)
    ]
    (group,) = told["groups"]
    assert [group["backbones"][cell["b"]]["name"] for cell in group["cells"] if cell["budget"] == 0] == ["tiny"]


def test_a_fold_that_was_interrupted_or_is_contradicted_is_missing(runs: Path) -> None:
    one, other, last = of_folds(runs, "slow")
    record = json.loads((one / "record.json").read_text())
    del record["checksum"]
    (one / "record.json").write_text(json.dumps(record | {"status": "running"}))
    shutil.copy(last / "predictions.npz", other)
    reasons = {line["run"].rpartition("/")[2]: line["reason"] for line in made(runs)["apart"]}
    assert reasons[one.name] == "not finished"
    assert "the files of the run contradict its record" in reasons[other.name]
    assert reasons[last.name].startswith("folds 1 and 2 of 3 are missing")
    assert len(reasons) == 3


def test_a_plain_split_is_never_ranked_with_folds(runs: Path) -> None:
    for run in of_folds(runs, "slow"):
        record = json.loads((run / "record.json").read_text())
        del record["checksum"]
        record["config"] |= {"folds": None, "fold": None}
        record["dataset"]["division"] = None
        (run / "record.json").write_text(json.dumps(record))
    told = made(runs)
    titles = [group["title"] for group in told["groups"]]
    assert [title.endswith("3 folds") for title in titles] == [True, False]
    assert [group["datasets"][0]["test"] for group in told["groups"]][1] < 40
    # of the three, each on another test part, one is compared
    assert len([line for line in told["apart"] if "another version of pets" in line["reason"]]) == 2


def entries(ran: Path, backbone: str = "slow", seed: int = 0) -> list[Entry]:
    names = {run.name for run in of_folds(ran, backbone, seed)}
    return [entry for entry in collect(ran).entries if entry.folder.name in names]


def test_folds_of_another_division_are_not_pooled(ran: Path) -> None:
    """One image was renamed, or added, before the last fold was run."""
    *two, last = entries(ran)
    assert last.fold
    other = replace(last, fold=replace(last.fold, division="f" * 64))
    apart: list[dict[str, str]] = []
    assert pool([*two, other], apart) == []
    assert sorted(re.findall(r"^folds? [\d, and]+ of 3", line["reason"])[0] for line in apart) == [
        "fold 3 of 3",
        "fold 3 of 3",
        "folds 1 and 2 of 3",
    ]


def test_of_two_runs_on_a_fold_the_newer_is_taken(ran: Path) -> None:
    *two, last = entries(ran)
    older = replace(last, run="older", time="2000-01-01T00:00:00+00:00")
    apart: list[dict[str, str]] = []
    (pooled,) = pool([older, *two, last], apart)
    assert [of.run for of in pooled.folds] == [*(of.run for of in two), last.run]
    assert apart == [{"run": "older", "reason": f"older than {last.run}, which is the same fold, cell and seed"}]


def test_folds_that_other_code_made_are_of_both(ran: Path) -> None:
    first, *rest = entries(ran)
    other = replace(first, setting=replace(first.setting, code="aaaaaaaa"))
    (pooled,) = pool([other, *rest], [])
    assert pooled.setting.code == f"aaaaaaaa+{rest[0].setting.code}"


def test_a_budget_that_is_all_images_of_one_fold_is_that_of_all_folds(ran: Path) -> None:
    first, *rest = entries(ran)
    assert first.fold
    asked = Budget(shots=30)
    few = [replace(each, fold=replace(each.fold, budget=asked), budget=asked) for each in rest if each.fold]
    (pooled,) = pool([replace(first, fold=replace(first.fold, budget=asked)), *few], [])
    assert pooled.budget == asked


def five_folds(runs: Path, backbone: str, right: list[int], images: int = 20) -> None:
    """Records of a seed in which so many of each fold's images are right, the first of them."""
    for fold, number in enumerate(right, 1):
        outcome = [index < number for index in range(images)]
        run = synthetic.write_outcome(runs, "dtd", backbone, 0, outcome, config={"folds": 5, "fold": fold})
        record = json.loads((run / "record.json").read_text())
        record["dataset"] |= {"division": "d" * 64, "test_part": f"{fold}" * 64}
        record["dataset"]["counts"] |= {"available": 4 * images, "train": 3 * images, "val": images}
        (run / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("first", "second", "mark"),
    [
        ([18, 17, 18, 17, 18], [10, 11, 10, 9, 10], ""),  # as clear over folds as over images
        ([18, 17, 18, 17, 18], [17, 17, 17, 17, 16], "tied"),  # a few images
        ([20, 10, 18, 16, 18], [10, 11, 18, 14, 8], "tied"),  # very many of some folds, none of others
    ],
)
def test_a_difference_of_one_seed_is_tested_over_folds_and_images(
    tmp_path: Path, first: list[int], second: list[int], mark: str
) -> None:
    five_folds(tmp_path / "runs", "swin", first)
    five_folds(tmp_path / "runs", "resnet", second)
    of = cells(tmp_path / "runs")
    found = outcomes.compare(of["swin"], of["resnet"])
    differences = np.subtract(first, second) / 20
    deviation = np.std(differences, ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    over_folds = 2 * stats.t.sf(differences.mean() / deviation, 4)
    more, less = (round(20 * float(part.sum())) for part in (differences.clip(0), -differences.clip(None, 0)))
    mcnemar = stats.binomtest(more, more + less).pvalue
    assert found.p == pytest.approx(over_folds if over_folds >= 0.05 else max(over_folds, mcnemar))
    assert outcomes.marks(of)[0] == {"swin": "best", "resnet": mark}
    (group,) = made(tmp_path / "runs")["groups"]
    said = "resnet is significantly below it" if not mark else "resnet is not significantly below the best"
    assert said in group["budgets"][0]["rankings"]["overall"]["answer"]


def test_folds_with_three_seeds_are_tested_over_seeds(ran: Path) -> None:
    of = cells(ran)
    runs = tuple(replace(of["tiny"].runs[seed % 2], seed=seed) for seed in range(3))
    tiny, slow = replace(of["tiny"], runs=runs), replace(of["slow"], runs=of["slow"].runs * 3)
    slow = replace(slow, runs=tuple(replace(entry, seed=seed) for seed, entry in enumerate(slow.runs)))
    by_seeds = statistics.t_test(tiny.mean() - slow.mean(), statistics.over_seeds(tiny.scores(), slow.scores()))
    assert outcomes.compare(tiny, slow).p >= by_seeds * (1 - 1e-9)  # equal but for rounding, where images add nothing
    assert outcomes.compare(tiny, slow).p != outcomes.compare(of["tiny"], of["slow"]).p


def test_folds_are_enough_trainings_for_a_claim(ran: Path) -> None:
    (group,) = build(collect(ran), ran)["groups"]
    budget = group["budgets"][0]
    assert not budget["short"]
    assert budget["rankings"]["overall"]["kind"] == "means"


def test_the_variance_over_folds_is_corrected() -> None:
    """Nadeau & Bengio 2003, equation 9: of ten folds, 1/10 + 1/9 of the folds' variance."""
    first, second = np.linspace(0.7, 0.9, 10), np.linspace(0.6, 0.7, 10)
    found = statistics.over_folds(first.tolist(), second.tolist(), 1 / 9)
    assert found.variance == pytest.approx(np.var(first - second, ddof=1) * (1 / 10 + 1 / 9))
    assert found.freedom == 9


def test_fewer_images_to_train_on_make_the_variance_over_folds_larger(tmp_path: Path) -> None:
    """Of 20 that are tested for 10 that were trained on, the ratio is 2 in place of 1/4."""
    five_folds(tmp_path, "swin", [18, 17, 18, 17, 18])
    five_folds(tmp_path, "resnet", [14, 11, 15, 11, 14])
    of = cells(tmp_path)

    def on_ten(cell: Repeats) -> Repeats:
        (run,) = cell.runs
        return replace(cell, runs=(replace(run, folds=tuple(replace(fold, used_images=10) for fold in run.folds)),))

    few = {name: on_ten(cell) for name, cell in of.items()}
    differences = np.subtract([18, 17, 18, 17, 18], [14, 11, 15, 11, 14]) / 20
    deviation = np.std(differences, ddof=1) * np.sqrt(1 / 5 + 2)
    over_folds = 2 * stats.t.sf(differences.mean() / deviation, 4)
    assert outcomes.compare(few["swin"], few["resnet"]).p == pytest.approx(over_folds)
    assert outcomes.marks(few)[0]["resnet"] == "tied"
    assert outcomes.marks(of)[0]["resnet"] == ""


def test_folds_of_two_machines_have_no_speed_in_common(tmp_path: Path) -> None:
    five_folds(tmp_path, "convnext", [18, 17, 18, 17, 18])
    five_folds(tmp_path, "mobilenet", [17, 17, 17, 17, 17])
    for path in tmp_path.glob("*/mobilenet/*/record.json"):
        record = json.loads(path.read_text())
        if record["config"]["fold"] == 5:
            path.write_text(json.dumps(record | {"plan": record["plan"] | {"device_name": "Apple M1"}}))
    advice = build(collect(tmp_path), tmp_path)["groups"][0]["budgets"][0]["advice"]
    assert any("GMACs an image" in line for line in advice["more"])
    assert not any("images/s" in line for line in advice["more"])


def test_what_lacks_a_fold_is_among_what_is_missing(tmp_path: Path) -> None:
    five_folds(tmp_path, "swin", [18, 17, 18, 17, 18])
    five_folds(tmp_path, "resnet", [10, 11, 10, 9])
    made = build(collect(tmp_path), tmp_path)
    advice = made["groups"][0]["budgets"][0]["advice"]
    assert advice["headline"].startswith("Only swin has a result so far: 88.0 % of 100 images right")
    first = advice["commands"][0]
    assert first["why"] == "What is missing, 1 cross-validation (1 not finished)"
    assert " --models resnet --seeds 0 --folds 5 " in first["command"]
    for run in tmp_path.glob("*/swin/*"):
        shutil.rmtree(run)
    (alone,) = build(collect(tmp_path), tmp_path)["unranked"]
    assert " --models resnet --seeds 0 --folds 5 " in alone["command"]
