"""grid.py: from the command line to cells, and what a dry run says of them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import folder
import grid
from common import BACKBONES
from engine.command_line import parse
from engine.config import Config
from engine.errors import UserError
from engine.paths import PROJECT
from grids.cells import find_budgets, find_datasets, find_models, find_seeds, places_to_make
from grids.ledger import failure_now, keep_failure, make_folder
from tests.grids.cells import cells, record_of, write

PUBLISHED = 11


def test_names_of_datasets(tmp_path: Path) -> None:
    found = find_datasets(["cifar10", "breakhis:200", "digits", "cifar10.py", "breakhis_40x"])
    assert [(chosen.dataset.key, chosen.script.name) for chosen in found] == [
        ("cifar10", "cifar10.py"),
        ("breakhis_200x", "breakhis.py"),
        ("digits", "digits.py"),
        ("breakhis_40x", "breakhis.py"),
    ]
    assert {chosen.script.parent for chosen in found} == {PROJECT}
    assert len(find_datasets(["breakhis"])) == 4
    assert len(find_datasets(["all", "digits"])) == 20
    (tmp_path / "pets").mkdir()
    (pets,) = find_datasets(["folder:pets", "folder:./pets/"])
    assert pets.dataset.own_folder == (tmp_path / "pets").resolve()
    assert pets.script == PROJECT / "folder.py"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cifar1", "Did you mean cifar10?"),
        ("breakhis:41", "breakhis:40, breakhis:100"),
        ("cifar10:5", "Known: cifar10."),
        ("folder", "folder:DIR"),
        ("folder:nowhere", "nowhere does not exist"),
    ],
)
def test_unknown_datasets(name: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        find_datasets([name])


def test_labelled_images_of_one_folder_need_no_path_to_be_named(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("file,label\n")
    (cell,) = cells("--datasets folder:a/pets --models resnet --labels labels.csv")
    assert cell.dataset_name == cell.dataset.key == "folder-pets-labels"
    both = cells("--datasets folder:a/pets folder:b/pets --models resnet --labels labels.csv --folds 2")
    assert {cell.dataset_name for cell in both} == {
        f"folder-pets-labels ({tmp_path.resolve() / place})" for place in ("a/pets", "b/pets")
    }


def test_two_folders_of_one_name_are_two_datasets(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    first, second = cells("--datasets folder:a/pets folder:b/pets folder:b/../a/pets --models resnet")
    assert first.id != second.id
    assert [first.place, second.place] == [f"folder-pets ({tmp_path}/{name}/pets)" for name in "ab"]
    # what a grid prints of them while it runs
    assert [cell.title for cell in (first, second)] == [f"{cell.place} resnet, seed 0" for cell in (first, second)]
    (alone,) = cells("--datasets folder:a/pets --models resnet")
    assert (alone.title, alone.id) == ("folder-pets resnet, seed 0", first.id)


def test_names_of_backbones_seeds_and_budgets() -> None:
    assert len(find_models(["all"])) == PUBLISHED
    assert "inception" not in find_models(["all"])
    assert find_models(["resnet50", "inception", "resnet"]) == ["resnet", "inception"]
    assert find_seeds(["0-4"]) == [0, 1, 2, 3, 4]
    assert find_seeds(["0", "2", "5-7", "6"]) == [0, 2, 5, 6, 7]
    assert find_budgets(None, None) == [("all", "")]
    assert find_budgets(["10", "50", "all"], None) == [("all", ""), ("shots", "10"), ("shots", "50")]
    assert find_budgets(["10"], ["0.1"]) == [("shots", "10"), ("fraction", "0.1")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--seeds 4-0", "ends before it begins"),
        ("--seeds 0-9999999", "at most 10,000"),
        ("--seeds x", "'x' is not a whole number"),
        ("--seeds -1", "not a whole number"),
        ("--shots 0", "--shots: '0'"),
        ("--fraction 2", "--fraction: '2'"),
        ("--models resnot", "Did you mean resnet?"),
        ("--weights IMAGENET1K_V7", "for resnet50 not one of"),
        ("--device cuda", "finds none here, only "),
        ("--per-gpu 2 --device cpu", "one at a time"),
        ("--per-gpu 0", "whole number"),
        ("--stall-minutes 0", "above 0"),
        ("--epochs 0", "whole number"),
        ("--size 1 2 3", "a height and a width"),
        ("--check", "unknown flag --check"),
        ("--seed 1", "unknown flag --seed. Did you mean --seeds?"),
        ("-model resnet", "unknown flag -model"),
        ("--recipe cosine --patience 3", "can't be used"),
        ("--out file", "is a file. Expected a folder"),
        ("--out nowhere/x --datasets folder:.", "lies in"),
    ],
)
def test_a_wrong_value_is_told_before_anything_starts(
    line: str, says: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("grids.devices.start", lambda *_: pytest.fail("it was started"))
    (tmp_path / "file").touch()
    assert grid.main(["--datasets", "digits", "--models", "resnet", *line.split()]) == 2
    problem = capsys.readouterr().err
    assert problem.startswith("error: ")
    assert says in problem
    assert not (tmp_path / "runs").exists()


def test_flags_of_the_scripts_are_those_of_the_scripts() -> None:
    text = grid.parser().format_help()
    for f in fields(Config):
        given = f.metadata["names"][-1] in re.findall(r"--?[a-z-]+", text)
        assert given == (f.name not in ("model", "seed", "check", "sync_batch_norm")), f.name
    assert "the dataset's" in text
    assert not re.search(r"\{(size|augment|recipe|data_dir|backbones)\}", text)
    (cell,) = cells(
        "--datasets breakhis:40 --models resnet50 -bs 16 --epochs 2 --lr 1e-3 --size 64 96 --weights none "
        "--allow-partial --data-dir d --seeds 3 --shots 5"
    )
    assert cell.config == Config(
        **vars(cell.config)
        | {"model": "resnet", "batch_size": 16, "epochs": 2, "lr": 1e-3, "size": (64, 96), "seed": 3, "shots": 5}
        | {"weights": "none", "allow_partial": True, "data_dir": Path("d/breakhis")}
    )
    script, *rest = cell.command
    assert Path(script).name == "breakhis.py"
    assert rest[:6] == ["--magnification", "40", "-model", "resnet", "--seed", "3"]
    assert cell.title == "breakhis_40x resnet, seed 3, shots 5"


def test_the_first_seed_and_all_data_come_first() -> None:
    order = [
        (c.config.seed, c.budget, c.dataset.key, c.config.model)
        for c in cells("--datasets digits eurosat --models resnet swin --seeds 1 0 --shots 5 all")
    ]
    assert order[:5] == [
        (1, "all", "digits", "resnet"),
        (1, "all", "digits", "swin"),
        (1, "all", "eurosat", "resnet"),
        (1, "all", "eurosat", "swin"),
        (1, "shots 5", "digits", "resnet"),
    ]
    assert order[8][:2] == (0, "all")
    assert len(order) == len(set(order)) == 16


def test_ids_tell_apart_what_can_change_a_number(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    base = "--datasets digits --models resnet"
    lines = [base, f"{base} --recipe cosine", f"{base} --shots 5", f"{base} --fraction 0.5", f"{base} --seeds 1"]
    lines += [f"--models resnet --datasets folder:{place}/pets" for place in "ab"]
    ids = [cell.id for line in lines for cell in cells(line)]
    assert len(set(ids)) == len(lines)
    assert cells(f"{base} --out elsewhere --no-cache")[0].id == ids[0]


def test_a_dry_run_prints_the_plan_and_does_nothing(capsys: Any, tmp_path: Path) -> None:
    line = "--datasets digits eurosat --models resnet swin --seeds 0-1 --device cpu"
    one, two, three, *_ = cells(line)
    write(one, record_of(one))
    write(two, record_of(two, "running"))
    make_folder(one.config.out)
    keep_failure(three, failure_now(three, 3, "no memory", []))
    before = sorted(tmp_path.rglob("*"))
    assert grid.main([*line.split(), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for words in (
        r"^digits +4 +1 +0 +1 +3 ",
        r"^eurosat +4 +0 +1 +0 +3 ",
        r"^cells +8, one at a time",
        r"^done +1$",
        r"^failed +1, 1 kept as it is. To try it again, too:\n +python .*digits eurosat.* --device cpu --retry-failed$",
        r"^to do +6, ",
    ):
        assert re.search(words, printed, re.MULTILINE), words
    assert sorted(tmp_path.rglob("*")) == before
    assert grid.main([*line.split(), "--dry-run", "--retry-failed"]) == 0
    assert re.search(r"^to do +7", capsys.readouterr().out, re.MULTILINE)


OWN_SCRIPT = """
from dataclasses import replace
import digits
from common import main

