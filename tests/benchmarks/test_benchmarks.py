"""The benchmarks run, on little, and say what they claim to say. What they measure here proves nothing."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import benchmarks.accuracy
import benchmarks.augment
import benchmarks.busy
import benchmarks.cache
import benchmarks.rank
import benchmarks.rank_cost
import benchmarks.speed
import digits
from benchmarks.accuracy import compare, record_of
from benchmarks.columns import Found
from benchmarks.photographs import DISTINCT, make_photographs, raw_splits
from benchmarks.setting import Setting
from benchmarks.speed import describe
from common import BACKBONES
from engine.command_line import parse
from engine.config import Config
from engine.data.part import Part
from engine.errors import RunError
from engine.paths import PROJECT
from engine.training.plan import Plan
from tests.engine.records.kept import SCHEMA_1, SCHEMA_2

Benchmark = Callable[..., str]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Benchmark]:
    """Runs a benchmark's command line in this process and returns what it prints."""

    def run(script: ModuleType, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(script.__file__), *arguments])
        script.main()
        return capsys.readouterr().out

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


SCRIPTS = ("accuracy", "augment", "busy", "cache", "explain", "pointing", "recipes", "speed")


def test_each_is_a_script() -> None:
    """Where Python looks for modules in the script's folder, and not in this project's, each finds what it needs."""
    code = f"""
import runpy, sys
before = [place for place in sys.path if place]
for name in {SCRIPTS}:
    sys.path[:] = [{str(PROJECT / "benchmarks")!r}, *before]
    assert runpy.run_path(f"{PROJECT}/benchmarks/{{name}}.py", run_name="imported")["main"]
    assert sys.path[0] == {str(PROJECT)!r}, name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT.parent)
    assert done.returncode == 0, done.stderr


def test_speed(benchmark: Benchmark, tmp_path: Path, user_cache: Path) -> None:
    before = sorted(user_cache.rglob("plans/*"))
    line = "--models shufflenet --size 64 --batch-size 2 --rounds 1 --device cpu --out"
    printed = benchmark(benchmarks.speed, *line.split(), str(tmp_path))
    assert "geometric mean" in printed
    found = read(tmp_path / "speed.json")["results"]["shufflenet"]
    assert {column: len(values) for column, values in found["images_per_second"].items()} == dict.fromkeys(
        ("plain", "step", "ours", "ceiling"), 1
    )
    ratios = found["ratios"]
    assert ratios["gain"] == pytest.approx(ratios["loader"] * ratios["form"] * ratios["of_ceiling"])
    assert 0 <= min(found["data_wait_share"]) <= max(found["data_wait_share"]) < 1
    assert found["failed"] == {}
    assert found["plan_seconds"] > 0
    assert found["plan_remembered"] in (True, False)
    assert found["macs"] > 0
    assert min(found["peak_memory_mib"].values()) > 0
    # a processor has no place among the cards
    assert "mfu" not in found
    assert "roofs" not in found
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    # no finding of the user's is used, and none left there
    assert sorted(user_cache.rglob("plans/*")) == before


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the measurement of a backbone: resnet has all, wavemix no plain, and at swin somebody interrupts."""
    measured: list[str] = []

    def measure(name: str, setting: Setting) -> Found:
        measured.append(name)
        if name == "swin":
            raise KeyboardInterrupt
        found = Found({column: [2.0, 4.0] for column in setting.columns})
        if name != "resnet":
            found.images_per_second["plain"] = []
            found.failed["plain"] = "RuntimeError: filters"
        return found

    monkeypatch.setattr(benchmarks.speed, "measure", measure)
    monkeypatch.setattr(benchmarks.busy, "measure", measure)
    monkeypatch.setattr("benchmarks.photographs.DISTINCT", 4)
    return measured


ON_LITTLE = "--size 32 --batch-size 2 --rounds 1 --device cpu --out"


@pytest.mark.usefixtures("made_up")
def test_a_failed_column_of_speed_is_a_dash(benchmark: Benchmark, tmp_path: Path) -> None:
    printed = benchmark(benchmarks.speed, "--models", "wavemix", "resnet", *ON_LITTLE.split(), str(tmp_path))
    assert "\nwavemix plain: RuntimeError: filters\n" in printed
    results = read(tmp_path / "speed.json")["results"]
    assert results["wavemix"]["failed"] == {"plain": "RuntimeError: filters"}
    assert results["wavemix"]["ratios"] == {"of_ceiling": 1.0, "form": 1.0}
    assert results["resnet"]["ratios"]["gain"] == 1.0
    with pytest.raises(RunError, match="nothing could be measured"):
        benchmark(
            benchmarks.speed, "--models", "wavemix", "--columns", "plain", *ON_LITTLE.split(), str(tmp_path / "none")
        )


