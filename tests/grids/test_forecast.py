"""How long many cells take together: a schedule, and an interval that holds what comes as often as it says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timezone
from math import exp

import pytest

from grids.forecast import OWN, Estimate, between, forecast, makespan, pooled


def test_places_take_the_longest_that_is_left() -> None:
    assert makespan([5, 4, 3, 3, 3], 2) == 10  # 5 + 3, 4 + 3 + 3
    assert makespan([5, 4, 3, 3, 3], 1) == 18
    assert makespan([5, 4], 8) == 5
    assert makespan([], 3) == 0
    # one long cell is not divided among cards, as a sum over their number would have it
    assert makespan([100, 1, 1, 1], 4) == 100


def test_no_place_is_idle_while_a_cell_waits() -> None:
    draws = random.Random(0)
    for _ in range(50):
        places = draws.randint(1, 8)
        seconds = [draws.lognormvariate(4, 1) for _ in range(draws.randint(1, 60))]
        least = max(sum(seconds) / places, *seconds)
        assert 0.999 * least <= makespan(seconds, places) <= 1.001 * (2 - 1 / places) * least  # Graham's bound


def drawn(estimates: Sequence[Estimate], draws: random.Random) -> list[float]:
    """The seconds that came of it in one night, if the estimates' errors are as they say."""
    shared = {source: draws.gauss(0, 1) for each in estimates for source, _ in each.errors if source != OWN}

    def error(estimate: Estimate) -> float:
        return sum(spread * (shared[source] if source else draws.gauss(0, 1)) for source, spread in estimate.errors)

    return [each.seconds * exp(error(each)) for each in estimates]


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_interval_holds_eight_of_ten_nights(at_once: int) -> None:
    draws = random.Random(1)
    estimates = [
        Estimate(
            draws.lognormvariate(5, 1),
            "backbones",
            (("this machine", 0.15), (f"backbone {number % 11}", 0.35), (OWN, 0.2)),
        )
        for number in range(110)
    ]
    found = forecast(estimates, at_once)
    nights = [makespan(drawn(estimates, draws), at_once) for _ in range(1000)]
    held = sum(found.low <= night <= found.high for night in nights) / len(nights)
    assert 0.7 < held < 0.9
    assert found.low < found.seconds < found.high


def test_what_cells_share_does_not_average_out() -> None:
    alone = [Estimate(100.0 + number, "speeds", ((OWN, 0.3),)) for number in range(100)]
    together = [Estimate(100.0 + number, "speeds", (("this machine", 0.3),)) for number in range(100)]
    narrow, wide = forecast(alone, 1), forecast(together, 1)
    assert wide.high / wide.seconds == pytest.approx(exp(1.2816 * 0.3))
    assert narrow.high / narrow.seconds == pytest.approx(exp(1.2816 * 0.03), rel=0.01)
    # the same estimate of several cells is wrong by a factor of its own for each
    same = forecast([Estimate(100.0, "speeds", ((OWN, 0.3),))] * 100, 1)
    assert same.high / same.seconds == pytest.approx(exp(1.2816 * 0.03))


def test_spreads_are_pooled_towards_the_usual_one() -> None:
    assert pooled([], 0.2) == pytest.approx(0.2)
    assert pooled([[5.0], [7.0]], 0.2) == pytest.approx(0.2)
    draws = random.Random(2)
    groups = [[exp(draws.gauss(level, 0.5)) for _ in range(5)] for level in range(200)]
    assert pooled(groups, 0.2) == pytest.approx(0.5, rel=0.1)  # whatever the groups' means


def test_words() -> None:
    assert between(18360, 29880) == "5.1 to 8.3 h"
    assert between(85 * 60, 7200) == "85 min to 2.0 h"
    now = datetime(2026, 12, 1, 7, 30, tzinfo=timezone.utc)  # a Tuesday
    exact = forecast([Estimate(7 * 3600.0, "seeds")], 1)
    assert (exact.range, exact.text, exact.finish(now)) == ("", "7.0 h", "done about Tue 14:30")
    guessed = forecast([Estimate(7 * 3600.0, "now", (("a", 0.5),), (22, 66)), None], 1)
    assert guessed.text == "7.0 h (3.7 to 13.3 h), 1 unknown"
    assert guessed.finish(now) == "done about Tue 14:30 (Tue 11:11 to Tue 20:47)"
    assert guessed.guessed == (1, 22, 66)
    assert guessed.rests_on == ["1 from speeds measured just now", "1 never measured and not counted"]
    later = forecast([Estimate(40 * 86400.0, "seeds", (("a", 1.8),))], 1)
    assert later.finish(now) == "done about Sun 10 Jan (Sat 07:05 to Jan 2028)"
    assert (forecast([], 1).text, forecast([None], 1).text) == ("", "not measured yet")