DATASET = replace(digits.DATASET, key={key!r}, name="Pets")
if __name__ == "__main__":
    main(DATASET)
"""


def test_a_script_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    script = tmp_path / "mine" / "pets.py"
    script.write_text(OWN_SCRIPT.format(key="pets"))
    for name in ("mine/pets.py", str(script), "./mine/../mine/pets.py"):
        (cell,) = cells(f"--datasets {name} --models resnet --seeds 3 --data-dir d")
        assert cell.dataset.key == "pets"
        assert cell.command[0] == str(script.resolve())
        assert cell.config.data_dir == Path("d/pets")
        assert cell.title == "pets resnet, seed 3"
    assert [each.dataset.key for each in find_datasets(["digits", "mine/pets.py", str(script)])] == ["digits", "pets"]
    (tmp_path / "digits.py").write_text(OWN_SCRIPT.format(key="digits"))
    assert find_datasets(["digits.py"])[0].script == tmp_path / "digits.py"
    with pytest.raises(UserError, match="have the same name, 'digits'"):
        find_datasets(["digits", "digits.py"])
    with pytest.raises(UserError, match="unknown dataset 'mine/pets\\.py:5'"):
        find_datasets(["mine/pets.py:5"])


def test_a_script_with_a_dataclass(tmp_path: Path) -> None:
    """Dataclasses look their module up where imported ones are."""
    own = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Pet:\n    name: str"
    (tmp_path / "pets.py").write_text(own + OWN_SCRIPT.format(key="pets"))
    assert find_datasets([str(tmp_path / "pets.py")])[0].dataset.key == "pets"


def test_a_folder_that_is_named_as_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how it is named, with quotes where a shell needs them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my pets").mkdir()
    with pytest.raises(UserError, match=r"^my pets is a folder, but .* --datasets 'folder:my pets'$"):
        find_datasets(["my pets"])
    (tmp_path / "digits").mkdir()
    assert [each.dataset.key for each in find_datasets(["digits"])] == ["digits"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("DATASET = 3", "DATASET is of type int"),
        ("", "is no dataset's script: AttributeError"),
        ("import nowhere_at_all", "is no dataset's script: ModuleNotFoundError"),
        ("DATASET = (", "is no dataset's script: SyntaxError"),
    ],
)
def test_a_script_that_declares_no_dataset(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "pets.py").write_text(content)
    with pytest.raises(UserError, match=says):
        find_datasets(["./pets.py"])


def test_data_dir_means_what_it_does_to_the_scripts(tmp_path: Path) -> None:
    """DIR/<script>, or the dataset's own folder, wherever it is; what is fetched goes where nothing else is."""
    (tmp_path / "data2" / "ucmerced" / "UCMerced_LandUse" / "Images").mkdir(parents=True)
    for given in ("data2", "data2/ucmerced"):
        (cell,) = cells(f"--datasets ucmerced --models resnet --data-dir {given}")
        assert cell.config.data_dir == Path("data2/ucmerced")
        assert places_to_make([cell], Path(given)) == []
    line = "--datasets ucmerced dtd rsna digits --models resnet --data-dir"
    assert places_to_make(cells(f"{line} data2"), Path("data2")) == [Path("data2/dtd")]
    (tmp_path / "data2" / "notes.txt").touch()
    assert places_to_make(cells(f"{line} data2"), Path("data2")) == []
    assert places_to_make(cells(f"{line} data"), Path("data")) == []
    with pytest.raises(UserError, match=r"--data-dir typo does not exist.*mkdir -p typo"):
        places_to_make(cells(f"{line} typo"), Path("typo"))
    assert not (tmp_path / "typo").exists()