@pytest.mark.parametrize(("script", "name"), [(benchmarks.speed, "speed"), (benchmarks.busy, "busy")])
def test_what_was_measured_is_kept_when_it_is_interrupted(
    script: ModuleType,
    name: str,
    benchmark: Benchmark,
    made_up: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quiet = ["--quiet"] if name == "busy" else []
    with pytest.raises(KeyboardInterrupt):
        benchmark(script, "--models", "resnet", "swin", "regnet", *quiet, *ON_LITTLE.split(), str(tmp_path))
    assert made_up == ["resnet", "swin"]
    found = read(tmp_path / f"{name}.json")
    assert found["results"].keys() == {"resnet"}
    assert found["rounds"] == 1
    assert "geometric mean" in capsys.readouterr().out


@pytest.mark.slow
def test_busy(benchmark: Benchmark, tmp_path: Path) -> None:
    printed = benchmark(benchmarks.busy, "--models", "shufflenet", *ON_LITTLE.split(), str(tmp_path))
    assert "neighbours: 2" in printed
    assert "the plan's finding: shufflenet" in printed
    found = read(tmp_path / "busy.json")
    result = found["results"]["shufflenet"]
    assert found["neighbours"] == 2
    assert result["images_per_second"].keys() == {"plain", "ours"}
    assert found["geometric_mean"] == pytest.approx(result["ratios"]["gain"])
    assert result["plan_remembered"] == ("not remembered" not in printed)


def test_on_a_card_its_roofs_are_beside_the_figures(tmp_path: Path) -> None:
    part = Part(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64), ["0"])
    plan = Plan("cuda", "NVIDIA H100 80GB HBM3", "bf16", "a test")
    setting = Setting(tmp_path, part, plan, 2, (256, 256), steps=1, rounds=1)
    found = Found({"plain": [100.0], "ours": [8000.0], "ceiling": []}, {"ceiling": "RuntimeError: x"})
    assert "roofs" not in describe("resnet", found, setting)
    found.ours = {"plan": {"precision": "bf16"}, "macs": 5_338_507_264}
    told = describe("resnet", found, setting)
    assert told["mfu"] == {"ours": pytest.approx(6 * 5.3385e9 * 8000 / 989e12, rel=1e-3)}
    # 29.6 million numbers of two bytes, five times, at 3.35 TB/s
    assert told["roofs"] == pytest.approx({"compute": 30_880, "memory": 11_310}, rel=0.01)
    unknown = replace(setting, plan=replace(plan, device_name="NVIDIA L40"))
    assert "mfu" not in describe("resnet", found, unknown)


def test_speed_is_of_the_published_backbones() -> None:
    assert len(benchmarks.speed.PUBLISHED) == 11
    assert "inception" not in benchmarks.speed.PUBLISHED
    assert set(benchmarks.speed.QUICK) < set(benchmarks.speed.PUBLISHED)


