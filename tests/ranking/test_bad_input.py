"""Everything that can be wrong with a question: one message that says what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rank
from tests.ranking import networks
from tests.ranking.conftest import Asker

TWO = "--models tiny wide --plan off --precision fp32 --size 16"
TOY = f"./own.py {TWO}"
PETS = f"pets {TWO}"


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def place(ask: Asker) -> Path:
    """A folder with images in the forms that the commands name."""
    for number in range(24):
        kind = "cat" if number % 2 else "dog"
        save(Path("pets", kind, f"{number}.png"), number)
        save(Path("my pets", kind, f"{number}.png"), number)
        save(Path("one class", "cat", f"{number}.png"), number)
        save(Path("copies/train", kind, f"{number}.png"), number)
        save(Path("copies/test", kind, f"{number}.png"), number % 4 + 20)
        save(Path("broken", kind, f"{number}.png"), number)
    for number, part in enumerate(("train", "test")):
        shutil.copytree("copies/train", f"parted/{part}")
        for path in Path(f"parted/{part}").glob("*/*"):
            save(path, int(path.stem) + 100 * (number + 1))
        save(Path(f"parted/{part}/owl/1.png"), 98 + number)
    Path("broken/cat/x.png").write_bytes(b"\x89PNG no image")
    Path("nothing/cat").mkdir(parents=True)
    Path("nothing/dog").mkdir()
    Path("hollow").mkdir()
    shutil.copytree("pets", "lonely")
    save(Path("lonely/owl/1.png"), 99)
    shutil.copytree("pets", "bare")
    Path("bare/owl").mkdir()
    Path("file").write_text("kept")
    Path("labels.csv").write_text("file,label\ncat/1.png,cat\ndog/nowhere.png,dog\n")
    torch.save(torch.nn.Linear(3, 2).state_dict(), "other.pth")
    Path("garbage.pth").write_bytes(b"\x80\x02junk" + b"j" * 400)
    networks.write_script(Path("own.py"), {})
    return ask.folder


MISTAKES = [
    ("", "the following arguments are required: DATA"),
    (f"cifar1 {TWO}", "Did you mean cifar10?"),
    (f"cifar1 {TWO}", "a folder of images"),
    (f"nowhere {TWO}", "unknown dataset 'nowhere'"),
    (f"./nowhere {TWO}", "./nowhere: no such folder, and no dataset's name"),
    (f"a/b/c {TWO}", "Expected a folder of images, with a folder for each class in it"),
    (f"folder:nowhere {TWO}", "nowhere does not exist"),
    (f"folder {TWO}", "Name the images' folder: folder:DIR"),
    (f"file {TWO}", "file"),
    (f"'' {TWO}", "is a variable not set?"),
    (f"' ' {TWO}", "is a variable not set?"),
    (f"'a\x1b[2J\nb' {TWO}", r"a\x1b[2J\nb: no such folder"),
    (f"'one class' {TWO}", "Found a single class folder in"),
    (f"nothing {TWO}", "no images"),
    (f"hollow {TWO}", "Found no class folders in"),
    (f"lonely {TWO}", "owl: 1"),
    (f"lonely {TWO}", "Expected 2 or more in each class. Add images, or remove the class."),
    (f"bare {TWO}", "Found no images in 1 of the 3 class folders"),
    (f"broken {TWO}", "x.png"),
    (f"copies {TWO}", "4 images outside the test part with the same content as a test image"),
    (f"my pets {TWO}", "A path with a space in it must be in quotes: 'my pets'"),
    (f"breakhis {TWO}", "breakhis names 4 datasets, and an order is of one. Name one, such as breakhis:40"),
    (f"breakhis:41 {TWO}", "breakhis:40"),
    (f"all {TWO}", "an order is of one"),
    (f"./nowhere.py {TWO}", "no script ./nowhere.py"),
    (f"./other.pth {TWO}", "no such folder"),
    ("./own.py --models tiny", "tiny alone can't be ranked: an order takes at least 2 backbones"),
    ("./own.py --models tiny tiny", "tiny alone can't be ranked"),
    ("./own.py --models resnot wide", "unknown backbone 'resnot'. Did you mean resnet?"),
    ("./own.py --models", "--models"),
    ("./own.py --models ''", "unknown backbone ''"),
    ("./own.py --models missing gone", "no backbone can be scored, and an order takes at least 2:"),
    ("./own.py --models missing gone", "missing.pth: no such file"),
    ("./own.py --models tiny missing", "only tiny can be scored"),
    (f"{TOY} --weights nowhere.pth", "--weights nowhere.pth: no such file"),
    (f"{TOY} --weights garbage.pth", "garbage.pth (406 bytes) can't be read as PyTorch weights"),
    (f"{TOY} --weights other.pth", "does not hold weights of tiny"),
    (f"{TOY} --weights IMAGENET1K_V7", "not one of imagenet, auto, none"),
    (f"{TOY} --shots 2 --fraction 0.5", "--shots and --fraction both say how many training images there are"),
    (f"{TOY} --shots 0", "'0' is not a whole number from 2"),
    (f"{TOY} --fraction 1.5", "'1.5' is not a number between 0 and 1"),
    (f"{TOY} --shots 1", "'1' is not a whole number from 2"),
    (f"{TOY} --budget 30m", "--budget is for the search, which --fine-tune asks for"),
    (f"{TOY} --train", "--train is for the search, which --fine-tune asks for"),
    (f"{TOY} --fine-tune --budget 90", "'90' is a number without its unit: 90m are minutes"),
    (f"{TOY} --fine-tune --budget 0m", "'0m' is no time at all"),
    (f"{TOY} --fine-tune --budget images:0", "'images:0' is nothing to train with"),
    (f"{TOY} --fine-tune --budget soon", "'soon' is no budget. Expected a time such as 45s"),
    (f"{TOY} --fine-tune --budget ''", "'' is no budget"),
    (f"{TOY} --size 1", "can't take images of 1x1 pixels"),
    (f"{TOY} --size 0", "--size"),
    (f"{TOY} --size 1 2 3", "--size takes a height and a width"),
    ("./own.py --models wavemix shufflenet --size 33", "wavemix can't take images of 33x33 pixels"),
    (f"{TOY} --out file", "file is a file. Expected a folder"),
    (f"{TOY} --out ''", "the path is empty"),
    (f"{PETS} --out pets/runs", "lies in"),
    (f"{TOY} --labels labels.csv", "--labels is for images of your own"),
    (f"{PETS} --labels nowhere.csv", "nowhere.csv"),
    (f"{PETS} --labels labels.csv", "nowhere.png"),
    (f"{TOY} --seed 4294967296", "'4294967296' is not a whole number from 0 to 4294967295"),
    (f"{TOY} --seed -1", "--seed"),
    (f"{TOY} --epochs 0", "'0' is not a whole number"),
    (f"{TOY} -bs 0", "'0' is not a whole number"),
    (f"{TOY} --device tpu", "--device"),
    (f"{TOY} --lr 1e-3", "unknown flag --lr."),
    (f"{TOY} --recipe fixed", "unknown flag --recipe."),
    (f"{TOY} --protocol paper", "unknown flag --protocol."),
    (f"{TOY} --folds 3", "unknown flag --folds."),
    (f"{TOY} --seeds 1", "unknown flag --seeds. Did you mean --seed?"),
    (f"{TOY} --model tiny", "unknown flag --model. Did you mean --models?"),
    (f"{TOY} --finetune", "unknown flag --finetune. Did you mean --fine-tune?"),
    (f"{TOY} --deterministic --plan measure", "--deterministic leaves no plan to be measured"),
    (f"{TOY} --jsn", "unknown flag --jsn. Did you mean --json?"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES)
def test_a_mistake(ask: Asker, place: Path, line: str, says: str) -> None:
    before = sorted(path for path in place.rglob("*") if ".cache" not in path.parts and path.parts[-1] != "torch")
    said = ask(line)
    assert said.code == 2, said.err
    assert says in said.err
    assert said.err.count("error: ") == 1
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err + said.out
    assert len(said.err.partition("error: ")[2].splitlines()) <= 8
    assert not list(place.rglob("*.tmp"))
    left = {*place.rglob("*")} - {*before}
    assert not [path for path in left if path.suffix == ".json" and ".cache" not in path.parts]
    assert Path("file").read_text() == "kept"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_card_that_is_not_there(ask: Asker, place: Path) -> None:
    said = ask(f"{TOY} --device cuda")
    assert (said.code, "--device cuda" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"parted {TWO}", "images of 1 class with a single image can't be told right"),
        (f"broken {TWO} --allow-partial", "broken: 17 training images at 16x16"),
        (f"'my pets' {TWO}", "top 2 "),
        (f"folder:pets {TWO}", "top 2 "),
        (f"{TOY} --weights none", "All weights are random"),
        (f"{TOY} --weights auto", "top 2 "),
        (f"{TOY} -bs 500", "top 2 "),
        (f"{TOY} -bs 1", "top 2 "),
        (f"{TOY} --shots 2", "training images at 16x16"),
        (f"{TOY} --no-cache", "top 2 "),
        ("./own.py --models wide tiny wide --plan off --size 16 24", "at 16x24"),
    ],
)
def test_odd_but_fine(ask: Asker, place: Path, line: str, says: str) -> None:
    said = ask(line)
    assert said.code == 0, said.err
    assert says in said.out
    assert "error" not in said.err


def test_a_cache_that_can_not_be_written(ask: Asker, place: Path) -> None:
    """Of images that are decoded it is an error that names the way out; of features alone, a note."""
    said = ask(f"{PETS} --cache-dir file")
    assert said.code == 2
    assert "--no-cache" in said.err
    said = ask(f"{TOY} --cache-dir file")
    assert (said.code, said.out.count("are not kept: ")) == (0, 2)


def test_results_that_can_not_be_written(ask: Asker, place: Path) -> None:
    Path("runs").mkdir()
    Path("runs/rank").write_text("a file")
    said = ask(TOY)
    assert said.code in (2, 3)
    assert "--out chooses another folder" in said.err
    assert "Traceback" not in said.err


def test_the_help_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        rank.main(["--help"])
    assert end.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
