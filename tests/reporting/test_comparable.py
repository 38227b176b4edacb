"""reporting/comparable.py: what is compared with what, and every reason not to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.training.metrics import evaluate
from engine.training.recipe import RECIPES
from reporting import comparable
from reporting.collect import collect
from reporting.comparable import Apart, ComparableGroup, divide
from reporting.entry import ALL_IMAGES
from tests.reporting import synthetic


def divided(folder: Path, *records: dict[str, Any]) -> tuple[list[ComparableGroup], Apart]:
    for record in records:
        synthetic.write(folder, record)
    return divide(collect(folder).entries)


def changed(seed: int = 1, **changes: Any) -> dict[str, Any]:
    return synthetic.record("ucmerced", "swin", seed, **changes)


def test_one_group(tmp_path: Path) -> None:
    (group,), apart = divided(
        tmp_path, *(synthetic.record("ucmerced", name, seed) for name in ("swin", "resnet") for seed in (1, 0))
    )
    assert apart == []
    assert group.backbones == ["resnet", "swin"]
    assert [entry.seed for entry in group.cells["ucmerced", "swin", ALL_IMAGES].runs] == [0, 1]
    assert comparable.title(group.setting) == "honest protocol, recipe adamw-sgd, ImageNet weights"
    assert comparable.settings(group.setting) == [RECIPES["adamw-sgd"].help]


def test_weights_of_one_architecture_are_rows_of_one_group(tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "config": {"weights": "IMAGENET1K_V2"},
        "backbone": {"weights": "ResNet50_Weights.IMAGENET1K_V2"},
    }
    (group,), apart = divided(
        tmp_path,
        synthetic.record("ucmerced", "resnet"),
        synthetic.record("ucmerced", "resnet", 1, **other),
        synthetic.record("ucmerced", "swin"),
        synthetic.record("ucmerced", "mobilenet", config={"weights": "IMAGENET1K_V2"}),  # what it begins from anyway
    )
    assert apart == []
    assert group.backbones == ["resnet", "resnet@IMAGENET1K_V2", "swin", "mobilenet"]


def test_weights_that_saw_more_than_imagenet_are_noted(tmp_path: Path) -> None:
    made = synthetic.record("ucmerced", "swin", backbone={"weights": "timm/swin.ms_in22k_ft_in1k"})
    (group,), _ = divided(
        tmp_path, made, synthetic.record("ucmerced", "resnet", backbone={"weights": "timm/r.a1_in1k"})
    )
    (note,) = [note for note in comparable.notes(group) if "ImageNet-1k" in note]
    assert note.endswith("trained on ImageNet-1k alone: timm/swin.ms_in22k_ft_in1k")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"protocol": "paper"}, "paper protocol"),
        ({"recipe": "cosine", "config": {"patience": None}}, "recipe cosine"),
        ({"config": {"lr": 3e-4}}, "learning rate 0.0003"),
        ({"config": {"epochs": 3}}, "epochs a stage: 3"),
        ({"config": {"patience": 5}}, "patience 5"),
        ({"config": {"tune": "linear"}}, "the head only"),
        ({"config": {"layer_decay": 0.8}}, "layer decay 0.8"),  # of an older record: there is no such flag any more
        ({"config": {"lr_sweep": True}}, "learning rate chosen by a sweep"),
        ({"config": {"batch_size": 32}}, "batches of 32"),
        ({"config": {"weights": "none"}, "backbone": {"weights": "none"}}, "random weights"),
        ({"config": {"weights": "SWAG_V1"}, "backbone": {"weights": "X_Weights.SWAG_V1"}}, "weights SWAG_V1"),
        ({"config": {"weights": "a/my.pth"}, "backbone": {"weights": "my.pth"}}, "weights my.pth"),
    ],
)
def test_what_splits_groups(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    found, apart = divided(tmp_path, synthetic.record("ucmerced", "swin"), changed(**changes))
    assert len(found) == 2
    assert apart == []
    titles = [comparable.title(group.setting) for group in found]
    assert titles[0] != titles[1]
    assert sum(told in title for title in titles) == 1
    assert len({comparable.identity(group.setting) for group in found}) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"precision": "fp32", "compile": "on", "plan": "off", "device": "cpu", "no_cache": True}},
        {"plan": {"precision": "fp32", "device": "cpu"}},
        {"batch_size": 17},
        {"config": {"weights": "auto"}},
        {"config": {"ema": False, "layer_decay": None}},  # flags of older records that were off
    ],
)
def test_what_does_not_split_groups(tmp_path: Path, changes: dict[str, Any]) -> None:
    found, apart = divided(tmp_path, synthetic.record("ucmerced", "swin"), changed(**changes))
    assert (len(found), apart) == (1, [])
    assert len(found[0].cells) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed", "error": "RunError: nan"}, "failed: RunError: nan"),
        ({"status": "running", "finished": None}, "not finished"),
        ({"dataset": {"partial": True}}, "partial data: not the published images"),
        ({"dataset": {"partial": True, "published": False}}, "partial data: not all the images that belong there"),
        (
            {
                "backbone": {
                    "weights_run": {
                        "run": "r",
                        "dataset": "ucmerced",
                        "protocol": "honest",
                        "seed": 0,
                        "weights": "none",
                    }
                }
            },
            "weights of an earlier run on this dataset, which may have seen",
        ),
    ],
)
def test_what_is_ranked_with_nothing(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    (group,), (line,) = divided(tmp_path, synthetic.record("ucmerced", "swin"), changed(**changes))
    assert [entry.seed for entry in group.entries] == [0]
    assert reason in line["reason"]
    assert line["run"].startswith("ucmerced/swin/honest-seed1-")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": {"version": "2"}}, "version 2 instead of 1"),
        ({"dataset": {"classes": [f"c{index}" for index in range(21)]}}, "other class names"),
        (
            {
                "dataset": {"counts": {"available": 9, "train": 8, "val": 1, "test": 5}},
                "test": evaluate(np.eye(21)[:5], np.arange(5)),
            },
            "5 test images instead of 420",
        ),
        ({"config": {"size": [64, 96]}}, "input 64x96 instead of 256x256"),
        ({"config": {"augment": "trivial"}}, "augmentation trivial instead of none"),
        ({"dataset": {"test_part": "1" * 64}}, "that record is older and does not say which test images"),
        ({"environment": {"code": {"script": "1"}}}, "that record is older and does not say which code of its script"),
    ],
)
def test_one_version_of_a_dataset_in_a_group(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    two = [synthetic.record("ucmerced", "swin", seed) for seed in (0, 2)]
    (group,), (line,) = divided(tmp_path, *two, changed(9, **changes))
    assert [entry.seed for entry in group.entries] == [0, 2]
    assert line["reason"] == f"another version of UCMerced than the one compared: {reason}"


def test_an_older_record_is_not_said_to_be_of_other_images(tmp_path: Path) -> None:
    """What it does not say is not known to differ; of two records that say it, it is."""
    of_today = {"dataset": {"test_part": "1" * 64}, "environment": code()}
    others = [
        {"environment": {"code": {"engine": "e", "backbone": "b"}}},
        of_today | {"dataset": {"test_part": "2" * 64}},
        of_today | {"environment": code(script="x")},
    ]
    records = [
        *(changed(seed, **of_today) for seed in (1, 2)),
        *(changed(seed, **other) for seed, other in enumerate(others, 3)),
    ]
    _, apart = divided(tmp_path, *records)
    older = "this record is older and does not say which"
    assert [line["reason"].partition("than the one compared: ")[2] for line in apart] == [
        f"{older} test images, {older} code of its script",
        "other test images, or other labels",
        "made by other code of the dataset's script",
    ]


def test_of_two_versions_with_as_many_records_the_newest_stays(tmp_path: Path) -> None:
    old, new = changed(0), changed(5, dataset={"version": "2"})
    assert old["finished"] < new["finished"]
    (group,), (line,) = divided(tmp_path, old, new)
    assert [entry.seed for entry in group.entries] == [5]
    assert line["reason"].endswith("version 1 instead of 2")


def test_of_one_cell_and_seed_the_newest_stays(tmp_path: Path) -> None:
    old = changed(0, dataset={"split": "0" * 64})
    new = changed(0, dataset={"split": "1" * 64}, finished="2027-01-01T00:00:00+00:00")
    (group,), (line,) = divided(tmp_path, new, old)
    assert [entry.provenance.split for entry in group.entries] == ["1" * 8]
    assert line["run"].endswith(old["run"])
    assert line["reason"] == f"older than ucmerced/swin/{new['run']}, which is the same cell and seed"


def test_budgets_are_cells_of_their_own(tmp_path: Path) -> None:
    budgets = ("5 shots", "all", "20 shots", "0.1 of train")
    (group,), apart = divided(tmp_path, *(synthetic.record("ucmerced", "swin", 0, budget) for budget in budgets))
    assert apart == []
    assert [str(budget) for budget in group.budgets] == ["all", "20 shots", "0.1 of train", "5 shots"]
    assert len(group.cells) == 4


def test_pretrained_groups_come_first_then_honest_ones_then_the_largest(tmp_path: Path) -> None:
    paper = [synthetic.record("ucmerced", name, protocol="paper") for name in ("swin", "resnet")]
    honest = [synthetic.record("ucmerced", name) for name in ("swin", "resnet")]
    linear = [changed(config={"tune": "linear"})]
    nothing = {"weights": "none", "weights_sha256": None}
    random = [synthetic.record("ucmerced", name, backbone=nothing) for name in ("swin", "resnet", "regnet")]
    found, _ = divided(tmp_path, *linear, *paper, *honest, *random)
    assert [(group.setting.protocol, group.setting.weights, len(group.cells)) for group in found] == [
        ("honest", "imagenet", 2),
        ("honest", "imagenet", 1),
        ("paper", "imagenet", 2),
        ("honest", "none", 3),
    ]


def test_notes(tmp_path: Path) -> None:
    record = synthetic.record("ucmerced", "swin", protocol="paper", backbone={"weights": "none"})
    record["dataset"]["notes"] = ["12 images twice"]
    (group,), _ = divided(tmp_path, record)
    first, second, third = comparable.notes(group)
    assert first.startswith("Paper protocol: test chose the epoch")
    assert second.startswith("Random weights")
    assert third == "UCMerced: 12 images twice"


def code(engine: str = "e", script: str = "s", backbone: str = "b") -> dict[str, Any]:
    return {"code": {"engine": engine, "script": script, "backbone": backbone}}


def test_what_other_code_made_is_a_group_of_its_own(tmp_path: Path) -> None:
    """Also a run that other code went on with, and records from before code was recorded."""
    of_two = {"environment": code("old"), "resumed": [{"at": "", "environment": code("new")}]}
    records = [changed(seed, environment=code("new")) for seed in (0, 1)]
    records += [changed(2, environment=code("old")), changed(3, **of_two), changed(4)]
    found, apart = divided(tmp_path, *records)
    assert apart == []
    assert {tuple(entry.seed for entry in group.entries): group.setting.code for group in found} == {
        (0, 1): "new",
        (2,): "old",
        (3,): "old+new",
        (4,): "not recorded",
    }
    assert {comparable.title(group.setting).rpartition(", ")[2] for group in found} == {
        *("code new", "code old", "code old+new", "code not recorded")
    }


def test_nothing_is_said_of_code_where_all_is_of_one(tmp_path: Path) -> None:
    """Even where datasets and backbones have code of their own."""
    one, two = changed(0, environment=code(backbone="x")), synthetic.record("dtd", "resnet", environment=code())
    (group,), apart = divided(tmp_path, one, two)
    assert apart == []
    assert "code" not in comparable.title(group.setting)


def test_other_code_of_one_backbone(tmp_path: Path) -> None:
    old, new = changed(0, environment=code(backbone="x")), changed(5, environment=code(backbone="y"))
    other = synthetic.record("ucmerced", "resnet", 0, environment=code(backbone="x"))
    (group,), (line,) = divided(tmp_path, old, new, other)
    assert sorted((entry.backbone, entry.seed) for entry in group.entries) == [("resnet", 0), ("swin", 5)]
    assert line["reason"] == f"made by other code of swin than ucmerced/swin/{new['run']}"


def own(seed: int, place: str, test_part: str) -> dict[str, Any]:
    """A record of a folder of one's own called pets."""
    of_folder = {"key": "folder-pets", "name": "pets", "published": False}
    return changed(seed, dataset={**of_folder, "place": f"/{place}/pets", "test_part": test_part * 64})