def test_augment(benchmark: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "augment.json"
    printed = benchmark(benchmarks.augment, "--sizes", "8", "--batch", "4", "--rounds", "1", "--out", str(out))
    assert "8x8 same draws" in printed
    assert {each["case"] for each in read(out)["times"]} == {"whole", "same draws"}


def test_cache(benchmark: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "cache.json"
    printed = benchmark(benchmarks.cache, "--images", "40", "--size", "32", "--rounds", "1", "--out", str(out))
    assert "cache made" in printed
    assert all(min(read(out)[name]) > 0 for name in ("build", "load", "gather", "decode", "copy", "check"))


Recorded = list[Config]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Stands for the runs of the digits that a benchmark starts: of each, what its command line asks for."""
    asked: Recorded = []

    def made_up(command: Sequence[str], out: Path) -> dict[str, Any]:
        words = list(command)
        script = words.index("digits.py")
        assert not words[:script]
        config = parse(digits.DATASET, BACKBONES, [*words[script + 1 :], "--out", str(out)])[1]
        asked.append(config)
        epochs = (config.epochs or 0) * (2 if config.recipe == "adamw-sgd" else 1)
        return {
            "test": {"top1": 0.5 + 0.01 * config.seed + 0.001 * len(asked)},
            "costs": {"images": 30 * epochs, "epochs": epochs},
            "plan": {"precision": config.precision, "layout": "NCHW"},
        }

    monkeypatch.setattr(benchmarks.accuracy, "record_of", made_up)
    return asked


def test_accuracy(benchmark: Benchmark, recorded: Recorded, tmp_path: Path) -> None:
    line = "--models shufflenet --seeds 2 --epochs 1 --size 32 --out"
    printed = benchmark(benchmarks.accuracy, *line.split(), str(tmp_path))
    assert "fast - fp32" in printed
    (found,) = read(tmp_path / "accuracy.json")["results"]
    assert list(found["top1"].values()) == [pytest.approx([0.501, 0.513]), pytest.approx([0.502, 0.514])]
    assert found["difference"] == pytest.approx(0.001)
    assert [(config.seed, config.plan, config.no_cache) for config in recorded] == [
        (0, "off", True),
        (0, "measure", False),
        (1, "off", True),
        (1, "measure", False),
    ]
    for config in recorded:
        assert (config.model, config.weights, config.epochs, config.size) == ("shufflenet", "none", 1, (32, 32))


@pytest.mark.slow
def test_rank_cost(benchmark: Benchmark, tmp_path: Path) -> None:
    line = "--images 20 --size 32 --models shufflenet mobilenet --epochs 2 --batch-size 4 --out"
    printed = benchmark(benchmarks.rank_cost, *line.split(), str(tmp_path))
    assert "2 epochs of all" in printed
    found = read(tmp_path / "rank_cost.json")
    assert found["images"] == 20
    assert found["again"] > 0
    assert [row[0] for row in found["rows"][1:]] == ["shufflenet", "mobilenet"]


@pytest.mark.slow
def test_what_an_order_and_a_search_are_worth(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    """Of three networks on 24 photographs of birds: trained in full, ordered and searched among."""
    monkeypatch.setenv("REAL", str(shared_data.parent))
    monkeypatch.setattr(benchmarks.rank, "NETWORKS", ("tf2", "bird", "insect"))
    monkeypatch.setattr(benchmarks.rank, "EPOCHS", 2)
    monkeypatch.setattr(benchmarks.rank, "FLAGS", ("--epochs", "2", *benchmarks.rank.FLAGS[2:]))
    for name, value in (("SETS", ("cub4",)), ("SEARCHED", ("cub4",)), ("SEEDS", [0]), ("SEEDS_OF_SEARCH", [0])):
        monkeypatch.setattr(benchmarks.rank, name, value)
    out = ["--out", str(tmp_path)]
    benchmark(benchmarks.rank, "truth", *out)
    assert "weighted tau" in benchmark(benchmarks.rank, "scores", *out)
    assert read(tmp_path / "scores.json")["results"]["cub4"]["order"][0] == "bird"
    assert "within 1 point of the best" in benchmark(benchmarks.rank, "search", *out)
    (found,) = read(tmp_path / "search.json")["results"]["searches"]
    assert 0 < found["share"] <= 1


@pytest.mark.slow
def test_accuracy_for_real(benchmark: Benchmark, tmp_path: Path) -> None:
    line = "--models shufflenet --seeds 2 --epochs 1 --size 32 --out"
    benchmark(benchmarks.accuracy, "--data", "digits.py --device cpu", *line.split(), str(tmp_path))
    (found,) = read(tmp_path / "accuracy.json")["results"]
    assert [len(scores) for scores in found["top1"].values()] == [2, 2]


LEAVES_A_RECORD = """
import shutil, sys
from pathlib import Path

kept, out = sys.argv[1], Path(sys.argv[sys.argv.index("--out") + 1])
if kept == "none":
    sys.exit("no data here")
(out / "digits" / "shufflenet" / "x").mkdir(parents=True)
shutil.copy(kept, out / "digits" / "shufflenet" / "x" / "record.json")
"""


@pytest.mark.parametrize("kept", [SCHEMA_1, SCHEMA_2], ids=["schema 1", "schema 2"])
def test_the_record_that_a_command_leaves(tmp_path: Path, kept: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LEAVES_A_RECORD)
    found = record_of([str(script), str(kept)], tmp_path / "runs")
    assert found["costs"]["epochs"] == 4
    assert found["test"]["top1"] == pytest.approx(0.98055, abs=1e-4)


def test_a_command_that_fails_ends_the_benchmark_with_its_message(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LEAVES_A_RECORD)
    with pytest.raises(SystemExit, match=r"script\.py none failed:\nno data here"):
        record_of([str(script), "none"], tmp_path / "runs")


def test_the_interval_of_paired_differences() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, and Student's t of two degrees of freedom is 4.303."""
    found = compare([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    half = 4.30265 / 3**0.5
    assert found == pytest.approx({"difference": 2.0, "low": 2 - half, "high": 2 + half}, rel=1e-5)


def test_photographs_are_as_large_as_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    assert DISTINCT >= 100
    monkeypatch.setattr("benchmarks.photographs.DISTINCT", 12)
    make_photographs(tmp_path, 16)
    paths = sorted(tmp_path.rglob("*.jpg"))
    assert len(paths) == 16
    assert len({path.stat().st_ino for path in paths}) == 12
    assert all(30_000 < path.stat().st_size < 100_000 for path in paths)
    with Image.open(paths[0]) as image:
        assert image.size == (500, 375)
    listed = raw_splits(tmp_path, 10)
    assert len(listed.train) + len(listed.test) == 10
    assert listed.classes == ("0", "1")
