"""The hash of what makes a run's numbers."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torchvision

import breakhis
import digits
from common import BACKBONES
from engine import code_hash
from engine.code_hash import MAKES_NUMBERS, code_of, engine_hash, without_words
from engine.paths import PROJECT
from tests.toy import tiny

PLAIN = """import os

def area(side):
    return side * 2
"""


@pytest.mark.parametrize(
    "source",
    [
        '"""What this is."""\n' + PLAIN,
        PLAIN.replace("return", '"""Its size."""\n    return'),
        PLAIN.replace("return", '"Grösse, 📏"  # ✓\n    return'),
        PLAIN.replace("import os", "import os  # for nothing\n# and more"),
        PLAIN + "\n\n# the end",
        PLAIN.replace("(side):", "(side):  # metres"),
    ],
)
def test_words_do_not_count(source: str) -> None:
    assert without_words(source) == without_words(PLAIN)


@pytest.mark.parametrize(
    "source",
    [PLAIN.replace("2", "3"), PLAIN.replace("side * 2", "'# 2'"), PLAIN.replace("    return", "    if side: return")],
)
def test_code_does(source: str) -> None:
    assert without_words(source) != without_words(PLAIN)


def test_text_that_looks_like_a_comment_or_docstring_stays() -> None:
    source = 'words = """a\n\n# b"""\ncolour = "#fff"\n'
    assert "# b" in without_words(source)
    assert "#fff" in without_words(source)


def test_every_place_that_makes_numbers_is_there() -> None:
    assert all((PROJECT / name).exists() for name in MAKES_NUMBERS)


def test_a_changed_line_of_the_training_loop_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MAKES_NUMBERS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(PROJECT / name)
    monkeypatch.setattr(code_hash, "PROJECT", tmp_path)
    before = engine_hash.__wrapped__()
    assert before == engine_hash()
    (tmp_path / "engine/run.py").unlink()
    (tmp_path / "engine/run.py").write_text("changed = True\n")
    assert engine_hash.__wrapped__() != before


def test_each_script_has_its_own() -> None:
    of_digits, of_breakhis = code_of(digits.DATASET.read, ""), code_of(breakhis.DATASET.example.read, "")
    assert isinstance(breakhis.DATASET.example.read, partial)
    assert of_digits["engine"] == of_breakhis["engine"]
    assert of_digits["script"] != of_breakhis["script"]
    assert len({of_digits["script"], code_hash._hash([])}) == 2
    assert code_of(eval("lambda options: None"), "")["script"] == code_hash._hash([])  # typed into an interpreter


def test_a_backbone_of_this_project_has_its_own() -> None:
    """Those of torchvision have a version; adding one to common.py makes no other code of the rest."""
    files = {name: Path(backbone.source).name for name, backbone in BACKBONES.items() if backbone.source}
    assert files == {"wavemix": "wavemix_model.py", "inception": "inception.py"}
    assert Path(replace(BACKBONES["resnet"], builder=tiny).source) == Path(tiny.__code__.co_filename)
    assert replace(BACKBONES["resnet"], builder=torchvision.models.resnet18).source == ""
    assert not any((PROJECT / name).is_dir() and "models" in name for name in MAKES_NUMBERS)
    assert "common.py" not in MAKES_NUMBERS
