"""folder.py DIR --check: all that is to be mended in one's own images, and all that is worth a look, in one call."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import folder
from engine.data import cache, inspection
from engine.data.cache import decode_all
from engine.data.load import DecodeOptions
from engine.errors import UserError
from engine.paths import PROJECT
from tests.conftest import Command
from tests.scripts.test_folder import QUICK, parted, picture, repaint, tree

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


@pytest.fixture(autouse=True)
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not what reads HEIC is installed, it is not found."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


@pytest.fixture
def check(command: Command, capsys: Any) -> Callable[..., tuple[int, str, str]]:
    """Checks a folder; the exit code, and what is said as one line: on stdout, and on stderr."""

    def run(place: str = "pets", flags: str = "") -> tuple[int, str, str]:
        code = command(f"'{place}' --check {flags}", folder.DATASET)
        printed = capsys.readouterr()
        return code, " ".join(printed.out.split()), " ".join(printed.err.split())

    return run


Check = Callable[..., tuple[int, str, str]]


def spoil(root: Path, one: str, two: str, three: str) -> None:
    """What a newcomer's folder has, as far as a split of any kind can have it; three classes with 20 images or more."""
    images = {name: sorted(path for path in (root / name).iterdir() if path.is_file()) for name in (one, two, three)}
    (root / f"{one}s").mkdir()  # a twin, and a tiny class
    for path in images[one][:3]:
        shutil.move(path, root / f"{one}s" / f"IMG {path.name}")
    for number, path in enumerate(images[one][3:15]):  # on both sides of the split, and on one
        shutil.copy(path, path.with_name(f"Copy ({number}) {path.name}"))
    shutil.copy(images[two][0], root / three / f"wrong {images[two][0].name}")
    (root / two / "renamed.jpg").write_bytes(HEIC)
    (root / two / "IMG_0002.HEIC").write_bytes(HEIC)
    (root / two / "recipe.pdf").write_bytes(b"%PDF-1.4")
    (root / two / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (root / two / "page.jpg").write_bytes(b"%PDF-1.4 of a page")
    (root / three / "empty.jpg").write_bytes(b"")
    whole = root / three / "whole.jpg"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (root / three / "cut.jpg").write_bytes(whole.read_bytes()[:1500])
    whole.unlink()
    (root / three / "holiday 2019").mkdir()
    for path in images[three][5:9]:
        shutil.move(path, root / three / "holiday 2019" / path.name)
    shutil.copy(images[three][9], root / "loose.jpg")
    (root / "list.docx").write_bytes(b"PK")


def require_all_named(out: str, error: str, one: str, two: str, three: str) -> None:
    """Everything that spoil() did, in one call's output."""
    assert re.search(rf"'{re.escape(one)}' and '{re.escape(one)}s' are taken for different classes", out)
    assert "1 of the same pixels" not in out
    assert "1 image of the same pixels under different classes: remove the wrong one" in out
    assert re.search(rf"{re.escape(two)}/\S+ \({re.escape(two)}\) = {re.escape(three)}/wrong", out)
    assert re.search(r"\d+ images? ha(s|ve) the pixels of another of the same class: remove one of each two", out)
    assert "1 image in no class folder is not used" in out
    assert "not used, as they are no images: 1 .docx, 1 .mov, 1 .pdf" in out
    assert f"fewer than 10 training images: add images, or expect little of them {one}s: 1 training image" in out
    assert "4 of " in error
    for line in (
        f"{two}/renamed.jpg: HEIC (HEIF) is read by a package: pip install pillow-heif (or save it as JPEG)",
        f"{two}/page.jpg: a PDF, no image",
        f"{three}/cut.jpg: image file is truncated",
        f"{three}/empty.jpg: empty",
    ):
        assert line in error
    assert re.search(r"\d+ images? outside the test part with the same pixels as a test image", error)
    # each copy is told of, on one side or the other
    told = set(re.findall(r"Copy \((\d+)\)", out + error))
    assert told == {str(number) for number in range(12)}


def test_everything_is_named_at_once(check: Check, tmp_path: Path) -> None:
    names = ("crème brûlée", "fig", "green tea")
    tree(tmp_path / "my food", *names, images=22)
    repaint(tmp_path / "my food")
    spoil(tmp_path / "my food", *names)
    code, out, error = check("my food")
    assert code == 2
    require_all_named(out, error, *names)
    assert "1 .heic" in error  # of so few images it is too many
    assert "HEIC (HEIF) is read by a package: pip install pillow-heif" in error
    assert "class train val test" in out
    assert "4 classes" in out
    assert error.startswith("error: 3 things to mend before a run: 1. ")
    assert error.endswith("not ready: 3 things to mend, then the same command again")


def test_600_photographs(check: Check, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ones; the second time nothing is decoded again."""
    shutil.copytree(shared_data.parent / "data_more" / "food10", tmp_path / "my food")
    assert sum(path.is_file() for path in (tmp_path / "my food").rglob("*.jpg")) == 600
    names = ("apple_pie", "baklava", "bibimbap")
    spoil(tmp_path / "my food", *names)
    code, out, error = check("my food", "--size 64")
    assert code == 2
    require_all_named(out, error, *names)
    assert "not used, but like images: 1 .heic. HEIC (HEIF) is read by a package: pip install pillow-heif" in out
    assert error.endswith("not ready: 2 things to mend, then the same command again")
    monkeypatch.setattr(cache, "decode_rows", None)
    assert check("my food", "--size 64") == (code, out, error)


def test_a_folder_in_order(command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line is the command that trains, which finds everything decoded."""
    tree(tmp_path / "my pets", "cat", "dog", images=20)
    assert command("'my pets' --size 16 --check", folder.DATASET) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        "my pets: 40 images, each opened and decoded",
        "class        train      val     test",
        "cat             14        2        4",
        "dog             14        2        4",
        "2 classes       28        4        8",
        "",
        "Worth a look:",
        "- no test/ folder: 20% of each class was held out for testing (names sorted,",
        "  seed 42)",
        "ready: python folder.py 'my pets' --size 16 --device cpu -model convnext",
    ]
    monkeypatch.setattr(cache, "decode_rows", None)
    assert command(f"'my pets' {QUICK}", folder.DATASET) == 0


def test_pytorch_is_not_waited_for(tmp_path: Path) -> None:
    tree(tmp_path / "pets", "cat", "dog", images=3)
    code = "import sys, common, folder\ntry: common.main(folder.DATASET, ['pets', '--check'])\n"
    code += "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False"


def test_many_classes_are_shown_by_the_smallest_and_the_largest(check: Check, tmp_path: Path) -> None:
    for number in range(30):
        tree(tmp_path / "pets", f"{'long name of ' * 4}kind {number}", images=3 + number % 10)
    repaint(tmp_path / "pets")
    code, out, _ = check()
    assert code == 0
    assert "... 18 of sizes between ..." in out
    assert "30 classes" in out


def test_a_backbone_is_needed_for_all_else(command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    assert command("pets", folder.DATASET) == 2
    error = capsys.readouterr().err
    assert "required: -model/--model, one of resnet, wavemix, convnext, " in error
    assert " (or --check alone, which looks at the images). See python folder.py --help" in error
    assert command("--check") == 2
    assert "required: -model/--model" in capsys.readouterr().err


def test_with_a_backbone_a_step_is_taken(command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    assert command(f"pets {QUICK} --check", folder.DATASET) == 0
    printed = capsys.readouterr().out
    assert "ok: one step of training" in printed
    assert printed.splitlines()[-1] == f"ready: python folder.py pets {QUICK} --device cpu"
    (tmp_path / "pets/train/cat/0.png").write_bytes(b"")
    assert command(f"pets {QUICK} --check", folder.DATASET) == 2
    assert "ok: one step" not in capsys.readouterr().out


def test_what_readers_refuse_is_named_with_the_rest(check: Check, tmp_path: Path) -> None:
    """Of parts: classes that differ, an empty one, a link to nothing, a file that can't be read, a copy in test."""
    parted(tmp_path / "pets", "train", "val", "test")
    repaint(tmp_path / "pets")
    (tmp_path / "pets/train/cow").mkdir()
    (tmp_path / "pets/test/dog/gone.png").symlink_to("nowhere")
    (tmp_path / "pets/val/dog/0.png").write_bytes(b"x")
    shutil.copy(tmp_path / "pets/train/cat/0.png", tmp_path / "pets/test/cat/same.png")
    (tmp_path / "pets/split.json").write_text("{")
    code, out, error = check()
    assert code == 2
    assert "cow 0 0 0" in out
    for words in (
        "error: 6 things to mend",
        "cow: in train/, not in val/",
        "Found no images in 1 of the 3 class folders",
        "dog/gone.png: a link to nothing",
        "split.json is not as split.py wrote it",
        "val/dog/0.png: text, no image",
        "train/cat/0.png = test/cat/same.png",
    ):
        assert words in error


def test_a_long_list_is_cut(check: Check, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    for number in range(50):
        (tmp_path / "pets/train/cat" / f"bad {number}.png").write_bytes(b"")
    _, _, error = check()
    assert error.count(": empty") == 20
    assert "... and 30 more" in error


def test_what_allow_partial_leaves_out_is_told(check: Check, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    (tmp_path / "pets/train/cat/0.png").write_bytes(b"")
    shutil.copy(tmp_path / "pets/train/cat/1.png", tmp_path / "pets/test/cat/same.png")
    code, out, _ = check(flags="--allow-partial")
    assert code == 0
    assert "1 image left out: it can't be read" in out
    assert "1 training image left out: the same pixels as a test image" in out
    assert "ready: python folder.py pets --allow-partial" in out


LEVELS: list[tuple[str, list[str], str]] = [
    ("photos", ["photos/cat", "photos/dog"], "photos"),
    ("a zip's doubled name", ["pets/cat", "pets/dog"], "pets"),
    ("Kaggle's", ["archive/data/train/cat", "archive/data/train/dog", "archive/data/test/cat"], "archive/data"),
    ("something beside", ["my data/train/cat", "my data/test/cat", "samples", "more"], "my data"),
]


@pytest.mark.parametrize(("folders", "inside"), [level[1:] for level in LEVELS], ids=[level[0] for level in LEVELS])
def test_a_level_too_high(folders: list[str], inside: str, command: Command, tmp_path: Path, capsys: Any) -> None:
    """The command for the folder inside is there, with and without --check."""
    tree(tmp_path / "pets", *folders)
    place = shlex.quote(str(tmp_path / "pets" / inside))
    for flags in ("--check", QUICK):
        assert command(f"pets {flags}", folder.DATASET) == 2
        assert re.search(rf"^ +python folder\.py {re.escape(place)} --check$", capsys.readouterr().err, re.M)


def test_a_level_too_high_beside_folders_without_images(command: Command, tmp_path: Path, capsys: Any) -> None:
    """As the data/ that a run made where it was started; where no classes can be meant, the empty ones are named."""
    tree(tmp_path / "pets", "photos/cat", "photos/dog")
    (tmp_path / "pets/data/folder").mkdir(parents=True)
    place = shlex.quote(str(tmp_path / "pets/photos"))
    for flags in ("--check", QUICK):
        assert command(f"pets {flags}", folder.DATASET) == 2
        error = capsys.readouterr().err
        assert "Found images in a single folder of" in " ".join(error.split())
        assert re.search(rf"^ +python folder\.py {re.escape(place)} --check$", error, re.M)
    tree(tmp_path / "parts", "train/cat/a", "train/cat/b", "test/cat/a")
    tree(tmp_path / "flat", "cat")
    for root in ("parts/train", "parts/test", "flat"):
        (tmp_path / root / "dog").mkdir()
    for name in ("parts", "flat"):
        assert command(f"{name} {QUICK}", folder.DATASET) == 2
        assert "Found no images in 1 of the 2 class folders" in capsys.readouterr().err


def test_folders_of_the_parts_a_level_too_deep(check: Check, tmp_path: Path) -> None:
    tree(tmp_path / "pets", *(f"{part}/images/{name}" for part in ("train", "test") for name in ("cat", "dog")))
    code, _, error = check()
    assert code == 2
    move = f"mv -n {tmp_path}/pets/train/images/* {tmp_path}/pets/train/ && rmdir {tmp_path}/pets/train/images"
    assert move in error
    for part in ("train", "test"):
        place = tmp_path / "pets" / part
        command = f"mv -n {place}/images/* {place}/ && rmdir {place}/images"
        assert command in error
        subprocess.run(["sh", "-c", command], check=True)
    repaint(tmp_path / "pets")
    assert check()[0] == 0


def test_collections_side_by_side(check: Check, tmp_path: Path) -> None:
    """They can be classes, as colour and grey are; so they are no reason to refuse."""
    tree(tmp_path / "pets", *(f"{year}/{name}" for year in ("of 2019", "of 2020") for name in ("cat", "dog")))
    tree(tmp_path / "pets", "of 2020/cow")
    repaint(tmp_path / "pets")
    code, out, _ = check()
    assert code == 0
    assert "every class folder has the same 2 folders in it (cat, dog): if these are the classes" in out
    assert f"python folder.py '{tmp_path}/pets/of 2019' --check" in out


def test_parts_in_every_class(check: Check, tmp_path: Path) -> None:
    tree(tmp_path / "pets", *(f"{name}/{part}" for part in ("train", "test") for name in ("cat", "dog")))
    repaint(tmp_path / "pets")
    _, out, _ = check()
    assert "which are taken together and split anew: if they are parts, these come first, as in DIR/test/cat" in out


def test_classes_in_groups(check: Check, tmp_path: Path) -> None:
    tree(tmp_path / "pets", "fruit/apple", "fruit/pear", "leaf/chard", "leaf/kale")
    repaint(tmp_path / "pets")
    _, out, _ = check()
    assert "all images lie in folders inside the class folders, 4 in all (such as fruit/apple)" in out


def test_what_is_found_is_what_a_run_finds(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of a run do it: where one of them refuses something else, a check does, too."""
    tree(tmp_path / "pets", "cat", "dog")
    repaint(tmp_path / "pets")

    def other(*arguments: Any) -> Any:
        arguments[-1](UserError("no images on Sundays"))
        return decode_all(*arguments)

    monkeypatch.setattr("engine.data.load.decode_all", other)
    found = inspection.inspect(
        folder.dataset(tmp_path / "pets"),
        tmp_path,
        0,
        DecodeOptions((16, 16), None, "honest", False),
    )
    assert [str(problem) for problem in found.problems] == ["no images on Sundays"]
    assert found.images == 12


def test_no_terminal_is_given_commands(check: Check, tmp_path: Path, capsys: Any) -> None:
    tree(tmp_path / "pets", "cat", "do\x1b[31mg", images=12)
    repaint(tmp_path / "pets")
    picture(tmp_path / "pets/cat/a\nb.png", 1)
    (tmp_path / "pets/cat/c\x1b[2J.png").write_bytes(b"")
    code, out, error = check()
    assert code == 2
    assert "\x1b" not in out + error
    assert r"c\x1b[2J.png: empty" in error


def test_the_commands_of_a_check_can_be_copied_in_any_folder(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the path of the script, as it was given."""
    monkeypatch.setattr(sys, "argv", [f"{PROJECT}/folder.py"])
    tree(tmp_path / "a b" / "pets", "cat", "dog", images=20)
    _, _, error = check("a b", "--size 16")
    script = shlex.quote(f"{PROJECT}/folder.py")
    assert f"python {script} 'a b/pets' --check" in error.replace(f"{tmp_path}/", "")
    _, out, _ = check("a b/pets", "--size 16")
    assert out.endswith(f"ready: python {script} 'a b/pets' --size 16 --device cpu -model convnext")


@pytest.mark.parametrize("folders", [(".",), ("images",), ("images", "masks"), ("train_images", "test_images")])
def test_images_that_a_file_may_label(check: Check, tmp_path: Path, folders: tuple[str, ...]) -> None:
    """As Kaggle's sets are unpacked: the command that takes the file can be copied."""
    root = tmp_path / "my set"
    for number, name in enumerate(f"{place}/{image}.png" for place in folders for image in "abcdefghij"):
        picture(root / name, number)
    (root / "sample_submission.csv").write_text("id,label\n")
    _, _, error = check("my set", "--size 16")
    assert "--labels my set" not in error
    (root / "train.csv").write_text(
        "id,label\n" + "".join(f"{x},{'cat' if x < 'f' else 'dog'}\n" for x in "abcdefghij")
    )
    code, _, error = check("my set", "--size 16")
    assert code == 2
    assert error.endswith("not ready: 1 thing to mend, then the command above")
    said = re.search("If train.csv says what is in each image: python folder.py (.*) not ready", error)
    assert said
    place, *flags = shlex.split(said[1])
    assert (Path(place).name, flags[0], Path(flags[1]).name, flags[2]) == ("my set", "--labels", "train.csv", "--check")
    _, _, error = check(f"my set/{folders[0]}", "--size 16")  # the file lies beside it
    assert "If train.csv says" in error
    (root / "other.csv").write_text("id,label\n")
    _, _, error = check("my set", "--size 16")
    assert "says what is in each image" not in error
