"""The benchmarks run, on little, and say what they claim to say. What they measure here proves nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import compare
from benchmarks.photographs import DISTINCT, contents, make_photographs

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_speed(tmp_path: Path) -> None:
    line = "--models shufflenet --size 64 --batch-size 2 --rounds 2 --device cpu --out"
    printed = run("speed.py", *line.split(), str(tmp_path))
    assert "geometric mean" in printed
    found = read(tmp_path / "speed.json")["results"]["shufflenet"]
    assert {column: len(values) for column, values in found["images_per_second"].items()} == dict.fromkeys(
        ("plain", "step", "ours", "ceiling"), 2
    )
    ratios = found["ratios"]
    assert ratios["gain"] == pytest.approx(ratios["loader"] * ratios["form"] * ratios["of_ceiling"])
    assert 0 <= min(found["data_wait_share"]) <= max(found["data_wait_share"]) < 1
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_augment(tmp_path: Path) -> None:
    out = tmp_path / "augment.json"
    printed = run("augment.py", "--sizes", "8", "--batch", "4", "--rounds", "1", "--out", str(out))
    assert "8x8 same draws" in printed
    assert {each["case"] for each in read(out)["times"]} == {"whole", "same draws"}


def test_cache(tmp_path: Path) -> None:
    out = tmp_path / "cache.json"
    printed = run("cache.py", "--images", "40", "--size", "32", "--rounds", "1", "--out", str(out))
    assert "cache made" in printed
    assert all(min(read(out)[name]) > 0 for name in ("build", "load", "gather", "decode", "copy"))


def test_accuracy(tmp_path: Path) -> None:
    line = "--models shufflenet --seeds 2 --epochs 1 --size 32 --out"
    printed = run("accuracy.py", *line.split(), str(tmp_path))
    assert "fast - fp32" in printed
    (found,) = read(tmp_path / "accuracy.json")["results"]
    assert [len(scores) for scores in found["top1"].values()] == [2, 2]


def test_the_interval_of_paired_differences() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, and Student's t of two degrees of freedom is 4.303."""
    found = compare([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    half = 4.30265 / 3**0.5
    assert found == pytest.approx({"difference": 2.0, "low": 2 - half, "high": 2 + half}, rel=1e-5)


def test_photographs_are_as_large_as_photographs(tmp_path: Path) -> None:
    from PIL import Image

    make_photographs(tmp_path, DISTINCT + 4)
    paths = sorted(tmp_path.rglob("*.jpg"))
    assert len(paths) == DISTINCT + 4
    assert all(30_000 < path.stat().st_size < 100_000 for path in paths)
    with Image.open(paths[0]) as image:
        assert image.size == (500, 375)
    listed = contents(tmp_path, 10)
    assert len(listed.train) + len(listed.test) == 10
    assert listed.classes == ("0", "1")


def test_recipes(tmp_path: Path) -> None:
    line = "--seeds 2 --size 32 --out"
    data = "digits.py --epochs 1 --shots 4 --plan off"
    printed = run("recipes.py", "--data", data, *line.split(), str(tmp_path))
    assert "minus the first" in printed
    plain, cosine = read(tmp_path / "recipes.json")["results"]
    assert (plain["recipe"], cosine["recipe"]) == ("adamw-sgd", "cosine")
    # 40 images, of which 10 select: one epoch, and one of either stage
    assert (plain["images"], cosine["images"]) == ([60, 60], [30, 30])
    assert len(plain["top1"]) == len(cosine["top1"]) == 2
