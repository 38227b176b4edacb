"""What a comparison found, as text."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.tables import geometric_mean, notes, plot, ratios, speed_table

COLUMNS = ["plain", "step", "ours", "ceiling"]


def result(plain: list[float], ours: list[float], **more: Any) -> dict[str, Any]:
    rates = {"plain": plain, "step": plain, "ours": ours, "ceiling": ours}
    made = {"images_per_second": rates, "failed": {}, "late": None, "peak_memory_mib": {}, **more}
    return made | {"ratios": ratios(made)}


def test_ratios_are_of_medians_and_of_what_did_not_fail() -> None:
    whole = result([1.0, 2.0, 9.0], [8.0, 6.0, 1.0])
    assert whole["ratios"] == {"gain": 3.0, "of_ceiling": 1.0, "loader": 1.0, "form": 3.0}
    part = result([1.0], [8.0], failed={"plain": "RuntimeError: x"})
    assert part["ratios"] == {"of_ceiling": 1.0, "form": 8.0}


def test_a_failed_column_is_a_dash_and_its_reason_below() -> None:
    results = {
        "resnet": result([2.0], [4.0], form="fp32 NHWC", plan_seconds=3.21, data_wait_share=[0.01]),
        "wavemix": result([], [4.0], failed={"plain": "RuntimeError: filters"}, late="the limit was reached"),
        "swin": result([2.0], [32.0]),
    }
    lines = speed_table(results, COLUMNS).splitlines()
    assert lines[0].split()[-6:] == ["waits", "plan", "took", "peak", "MiB", "form"]
    assert lines[1].split()[-6:] == ["1.0%", "3.2", "s", "-", "fp32", "NHWC"]
    assert lines[2].split()[:2] == ["wavemix", "-"]
    assert lines[2].split()[-6:] == ["-", "1.000", "-", "-", "-", "-"]
    # of two and sixteen
    assert lines[4].split() == ["geometric", "mean", "5.66", "1.000"]
    assert lines[5:] == ["wavemix plain: RuntimeError: filters", "wavemix: the limit was reached"]
    assert notes(results) == lines[5:]
    assert "MFU" not in lines[0]


def test_a_card_that_is_known_has_its_roofs() -> None:
    roofed = result([2.0], [50.0], mfu={"ours": 0.125}, roofs={"compute": 400.0, "memory": 200.0})
    failed = result([2.0], [], failed={"ours": "RuntimeError: x"}, mfu={}, roofs={"compute": 300.0, "memory": 700.0})
    text = speed_table({"resnet": roofed, "wavemix": failed, "swin": result([2.0], [4.0])}, COLUMNS)
    assert "MFU" in text.splitlines()[0]
    assert "12.5%" in text
    assert "memory 200/s (25.0%)" in text
    assert "compute 300/s  " in text


def test_nothing_at_all_is_shown_too(tmp_path: Path) -> None:
    nothing = {"resnet": result([], [], failed=dict.fromkeys(COLUMNS, "RuntimeError: x"))}
    assert geometric_mean(nothing, "gain") is None
    assert speed_table(nothing, COLUMNS).count("RuntimeError: x") == 4
    assert plot(nothing, COLUMNS, "nothing", tmp_path / "x.png")


def test_plains_step_alone_is_no_picture(tmp_path: Path) -> None:
    assert not plot({"resnet": result([2.0], [4.0])}, ["step"], "nothing", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("columns", [["ours"], ["plain", "ours"]])
def test_only_what_was_asked_for_is_shown(columns: list[str]) -> None:
    whole = result([2.0], [4.0])
    whole["images_per_second"] = {column: whole["images_per_second"][column] for column in columns}
    head, row, *means = speed_table({"resnet": whole}, columns).splitlines()
    assert len(means) == ("plain" in columns)
    assert ("ours/plain" in head) == ("plain" in columns)
    assert "ceiling" not in head
    assert row.startswith("resnet")