def datasets(folder: Path, *records: dict[str, Any]) -> dict[str, list[int]]:
    """Name -> seeds of the datasets of the one group, and "apart" for the others."""
    (group,), apart = divided(folder, *records)
    found: dict[str, list[int]] = {"apart": [int(line["run"].partition("-seed")[2][0]) for line in apart]}
    for entry in group.entries:
        found.setdefault(entry.name, []).append(entry.seed)
    assert len(group.datasets) == len(found) - 1
    return found


def test_folders_of_one_name_are_datasets_of_their_own(tmp_path: Path) -> None:
    records = [own(0, "x/a", "1"), own(1, "x/b", "2"), own(2, "x/a", "1")]
    assert datasets(tmp_path, *records) == {"a/pets": [0, 2], "b/pets": [1], "apart": []}


def test_folders_of_one_name_have_keys_that_say_which(tmp_path: Path) -> None:
    """Where names are not shown (a CSV, what is missing) the key is all there is."""
    (group,), _ = divided(tmp_path, own(0, "x/a", "1"), own(1, "x/b", "2"))
    assert sorted(group.datasets) == ["folder-pets (a/pets)", "folder-pets (b/pets)"]


def test_a_moved_folder_is_one_dataset(tmp_path: Path) -> None:
    assert datasets(tmp_path, own(0, "a", "1"), own(1, "b", "1")) == {"pets": [0, 1], "apart": []}


