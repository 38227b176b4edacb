"""Which folder --data-dir means, and what may be fetched into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import ucmerced
from engine.data.declaration import Dataset, File
from engine.data.download import obtain
from engine.data.place import place_among, place_of, usual_place
from engine.errors import UserError
from tests.engine.data.archived import dataset, file_of
from tests.engine.data.test_download import TAR, content, refusal
from tests.server import Server

LAND = ucmerced.DATASET


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lay(root: Path) -> Path:
    """UCMerced's extracted folder, in `root`."""
    (root / "UCMerced_LandUse" / "Images" / "airplane").mkdir(parents=True)
    (root / "UCMerced_LandUse" / "Images" / "airplane" / "airplane00.tif").touch()
    return root


def own(*files: File) -> Dataset:
    """A dataset whose folder and script have different names."""
    return replace(dataset(*files), key="toys")


def served(server: Server, behave: str | int = "") -> Dataset:
    return own(file_of("toy.tar.gz", TAR, server.add("/toy", TAR, behave)))


def everything(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data/ucmerced", "data/ucmerced"),
        ("data/ucmerced/", "data/ucmerced"),
        ("data/../data/ucmerced", "data/../data/ucmerced"),
        ("data", "data/ucmerced"),
        ("data/ucmerced/UCMerced_LandUse", "data/ucmerced/UCMerced_LandUse"),
        ("data/ucmerced/UCMerced_LandUse/Images", "data/ucmerced/UCMerced_LandUse"),
        ("data/ucmerced/UCMerced_LandUse/Images/airplane", "data/ucmerced/UCMerced_LandUse"),
    ],
)
def test_one_level_too_high_or_too_low(tmp_path: Path, given: str, meant: str) -> None:
    lay(tmp_path / "data" / "ucmerced")
    place = place_of(LAND, Path(given))
    assert place.absolute() == tmp_path / meant
    assert obtain(LAND, place).absolute() == tmp_path / meant / ("" if meant.endswith("Use") else "UCMerced_LandUse")
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_of_any_name_that_has_the_datasets_own_in_it(tmp_path: Path) -> None:
    """As extracting into a folder called after the archive makes it."""
    lay(tmp_path / "mine" / "land (1)")
    (tmp_path / "mine" / "other").mkdir()
    assert place_of(LAND, tmp_path / "mine") == tmp_path / "mine" / "land (1)"
    lay(tmp_path / "mine" / "copy")
    message = refusal(lambda: obtain(LAND, place_of(LAND, tmp_path / "mine")))
    for place in (f"{tmp_path}/mine/copy", f"'{tmp_path}/mine/land (1)'"):
        assert f"--data-dir {place}" in message


def test_the_extracted_folder_in_other_letters(tmp_path: Path) -> None:
    lay(tmp_path / "data" / "ucmerced")
    (tmp_path / "data" / "ucmerced" / "UCMerced_LandUse").rename(tmp_path / "data" / "ucmerced" / "ucmerced_landuse")
    assert obtain(LAND, place_of(LAND, usual_place(LAND))) == Path("data/ucmerced/ucmerced_landuse")


def test_a_folder_called_as_the_archive(tmp_path: Path) -> None:
    """As some programs extract into."""
    lay(tmp_path / "data" / "ucmerced" / "UCMerced_LandUse.zip")
    place = place_of(LAND, usual_place(LAND))
    assert obtain(LAND, place) == Path("data/ucmerced/UCMerced_LandUse.zip/UCMerced_LandUse")


@pytest.mark.parametrize("given", ["typo", "data/typo", "data/typo/deeper", "land.txt"])
def test_a_mistyped_folder_is_not_made(server: Server, tmp_path: Path, given: str) -> None:
    lay(tmp_path / "data" / "land")
    (tmp_path / "land.txt").touch()
    before = everything(tmp_path)
    toy = replace(LAND, files=(file_of("toy.zip", TAR, server.add("/toy", TAR)),))
    message = refusal(lambda: obtain(toy, place_of(toy, Path(given))))
    wrong = "is a file" if given == "land.txt" else "does not exist"
    remedy = "leave --data-dir out" if given == "land.txt" else "mkdir -p"
    for fact in (str(tmp_path / given), wrong, "toy.zip, UCMerced_LandUse/, a folder with Images in it", remedy):
        assert fact in message
    if given.startswith("data/"):
        assert f"--data-dir {tmp_path / 'data' / 'land'}" in message
    assert server.seen == []
    assert everything(tmp_path) == before


