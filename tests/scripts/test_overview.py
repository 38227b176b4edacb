"""datasets.py: the state of every dataset, the scripts that it knows, and the tables in docs/."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import datasets
import stanford_cars
import ucmerced
from common import Choice, Dataset, File
from engine.console import table
from engine.data.inventory import look
from engine.doc_tables import put_table
from engine.errors import UserError
from engine.paths import PROJECT


def test_the_pages_say_what_the_declarations_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale? `python datasets.py --write-docs`."""
    (tmp_path / "docs").mkdir()
    texts = {name: (PROJECT / "docs" / f"{name}.md").read_text("utf-8") for name in ("datasets", "backbones")}
    for name, text in texts.items():
        (tmp_path / "docs" / f"{name}.md").write_text(put_table(text, name, "| old |"), "utf-8")
    monkeypatch.setattr(datasets, "PROJECT", tmp_path)
    # parameters are counted, and need no values: to draw these takes most of the time
    for draw in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, draw, lambda tensor, *_, **__: tensor)
    assert datasets.main(["--write-docs"]) == 0
    for name, text in texts.items():
        assert (tmp_path / "docs" / f"{name}.md").read_text("utf-8") == text


def test_every_script_is_known_and_nineteen_rows_are_published() -> None:
    found = {path.stem for path in PROJECT.glob("*.py") if re.search(r"^DATASET = ", path.read_text("utf-8"), re.M)}
    assert found == {*datasets.SCRIPTS, "folder"}
    assert len(datasets.PUBLISHED) == 19
    assert {*datasets.DATASETS} >= {*(dataset.key for dataset in datasets.PUBLISHED), "digits"}


@pytest.mark.parametrize("dataset", datasets.DATASETS.values(), ids=lambda dataset: dataset.key)
def test_everything_that_a_card_needs(dataset: Dataset) -> None:
    assert dataset.script_name in datasets.SCRIPTS
    assert bool(dataset.files) == dataset.published
    if dataset.published:
        assert all([dataset.licence, dataset.citation, dataset.page, dataset.split])
        assert dataset.mean
        assert dataset.std
        assert all(0 < value < 1 for value in (*dataset.mean, *dataset.std))
        assert dataset.domain in ("natural", "texture", "remote sensing", "plant", "astronomy", "medical")


@pytest.mark.parametrize("script", datasets.SCRIPTS)
def test_every_script_has_its_dataset_page(script: str) -> None:
    """The docstring: a command line, and what whoever uses the result must know."""
    text = (PROJECT / f"{script}.py").read_text("utf-8")
    page = text[: text.index('"""', 3)]
    assert f"python {script}.py" in page
    for word in ("What", "Counts", "Input", "Traps"):
        assert re.search(rf"^{word} ", page, re.MULTILINE), word


@pytest.mark.parametrize("name", ["eurosat", "breakhis"])
def test_a_script_is_loaded_from_its_path(name: str) -> None:
    found = datasets.load(PROJECT / f"{name}.py")
    every = found.every if isinstance(found, Choice) else (found,)
    assert [dataset.key for dataset in every] == [dataset.key for dataset in datasets.find(name)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no attribute 'DATASET'"),
        ("DATASET = 3", "DATASET is of type int. Expected a Dataset or a Choice"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("DATASET =", "SyntaxError"),
        (None, "FileNotFoundError"),
    ],
)
def test_a_script_that_declares_nothing(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        datasets.load(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_marks_that_are_not_there() -> None:
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert put_table(text, "x", "new\nnew") == "a\n<!-- x -->\nnew\nnew\n<!-- /x -->\nb"
    with pytest.raises(ValueError, match="0 times"):
        put_table(text, "y", "new")
    with pytest.raises(ValueError, match="2 times"):
        put_table(text + text, "x", "new")


def test_columns() -> None:
    assert table([("a", "bb", "c"), ("aaa", "b", "")]) == "a    bb  c\naaa  b"


def test_nothing_there(capsys: Any, tmp_path: Path) -> None:
    assert datasets.main(["--data-dir", str(tmp_path / "data")]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert list(rows) == list(datasets.DATASETS)
    assert "complete" in rows.pop("digits")
    assert all("absent" in rows[dataset.key] for dataset in datasets.PUBLISHED)
    assert "fetched on first use (94 MB)" in rows["eurosat"]
    assert "by hand: python datasets.py rsna" in rows["rsna"]
    assert not (tmp_path / "data").exists()


def test_one_in_full(capsys: Any, tmp_path: Path) -> None:
    assert datasets.main(["rsna", "breakhis_200x", "--data-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for word in ("rsna-pneumonia-detection-challenge.zip", str(tmp_path / "rsna"), "accept the rules", "1,411 / 611"):
        assert word in printed


def test_states(tmp_path: Path, shared_data: Path) -> None:
    dataset = replace(ucmerced.DATASET, files=(File("a.zip", ("https://x.example/a.zip",), "md5:00"),))
    assert look(dataset, tmp_path).status == "absent"
    (tmp_path / "a.zip").write_bytes(b"another")
    whole = replace(dataset, files=(replace(dataset.files[0], checksum="md5:b32d73e56ec99bc5ec8f83871cde708a"),))
    assert look(whole, tmp_path).status == "archive"
    more = replace(whole, files=(*whole.files, File("b.zip", ("https://x.example/b.zip",), None)))
    assert look(more, tmp_path).status == "part of it"
    subset = shared_data / "ucmerced"
    state = look(ucmerced.DATASET, subset)
    assert state.status == "incomplete"
    assert "15 train images instead of 1,680" in state.differences
    assert "class harbor: 7 images instead of 100" in state.differences
    fitting = replace(ucmerced.DATASET, classes=3, train_images=15, test_images=6, class_images=7)
    assert look(fitting, subset) == look(fitting, subset / "UCMerced_LandUse")
    assert look(fitting, subset).status == "complete"


def test_a_damaged_list_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "cars_train").mkdir()
    (tmp_path / "cars_meta.mat").write_bytes(b"no matrix")
    state = look(stanford_cars.DATASET, tmp_path)
    assert state.status == "unusable"
    assert "cars_meta.mat" in state.what_to_do


def test_an_archive_that_is_not_the_published_one_is_unusable(tmp_path: Path) -> None:
    (tmp_path / ucmerced.DATASET.files[0].name).write_bytes(b"0" * 1000)
    state = look(ucmerced.DATASET, tmp_path)
    assert state.status == "unusable"
    assert "truncated (1,000 bytes" in state.what_to_do