def test_a_place_into_which_nothing_came_is_gone_after_the_grid(tmp_path: Path) -> None:
    with grid.made([tmp_path / "dtd", tmp_path / "ucmerced"]):
        (tmp_path / "dtd" / "dtd.tar.gz").touch()
    assert [entry.name for entry in tmp_path.iterdir()] == ["dtd"]


def test_a_folder_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell leaves a ~ after a colon as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pets").mkdir()
    assert find_datasets(["folder:~/pets"])[0].dataset.own_folder == tmp_path / "pets"


def test_a_cell_a_fold(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    base = "--datasets folder:pets --models resnet swin --folds 3"
    found = cells(f"{base} --seeds 0-1 --shots all 5")
    assert [(c.config.seed, c.budget, c.config.model, c.config.fold) for c in found[:7]] == [
        *((0, "all", "resnet", fold) for fold in (1, 2, 3)),
        *((0, "all", "swin", fold) for fold in (1, 2, 3)),
        (0, "shots 5", "resnet", 1),
    ]
    assert len({cell.id for cell in found}) == len({cell.key for cell in found}) == len(found) == 24
    assert found[1].title == "folder-pets resnet, seed 0, fold 2 of 3"
    assert found[1].command[-4:] == ("--folds", "3", "--fold", "2")
    # what a script makes of the command is the cell's
    assert parse(folder.DATASET, BACKBONES, found[1].command[1:])[1] == found[1].config
    (alone, _) = cells(f"{base} --fold 2")
    assert (alone.id, alone.key) == (found[1].id, found[1].key)
    assert cells(base.replace(" --folds 3", ""))[0].key not in {cell.key for cell in found}
    # what one of them took, the others take
    assert found[0].but_for_seed == found[2].but_for_seed != found[3].but_for_seed


def test_folds_are_for_images_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pets").mkdir()
    assert grid.main(["--datasets", "folder:pets", "digits", "--models", "resnet", "--folds", "3", "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith("error: --folds is for images of your own, folder:DIR, and digits has")
