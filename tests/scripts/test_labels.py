# mypy: disable-error-code="func-returns-value"
"""folder.py, split.py and grid.py with labels in a file: the same numbers as of class folders, in runs of their own."""

import hashlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import folder
import grid
import split
from common import ReadOptions
from engine.errors import UserError
from grids.ledger import standing_now
from tests import toy
from tests.conftest import Command
from tests.grids.cells import cells
from tests.scripts.test_folder import QUICK, picture, said, tree

NAMES = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(8)]


def table(path: str, *lines: str) -> None:
    Path(path).write_text("\n".join(lines), "utf-8")


def split_labelled(*flags: str, labels: str = "labels.csv") -> int:
    return split.main(["--input_dir", "photos", "--labels", labels, "--output_dir", "out", *flags])


def records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path("runs").glob("*/*/*/record.json"))]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen photographs, called 00.png to 15.png, and labels.csv, by which the first half are cats."""
    monkeypatch.chdir(tmp_path)
    for number in range(16):
        picture(tmp_path / "photos" / f"{number:02}.png", number)
    table("labels.csv", "id,label", *(f"{number:02},{'cat' if number < 8 else 'dog'}" for number in range(16)))
    return tmp_path / "photos"


def test_the_numbers_are_those_of_class_folders(command: Command, tmp_path: Path) -> None:
    """The same images, names and labels: the same split and the same results, to the last bit."""
    tree(tmp_path / "pets", "cat", "dog", images=8)
    table("labels.csv", "file,label", *(f"{name},{name[:3]}" for name in reversed(NAMES)))
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    assert command(f"pets {QUICK} --labels labels.csv", folder.DATASET) == 0
    plain, labelled = records()
    assert [plain["dataset"]["key"], labelled["dataset"]["key"]] == ["folder-pets", "folder-pets-labels"]
    assert labelled["dataset"]["name"] == "pets (labels.csv)"
    for name in ("split", "test_part", "counts", "classes"):
        assert plain["dataset"][name] == labelled["dataset"][name]
    assert plain["test"] == labelled["test"]
    digest = hashlib.sha256(Path("labels.csv").read_bytes()).hexdigest()
    assert labelled["dataset"]["checksums"] == {"labels.csv": f"sha256:{digest}"}
    assert labelled["config"]["labels"] == str(tmp_path / "labels.csv")
    assert plain["environment"]["code"] == labelled["environment"]["code"]


def test_a_check_names_all_that_is_wrong_with_a_list(
    command: Command, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (photos / "03.png").write_bytes((photos / "03.png").read_bytes()[:60])
    (photos / "15.png").write_bytes((photos / "00.png").read_bytes())
    lines = Path("labels.csv").read_text().split("\n")
    table("labels.csv", *lines, "x,cat", "gone,cat", "04,dog", "05,cat")
    assert command("photos --labels labels.csv --check", folder.DATASET) == 2
    printed = capsys.readouterr()
    problems = " ".join(printed.err.split())
    assert problems.startswith("error: 4 things to mend")
    for said_of in (
        f"1 file that labels.csv lists is not in {photos}: gone",
        "labels.csv says different things of 1 image: 04.png: cat (line 6), dog (line 20)",
        "1 .heic. HEIC (HEIF) is read by a package",
        "1 of 16 images can't be read: 03.png",
    ):
        assert said_of in problems
    notes = " ".join(printed.out.split())
    assert "1 image is listed more than once, alike: used once" in notes
    assert "00.png (cat) = 15.png (dog)" in notes


def test_two_files_of_labels_are_two_datasets(
    command: Command, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(
        "other.tsv", "image\ttarget\tset", *(f"{n:02}.png\t{n % 2}\t{'test' if n > 11 else 'train'}" for n in range(16))
    )
    for labels in ("labels.csv", "other.tsv", "labels.csv"):
        assert command(f"photos --labels {labels} {QUICK}", folder.DATASET) == 0
    first, second = records()
    assert [record["dataset"]["key"] for record in (first, second)] == ["folder-photos-labels", "folder-photos-other"]
    assert [record["dataset"]["classes"] for record in (first, second)] == [["cat", "dog"], ["0", "1"]]
    assert second["dataset"]["counts"] == {"available": 12, "train": 10, "val": 2, "test": 4}
    assert second["dataset"]["notes"] == []
    assert said(capsys.readouterr().out, "photos (other.tsv):") == ["train 12 (10 to train + 2 val), test 4, 2 classes"]
    table("labels.csv", *Path("labels.csv").read_text().replace("00,cat", "00,dog").split("\n"))
    assert command(f"photos --labels labels.csv {QUICK}", folder.DATASET) == 0
    assert len(records()) == 3  # a label that was changed makes another run


def test_a_group_is_in_one_part(command: Command, photos: Path) -> None:
    lines = [f"{number:02},{'cat' if number < 8 else 'dog'},p{number // 2 % 4}" for number in range(16)]
    table("labels.csv", "id,label,patient_id", *lines)
    assert command(f"photos --labels labels.csv {QUICK}", folder.DATASET) == 0
    (made,) = Path("runs").glob("*/*/*/split.json")
    parts = json.loads(made.read_text())["parts"]
    groups = {part: {int(name[:2]) // 2 % 4 for name, _ in images} for part, images in parts.items()}
    assert sum(map(len, groups.values())) == 4
    assert all(groups.values())
    # and one that the file has in two is refused
    table(
        "labels.csv",
        "id,label,group,split",
        *(f"{line},{'train' if n % 4 else 'test'}" for n, line in enumerate(lines)),
    )
    assert command(f"photos --labels labels.csv {QUICK}", folder.DATASET) == 2


def test_what_is_wrong_is_told_before_anything_is_done(
    command: Command, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "mine.csv").touch()
    for labels, says in {
        "photos": "--labels photos is a folder. Expected a CSV file",
        "none.csv": "--labels none.csv does not exist. Expected",
        "mine.csv": "--labels mine.csv does not exist, but photos/mine.csv does. Expected",
        "''": "the path is empty",
    }.items():
        assert command(f"photos --labels {labels} {QUICK}", folder.DATASET) == 2
        assert says in capsys.readouterr().err
    table("labels.csv", *Path("labels.csv").read_text().split("\n"), "16,dog")
    assert command(f"photos --labels labels.csv {QUICK}", folder.DATASET) == 2
    assert "1 file that labels.csv lists is not in" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert command(f"photos --labels labels.csv --allow-partial {QUICK}", folder.DATASET) == 0
    (found,) = records()
    assert found["dataset"]["differences"] == ["missing of the listed images: 1: 16"]
    assert command(f"--labels labels.csv {QUICK}") == 2
    assert "unknown flag --labels" in capsys.readouterr().err
    assert command(f"--labels labels.csv {QUICK}", replace(toy.dataset(), own_folder=photos)) == 2
    assert "toy.py has labels of its own. Leave the flag out." in capsys.readouterr().err


def test_a_grid_of_labelled_images(photos: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"--models tiny {QUICK.removeprefix('-model tiny ')} --device cpu"
    (cell,) = cells(f"--datasets folder:photos --labels labels.csv {line}")
    (plain,) = cells(f"--datasets folder:photos {line}")
    assert (cell.dataset.key, plain.dataset.key) == ("folder-photos-labels", "folder-photos")
    assert cell.id != plain.id
    at = cell.command.index("--labels")
    assert cell.command[at : at + 2] == ("--labels", "labels.csv")
    assert standing_now(cell).status == "new"
    assert command(shlex.join(cell.command[1:]), folder.DATASET) == 0
    grids_own = cells(f"--datasets folder:photos --labels {photos.parent}/labels.csv {line}")
    assert standing_now(grids_own[0]).status == "done"
    assert grids_own[0].id == cell.id
    (photos / "labels.csv").write_text(Path("labels.csv").read_text())
    (other,) = cells(f"--datasets folder:photos --labels photos/labels.csv {line}")
    assert (other.dataset.key, other.id == cell.id) == (cell.dataset.key, False)
    assert grid.main(shlex.split(f"--datasets folder:photos digits --labels labels.csv {line} --dry-run")) == 2
    assert (
        "--labels is for images of your own, folder:DIR, and digits has a split of its own." in capsys.readouterr().err
    )


def test_class_folders_of_labelled_images(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(photos / "deep" / "x.png", 77)
    assert split_labelled("--test_size", "0.25") == 0
    printed = capsys.readouterr().out
    assert "1 image that labels.csv does not list is not used" in printed
    assert "Split 16 images into 12 train, 4 test" in printed
    found = json.loads(Path("out/split.json").read_text())
    digest = hashlib.sha256(Path("labels.csv").read_bytes()).hexdigest()
    assert found["options"]["labels"] == {"file": "labels.csv", "sha256": digest, "group": None}
    assert found["counts"] == {"train": {"cat": 6, "dog": 6}, "test": {"cat": 2, "dog": 2}}
    for part, names in found["files"].items():
        for name, size in names.items():
            label, _, own = name.partition("/")
            assert label == ("cat" if int(own[:2]) < 8 else "dog")
            assert Path("out", part, name).read_bytes() == (photos / own).read_bytes()
            assert size == (photos / own).stat().st_size
    raw = folder.dataset(Path("out")).read(ReadOptions(Path("out")))
    assert (len(raw.train), len(raw.test), raw.train.groups) == (12, 4, None)


@pytest.mark.parametrize("link", ["copy", "soft", "hard"])
def test_files_of_one_name_keep_their_folders(photos: Path, link: str) -> None:
    picture(photos / "deep" / "00.PNG", 77)
    table("labels.csv", *Path("labels.csv").read_text().replace("00,cat", "00.png,cat\ndeep/00,cat").split("\n"))
    assert split_labelled("--link", link) == 0
    names = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.[pP]*")}
    assert {name.partition("/")[2] for name in names} >= {"cat/00.png", "cat/deep/00.PNG", "dog/15.png"}
    assert len(names) == 17


def test_groups_of_the_file_stay_together(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """split.py keeps them on one side, and folder.py those of train, by what split.json says."""
    lines = [f"{number:02},{'cat' if number < 8 else 'dog'},p{number // 2 % 4}" for number in range(16)]
    table("labels.csv", "id,label,patient_id", *lines)
    assert split_labelled("--group_regex", "^(.)") == 2
    assert "has groups, in its column patient_id, and --group_regex makes others" in capsys.readouterr().err
    assert split_labelled() == 0
    assert "4 groups, each in one part" in capsys.readouterr().out
    assert json.loads(Path("out/split.json").read_text())["options"]["labels"]["group"] == "patient_id"
    raw = folder.dataset(Path("out")).read(ReadOptions(Path("out")))
    assert raw.train.groups is not None
    assert raw.test.groups is not None
    assert not set(raw.train.groups) & set(raw.test.groups)
    assert set(raw.train.groups) | set(raw.test.groups) == {"p0", "p1", "p2", "p3"}
    for name, group in zip(raw.train.names, raw.train.groups, strict=True):
        assert group == f"p{int(Path(name).stem) // 2 % 4}"
    picture(Path("out/train/cat/new.png"), 99)
    with pytest.raises(UserError, match=r"1 image has no group: the file of labels .* does not list them:\n.*new\.png"):
        folder.dataset(Path("out")).read(ReadOptions(Path("out")))


@pytest.mark.parametrize("change", ["groups", "column", "kind"])
def test_a_split_json_whose_groups_do_not_fit_is_refused(photos: Path, change: str) -> None:
    table("labels.csv", "id,label,group", *(f"{n:02},{'cat' if n < 8 else 'dog'},{n // 2}" for n in range(16)))
    assert split_labelled() == 0
    content = json.loads(Path("out/split.json").read_text())
    del content["sha256"]
    if change == "groups":
        content["groups"] = None
    elif change == "column":
        content["options"]["labels"]["group"] = None
    else:
        content["groups"][next(iter(content["groups"]))] = ["x"]
    Path("out/split.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not as split\.py wrote it: it has .*groups"):
        folder.dataset(Path("out")).read(ReadOptions(Path("out")))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["00,a/b", "01,c"], "can't be the names of class folders (1):\n  a/b\n"),
        (["00,.a", "01,lost+found", "02,ü", "03,a\\b"], "(3):\n  .a\n  a\\b\n  lost+found\n"),
        (["00,cat", "01,cat"], "has a single label, cat"),
        (["00.png,cat,train", "01.png,dog,test"], "in its column 3: python folder.py photos --labels 'my labels.csv'"),
        (["00,cat", "77,dog"], "1 file that my labels.csv lists is not in"),
        (["00,cat", "01,dog"], "Too few images in a class (2)"),
    ],
)
def test_what_split_can_not_take(photos: Path, capsys: pytest.CaptureFixture[str], lines: list[str], says: str) -> None:
    table("my labels.csv", *lines)
    assert split_labelled(labels="my labels.csv") == 2
    assert says in capsys.readouterr().err
    assert not Path("out").exists()


def test_names_stay_short_enough_for_a_folder(tmp_path: Path) -> None:
    root, labels = tmp_path / ("\u6570" * 80), Path("\u6570" * 80 + ".csv")
    assert len(folder.dataset(root, labels).key.encode()) < 140
    assert folder.dataset(root, labels).name.endswith("\u6570.csv)")