def test_nothing_is_fetched_among_other_files(server: Server, tmp_path: Path) -> None:
    toy = served(server)
    mine = tmp_path / "my photos"
    mine.mkdir()
    (mine / "a.jpg").touch()
    message = refusal(lambda: obtain(toy, place_of(toy, mine)))
    for fact in ("has a.jpg in it", f"mkdir -p '{mine / 'toys'}'", str(tmp_path / "data" / "toys")):
        assert fact in message
    assert everything(mine) == ["a.jpg"]
    (mine / "toys").mkdir()  # as the message says
    assert obtain(toy, place_of(toy, mine)) == mine / "toys" / "toy"
    assert sorted(entry.name for entry in mine.iterdir()) == ["a.jpg", "toys"]
    assert server.seen == ["/toy"]


@pytest.mark.parametrize("helper", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "Thumbs.db"])
def test_what_a_nas_or_a_disk_keeps_for_itself_is_no_other_file(helper: str, server: Server, tmp_path: Path) -> None:
    toy = served(server)
    for name in ("disk", "toy"):  # of another name, and of the dataset's own
        (tmp_path / name / helper).mkdir(parents=True)
        assert obtain(toy, place_of(toy, tmp_path / name)) == tmp_path / name / "toy"
    assert server.seen == ["/toy", "/toy"]


def test_the_usual_folder_is_made_and_nothing_is_left_of_a_failure(server: Server, tmp_path: Path) -> None:
    toy = served(server, 404)
    refusal(lambda: obtain(toy, usual_place(toy)))
    assert everything(tmp_path) in ([], ["data"])
    server.behave["/toy"] = ""
    obtain(toy, usual_place(toy))
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("name", ["..", "", "toy", "toy.tar.gz"])
def test_a_link_to_a_disk_that_is_not_there(server: Server, tmp_path: Path, name: str) -> None:
    """Nothing is fetched in its place."""
    toy = served(server)
    link = usual_place(toy).parent if name == ".." else usual_place(toy) / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/nowhere/at/all")
    assert "is its disk mounted?" in refusal(lambda: obtain(toy, usual_place(toy)))
    assert server.seen == []


@pytest.mark.parametrize(
    ("found", "fact"),
    [
        ("toy (1).tar.gz", "mv -n"),
        ("toy(2).tar.gz", "mv -n"),
        ("toy.tar (1).gz", "mv -n"),
        ("toy - Copy.tar.gz", "mv -n"),
        ("TOY.tar.gz", "mv -n"),
        ("toy.tgz", "mv -n"),
        ("toy.tar", "tar -xf"),
    ],
)
def test_an_archive_by_the_name_that_a_browser_gave_it(server: Server, tmp_path: Path, found: str, fact: str) -> None:
    toy = served(server)
    (tmp_path / "data" / "toys").mkdir(parents=True)
    (tmp_path / "data" / "toys" / found).write_bytes(TAR)
    message = refusal(lambda: obtain(toy, usual_place(toy)))
    assert fact in message
    assert found in message
    assert server.seen == []


def test_an_archive_got_by_hand_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "toy (1).zip").write_bytes(b"1")
    assert f"mv -n '{tmp_path}/toy (1).zip' {tmp_path}/toy.zip" in refusal(
        lambda: obtain(own(file_of("toy.zip", b"1")), tmp_path)
    )


def test_a_half_of_a_download_is_no_other_name(server: Server, tmp_path: Path) -> None:
    toy = served(server)
    (tmp_path / "toy.tar.gz.part").write_bytes(b"half")
    assert content(obtain(toy, tmp_path))


def test_the_same_meaning_to_a_command_of_many_datasets(tmp_path: Path) -> None:
    """DIR/<script> where the dataset is not there yet; else where the scripts find it."""
    toy = own(file_of("toy.tar.gz", TAR, "http://toy.example"))
    assert place_among(toy, tmp_path) == tmp_path / "toys"
    (tmp_path / "toys").mkdir()
    assert place_among(toy, tmp_path) == place_of(toy, tmp_path) == tmp_path / "toys"
    (tmp_path / "toy.tar.gz").write_bytes(TAR)
    assert place_among(toy, tmp_path) == place_of(toy, tmp_path) == tmp_path


def test_an_archive_in_a_folder_of_the_datasets_name_and_of_the_scripts(tmp_path: Path) -> None:
    """DTD: DIR/dtd holds the archive, and the archive a folder dtd."""
    toy = replace(dataset(file_of("toy.tar.gz", TAR)), contains=("a.txt",))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.tar.gz").write_bytes(TAR)
    assert place_of(toy, tmp_path) == tmp_path / "toy"
    assert obtain(toy, tmp_path / "toy") == tmp_path / "toy" / "toy"
    assert obtain(toy, place_of(toy, tmp_path)) == tmp_path / "toy" / "toy"


def test_what_is_got_by_hand_says_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    by_hand = dataset(file_of("toy.zip", b"1"))
    with pytest.raises(UserError, match=r"In .* there is photos/\."):
        obtain(by_hand, tmp_path)
    assert everything(tmp_path) == ["photos"]
