"""datasets.py: the state of every dataset, and the README's tables."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import datasets
import stanford_cars
import ucmerced
from common import File
from engine.console import table
from engine.data.inventory import look
from engine.readme_tables import put_tables


def test_the_readme_says_what_the_declarations_say() -> None:
    """Stale? `make readme`."""
    text = datasets.README.read_text("utf-8")
    assert datasets.readme(text) == text


def test_nineteen_rows_with_everything_a_card_needs() -> None:
    assert len(datasets.DATASETS) == 19
    scripts = {dataset.script_name for dataset in datasets.DATASETS.values()}
    assert len(scripts) == 16
    root = Path(datasets.__file__).parent
    for key, dataset in datasets.DATASETS.items():
        assert key == dataset.key
        assert (root / f"{dataset.script_name}.py").is_file()
        assert all([dataset.licence, dataset.citation, dataset.page, dataset.split, dataset.published, dataset.files])
        assert all(0 < value < 1 for value in (*dataset.mean, *dataset.std))
        assert dataset.domain in ("natural", "texture", "remote sensing", "plant", "astronomy", "medical")
        if isinstance(dataset.class_images, dict):
            assert len(dataset.class_images) == dataset.classes


def test_every_script_has_its_dataset_page() -> None:
    """The docstring: a command line, and what whoever uses the result must know."""
    root = Path(datasets.__file__).parent
    for script in {dataset.script_name for dataset in datasets.DATASETS.values()}:
        text = (root / f"{script}.py").read_text("utf-8")
        page = text[: text.index('"""', 3)]
        assert f"python {script}.py" in page
        for word in ("What", "Counts", "Input", "ReadOptions", "Licence", "Citation", "Traps"):
            assert re.search(rf"^{word} ", page, re.MULTILINE), (script, word)


def test_marks_that_are_not_there() -> None:
    assert (
        put_tables("a\n<!-- x -->\nold\n<!-- /x -->\nb", {"x": "new\nnew"}) == "a\n<!-- x -->\nnew\nnew\n<!-- /x -->\nb"
    )
    with pytest.raises(ValueError, match="0 times"):
        put_tables("no marks", {"x": "new"})


def test_columns() -> None:
    assert table([("a", "bb", "c"), ("aaa", "b", "")]) == "a    bb  c\naaa  b"


def test_nothing_there(capsys: Any, tmp_path: Path) -> None:
    assert datasets.main(["--data-dir", str(tmp_path / "data")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all("absent" in line for line in lines[1:])
    assert "fetched on first use (94 MB)" in next(line for line in lines if line.startswith("eurosat"))
    assert "by hand: python datasets.py rsna" in lines[-1]
    assert not (tmp_path / "data").exists()


def test_one_in_full(capsys: Any, tmp_path: Path) -> None:
    assert datasets.main(["rsna", "breakhis_200x", "--data-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for word in ("rsna-pneumonia-detection-challenge.zip", str(tmp_path / "rsna"), "accept the rules", "1,411 / 611"):
        assert word in printed


def test_states(tmp_path: Path, shared_data: Path) -> None:
    dataset = replace(ucmerced.DATASET, files=(File("a.zip", ("https://x.example/a.zip",), "md5:00"),))
    assert look(dataset, tmp_path).word == "absent"
    (tmp_path / "a.zip").write_bytes(b"another")
    whole = replace(dataset, files=(replace(dataset.files[0], checksum="md5:b32d73e56ec99bc5ec8f83871cde708a"),))
    assert look(whole, tmp_path).word == "archive"
    assert look(
        replace(whole, files=(*whole.files, File("b.zip", ("https://x.example/b.zip",), None))), tmp_path
    ).word == ("part of it")
    subset = shared_data / "ucmerced"
    state = look(ucmerced.DATASET, subset)
    assert state.word == "incomplete"
    assert "15 train images instead of 1,680" in state.differences
    assert "class harbor: 7 images instead of 100" in state.differences
    fitting = replace(ucmerced.DATASET, classes=3, train_images=15, test_images=6, class_images=7)
    assert look(fitting, subset) == look(fitting, subset / "UCMerced_LandUse")
    assert look(fitting, subset).word == "complete"


def test_a_damaged_list_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "cars_train").mkdir()
    (tmp_path / "cars_meta.mat").write_bytes(b"no matrix")
    state = look(stanford_cars.DATASET, tmp_path)
    assert state.word == "unusable"
    assert "cars_meta.mat" in state.what_to_do


def test_an_archive_that_is_not_the_published_one_is_unusable(tmp_path: Path) -> None:
    (tmp_path / ucmerced.DATASET.files[0].name).write_bytes(b"0" * 1000)
    state = look(ucmerced.DATASET, tmp_path)
    assert state.word == "unusable"
    assert "truncated (1,000 bytes" in state.what_to_do