def test_a_folder_that_was_split_anew_is_one_dataset_in_two_versions(tmp_path: Path) -> None:
    records = [own(0, "a", "1"), own(1, "a", "2"), own(2, "a", "2")]
    assert datasets(tmp_path, *records) == {"pets": [1, 2], "apart": [0]}


def test_a_folder_that_was_moved_and_then_changed_is_one_dataset(tmp_path: Path) -> None:
    records = [own(0, "a", "1"), own(1, "b", "1"), own(2, "b", "2"), own(3, "b", "2"), own(4, "c", "2")]
    assert datasets(tmp_path, *records) == {"pets": [2, 3, 4], "apart": [0, 1]}


@pytest.mark.parametrize(("seen", "ranked"), [(0, 1), (7, 0)])
def test_weights_of_an_earlier_run_by_the_images_that_they_saw(tmp_path: Path, seen: int, ranked: int) -> None:
    """Whatever the datasets are called."""
    run = {"run": "r", "dataset": "ucmerced", "protocol": "honest", "seed": 0, "weights": "none", "seen": seen}
    found, apart = divided(tmp_path, changed(backbone={"weights_run": run}))
    assert len(found) == ranked
    assert [line["reason"] for line in apart] == ["its weights have seen 7 of the 420 test images"][ranked:]


def test_seeds_in_different_precisions_are_told(tmp_path: Path) -> None:
    (group,), _ = divided(tmp_path, changed(0), changed(1, plan={"precision": "fp32"}))
    assert comparable.notes(group) == [
        "Seeds of one backbone on one dataset in different precisions: UCMerced swin (bf16 and fp32): their spread is "
        "not of seeds alone"
    ]
