"""Who is trained on for how long: by hand, and for whatever could come."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from ranking import halving
from ranking.budget import Budget, default_budget, parse_budget
from ranking.halving import (
    Left,
    Next,
    Plan,
    Rung,
    Score,
    are_told_apart,
    is_settled,
    make_plan,
    more_for,
    next_rung,
    ranked,
    rungs_of,
    ties,
)

ELEVEN = tuple("abcdefghijk")


def score(name: str, right: int, images: int = 100, loss: float = 1.0) -> Score:
    return Score(name, right / images, loss, images)


@pytest.mark.parametrize(
    ("text", "images", "seconds"),
    [
        ("30m", None, 1800.0),
        ("2h", None, 7200.0),
        ("45s", None, 45.0),
        ("1.5h", None, 5400.0),
        (" 30m ", None, 1800.0),
        ("images:100000", 100_000, None),
        ("images:1", 1, None),
    ],
)
def test_a_budget(text: str, images: int | None, seconds: float | None) -> None:
    budget = parse_budget(text)
    assert budget == Budget(images, seconds)
    assert parse_budget(budget.flag) == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("90", "'90' is a number without its unit: 90m are minutes, 90h hours, images:90 training images"),
        ("1.5", "is a number without its unit"),
        ("0m", "is no time at all"),
        ("0.0000001h", "is no budget"),
        ("images:0", "is nothing to train with"),
        ("images:-3", "is no budget"),
        ("images:1e5", "is no budget"),
        ("images:", "is no budget"),
        ("-5m", "is no budget"),
        ("", "is no budget"),
        ("nanm", "is no budget"),
        ("infh", "is no budget"),
        ("30 minutes", "is no budget"),
        ("30d", "is no budget"),
        ("999999999h", "is longer than a year"),
        ("images:" + "9" * 5000, "is no budget"),
        ("\u0663m", "is no budget"),
        ("30M", "Expected a time such as 45s, 30m or 2h, or training images processed such as images:100000"),
    ],
)
def test_no_budget(text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as problem:
        parse_budget(text)
    assert said in str(problem.value)


def test_rungs_halve_the_candidates_and_double_the_epochs() -> None:
    assert rungs_of(11, 1, 20) == (Rung(11, 1), Rung(6, 2), Rung(3, 4), Rung(2, 8))
    assert rungs_of(8, 2, 20) == (Rung(8, 2), Rung(4, 4), Rung(2, 8))
    assert rungs_of(2, 3, 20) == (Rung(2, 3),)
    assert rungs_of(3, 3, 20) == (Rung(3, 3), Rung(2, 6))


def test_a_rung_of_the_full_recipe_is_the_last() -> None:
    assert rungs_of(11, 8, 20) == (Rung(11, 8), Rung(6, 16), Rung(3, 20))
    assert rungs_of(11, 20, 20) == (Rung(11, 20),)
    assert rungs_of(5, 50, 20) == (Rung(5, 20),)


def test_by_default_a_quarter_of_the_grid() -> None:
    budget = default_budget(11, 1000, 20)
    assert budget == Budget(images=55_000)
    plan = make_plan(ELEVEN, 1000, 20, budget)
    assert plan.rungs == (Rung(7, 5), Rung(2, 10))
    assert plan.cost() == 55_000
    assert (plan.left_out, plan.budget) == (tuple("hijk"), 55_000)


def test_the_first_rung_is_as_long_as_the_budget_allows() -> None:
    """Of four, e epochs and then twice as many of two cost 8 e."""
    for budget, first in ((40, 5), (47, 5), (48, 6), (79, 9)):
        assert make_plan("abcd", 1, 20, Budget(images=budget)).rungs[0] == Rung(4, first)
    assert make_plan("abcd", 1, 20, Budget(images=80)).rungs == (Rung(4, 20),)
    assert make_plan("abcd", 1, 20, Budget(images=10**9)).rungs == (Rung(4, 20),)


def test_where_a_quarter_of_the_epochs_of_each_is_too_much_the_last_are_left_out() -> None:
    plan = make_plan(ELEVEN, 10, 20, Budget(images=450))  # of five, 5 x 5 and 2 x 10 epochs; of six it would be 50
    assert (plan.order, plan.left_out) == (tuple("abcde"), tuple("fghijk"))
    assert make_plan(ELEVEN, 10, 20, Budget(images=20)).order == ("a", "b")


def test_what_a_training_takes_beside_its_epochs_counts() -> None:
    """As the pass in which a recipe solves for the head."""
    assert default_budget(11, 1000, 10, beside=1) == Budget(images=11 * 11 * 1000 // 4)
    assert default_budget(2, 1000, 1, beside=1) == Budget(images=4000)
    plan = make_plan("abcd", 10, 8, Budget(images=300), beside=1)
    assert plan.rungs == (Rung(4, 3), Rung(2, 6))
    assert plan.cost() == 4 * (3 + 1) * 10 + 2 * (6 + 1) * 10 == 300
    assert make_plan("abcd", 10, 8, Budget(images=299), beside=1).rungs == (Rung(4, 2), Rung(2, 4))
    assert "all in full would be 360" in halving.plan_lines(plan, Budget(images=300))[0]


@pytest.mark.parametrize(("images", "budget", "needed"), [(10, 19, 20), (24, 1, 48), (100_000, 199_999, 200_000)])
def test_a_budget_that_is_too_small_for_one_rung(images: int, budget: int, needed: int) -> None:
    with pytest.raises(UserError) as problem:
        make_plan(ELEVEN, images, 20, Budget(images=budget))
    assert f"--budget images:{budget} is too small for one rung" in str(problem.value)
    assert f"Give images:{needed} or more" in str(problem.value)
    assert make_plan(ELEVEN, images, 20, Budget(images=needed)).rungs == (Rung(2, 1),)


def test_one_candidate_is_no_search() -> None:
    with pytest.raises(UserError, match="two backbones at least, and there are 1"):
        make_plan(["a"], 10, 20, Budget(images=1000))


def seconds(names: Sequence[str], epochs: int) -> float:
    """Ten around each, and an epoch of `a` takes 1, of `b` 2, ..."""
    return sum(10 + epochs * (1 + ELEVEN.index(name)) for name in names)


def test_a_budget_of_seconds() -> None:
    plan = make_plan("abcd", 100, 20, Budget(seconds=160), seconds)
    assert plan.rungs == (Rung(4, 6), Rung(2, 12))  # 100 + 56
    # a unit of the rest buys what one of the last rung does: 2400 images in 56 s
    assert plan.budget == plan.cost() + int(4 / 56 * 2400)
    assert make_plan("abcd", 100, 20, Budget(seconds=140), seconds).rungs == (Rung(4, 5), Rung(2, 10))
    assert make_plan("abcd", 100, 20, Budget(seconds=139), seconds).left_out == ("d",)


def test_seconds_that_are_too_few() -> None:
    with pytest.raises(UserError, match=r"--budget 20s is too small for one rung.* about 23 s\. Give 23s or more"):
        make_plan("abcd", 100, 20, Budget(seconds=20), seconds)
    assert make_plan("abcd", 100, 20, Budget(seconds=23), seconds).rungs == (Rung(2, 1),)


def test_the_order_of_scores() -> None:
    scores = [score("a", 80, loss=0.5), score("b", 90, loss=0.9), score("c", 80, loss=0.4), score("d", 80, loss=0.5)]
    assert [each.name for each in ranked(scores, "dcba")] == ["b", "c", "d", "a"]
    assert [each.name for each in ranked(scores, "abcd")] == ["b", "c", "a", "d"]


def test_within_a_standard_error_of_the_highest_the_order_decides() -> None:
    """That of 90 of 100 is 3 points: Wilson's interval of one deviation begins at 86.6 %."""
    scores = [score("a", 87), score("b", 90), score("c", 86), score("d", 88)]
    assert [each.name for each in ranked(scores, "dabc")] == ["d", "a", "b", "c"]
    assert [each.name for each in ranked(scores, "cbad")] == ["b", "a", "d", "c"]


def test_ties_lie_within_the_interval_of_the_last_that_is_kept() -> None:
    """Wilson's of 80 of 100 is 71.1 to 86.7 %."""
    scores = [score("a", 90), score("b", 80), score("c", 79), score("d", 72), score("e", 71)]
    assert ties(scores, 2) == 2
    for right, tied in ((775, 1), (773, 0)):  # of 800 of 1000 it is 77.4 to 82.4 %
        assert ties([score("a", 800, 1000), score("b", right, 1000)], 1) == tied
    assert ties(scores, 5) == 0


def test_it_is_settled_where_the_first_leads_again_beyond_all_intervals() -> None:
    clear = [score("a", 95), score("b", 70), score("c", 60)]
    assert is_settled(clear, "a")
    assert not is_settled(clear, "b")
    assert not is_settled(clear, None)
    assert not is_settled([score("a", 95), score("b", 90)], "a")
    assert not is_settled([score("a", 95)], "a")


def test_told_apart_by_fishers_test() -> None:
    """The p-value of 90 and 80 of 100 is 0.073, of 90 and 75 it is 0.008."""
    assert halving.chance(score("a", 90), score("b", 80)) == pytest.approx(0.0734, abs=5e-4)
    assert not are_told_apart(score("a", 90), score("b", 80))
    assert are_told_apart(score("a", 90), score("b", 75))


PLAN = Plan(tuple("abcdefgh"), (), rungs_of(8, 1, 20), 10, 20, 300)  # 240 of 300, and 60 are left


def scores_of(*rights: int, images: int = 1000) -> list[Score]:
    return [score(name, right, images) for name, right in zip(ELEVEN, rights, strict=False)]


def test_the_better_half_stays() -> None:
    found = next_rung(PLAN, 0, 1, scores_of(900, 890, 880, 870, 500, 400, 300, 200), Left(220))
    assert found == Next(1, tuple("abcd"), 2)


def test_ties_stay_as_far_as_is_paid_for_beside_the_later_rungs() -> None:
    """Of 220 the last rung takes 80; seven for two epochs take 140."""
    even = scores_of(900, 899, 898, 897, 896, 895, 894, 893)
    assert next_rung(PLAN, 0, 1, even, Left(220)) == Next(1, tuple("abcdefg"), 2, 3)
    assert next_rung(PLAN, 0, 1, even, Left(160)) == Next(1, tuple("abcd"), 2)


def test_the_last_rung_takes_what_is_left() -> None:
    found = next_rung(PLAN, 1, 2, scores_of(900, 800, 700, 600), Left(140))
    assert found == Next(2, ("a", "b"), 7)
    assert next_rung(PLAN, 1, 2, scores_of(900, 800, 700, 600), Left(10**6)) == Next(2, ("a", "b"), 20)


def test_after_the_last_rung_there_is_none() -> None:
    assert next_rung(PLAN, 2, 7, scores_of(900, 800), Left(10**6)) is None


def test_failures_that_have_halved_them_already() -> None:
    found = next_rung(PLAN, 0, 1, scores_of(900, 500), Left(220))
    assert found == Next(2, ("a", "b"), 11)
    assert next_rung(PLAN, 0, 1, scores_of(900), Left(220)) is None
    assert next_rung(PLAN, 0, 1, scores_of(900, 600, 300), Left(220)) == Next(2, ("a", "b"), 11)


def test_what_does_not_fit_any_more_is_made_smaller_or_not_begun() -> None:
    """By seconds, where trainings took longer than was thought: 10 around each, and an epoch of `a` takes 1, ..."""
    scores = scores_of(900, 800, 700, 600, 500, 400, 300, 200)
    whole = seconds("abcd", 2) + seconds("ab", 4)
    assert next_rung(PLAN, 0, 1, scores, Left(220, whole, seconds)) == Next(1, tuple("abcd"), 2)
    less = Left(220, seconds("abcd", 2), seconds)
    assert next_rung(PLAN, 0, 1, scores, less) == Next(1, tuple("abcd"), 2, smaller=True)
    less = Left(220, seconds("abc", 2) + 1, seconds)
    assert next_rung(PLAN, 0, 1, scores, less) == Next(1, tuple("abc"), 2, smaller=True)
    assert next_rung(PLAN, 0, 1, scores, Left(220, 25, seconds)) is None  # 26 for two of them
    # four epochs of the last two take 32, three 29, and two were trained already
    assert next_rung(PLAN, 1, 2, scores[:4], Left(140, 30, seconds)) == Next(2, ("a", "b"), 3, smaller=True)
    assert next_rung(PLAN, 1, 2, scores[:4], Left(140, 28, seconds)) is None


def test_a_larger_budget_adds_a_longer_rung_or_nothing() -> None:
    scores = scores_of(900, 890)
    assert more_for(PLAN, 7, scores, 300, 300) is None
    assert more_for(PLAN, 7, scores, 320, 300) is None  # one epoch of two, from the start
    longer = more_for(PLAN, 7, scores, 580, 300)
    assert longer is not None
    assert longer.rungs == (*PLAN.rungs, Rung(2, 14))
    assert next_rung(longer, 2, 7, scores, Left(280)) == Next(3, ("a", "b"), 14)
    assert next_rung(longer, 2, 7, scores, Left(299)) == Next(3, ("a", "b"), 14)
    assert more_for(PLAN, 20, scores, 10**6, 300) is None
    assert more_for(PLAN, 7, scores[:1], 10**6, 300) is None


def simulated(plan: Plan, draw: random.Random, fail: float = 0.0) -> tuple[list[tuple[int, int]], list[list[str]], int]:
    """A whole search with random scores: its rungs (candidates, epochs), their names, and the images it took."""
    names, place, epochs, spent, leader = list(plan.order), 0, plan.rungs[0].epochs, 0, None
    rungs, seen = [], []
    while True:
        rungs.append((len(names), epochs))
        seen.append(names)
        spent += Rung(len(names), epochs).cost(plan.images)
        scores = [score(name, draw.randrange(50, 100)) for name in names if draw.random() >= fail]
        best = ranked(scores, plan.order)
        if is_settled(best, leader):
            break
        leader = best[0].name if best else None
        found = next_rung(plan, place, epochs, best, Left(plan.budget - spent))
        if found is None:
            break
        place, names, epochs = found.place, list(found.names), found.epochs
    return rungs, seen, spent


SITUATIONS = st.tuples(st.integers(2, 30), st.integers(1, 5000), st.integers(1, 60), st.integers(0, 3_000_000))


@given(SITUATIONS, st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5]))
def test_whatever_comes_the_budget_is_kept(situation: tuple[int, int, int, int], seed: int, fail: float) -> None:
    number, images, full, budget = situation
    order = [f"backbone{place}" for place in range(number)]
    if budget < 2 * images:
        with pytest.raises(UserError, match="too small"):
            make_plan(order, images, full, Budget(images=budget))
        return
    plan = make_plan(order, images, full, Budget(images=budget))
    assert [*plan.order, *plan.left_out] == order
    rungs, seen, spent = simulated(plan, random.Random(seed), fail)
    assert spent <= budget
    assert all(candidates >= 2 and 1 <= epochs <= full for candidates, epochs in rungs)
    assert all(set(later) <= set(earlier) for earlier, later in pairwise(seen))
    assert all(later > earlier for (_, earlier), (_, later) in pairwise(rungs))
    assert simulated(make_plan(order, images, full, Budget(images=budget)), random.Random(seed), fail)[0] == rungs


@given(SITUATIONS)
def test_the_longest_first_rung_that_is_paid_for(situation: tuple[int, int, int, int]) -> None:
    number, images, full, budget = situation
    budget = max(budget, 2 * images)
    plan = make_plan([str(place) for place in range(number)], images, full, Budget(images=budget))
    first, candidates = plan.rungs[0].epochs, len(plan.order)
    assert candidates == 2 or 4 * first >= full
    for longer in range(first + 1, full + 1):
        assert sum(rung.cost(images) for rung in rungs_of(candidates, longer, full)) > budget
    if plan.left_out:  # one more, and a second rung
        shortest = -(-full // 4)
        second = Rung(2, min(full, 2 * shortest)).cost(images) if shortest < full else 0
        assert Rung(candidates + 1, shortest).cost(images) + second > budget


@given(st.integers(0, 10**6))
def test_names_do_not_matter(seed: int) -> None:
    """Neither in which order they sort, nor in which the scores arrive."""
    names = [f"z{9 - place}" for place in range(8)]
    draw = random.Random(seed)
    rights = [draw.randrange(50, 100) for _ in names]
    plans = [Plan(tuple(each), (), PLAN.rungs, 10, 20, 300) for each in (names, "abcdefgh")]
    found = []
    for plan in plans:
        scores = [score(name, right) for name, right in zip(plan.order, rights, strict=True)]
        draw.shuffle(scores)
        step = next_rung(plan, 0, 1, ranked(scores, plan.order), Left(220))
        assert step is not None
        found.append([plan.order.index(name) for name in step.names])
    assert found[0] == found[1]


@given(st.integers(2, 11), st.floats(20, 5000), st.integers(0, 10**6))
def test_seconds_are_kept_where_estimates_are_right(number: int, limit: float, seed: int) -> None:
    order = ELEVEN[:number]
    try:
        plan = make_plan(order, 100, 20, Budget(seconds=limit), seconds)
    except UserError:
        assert seconds(order[:2], 1) > limit
        return
    draw, spent, images = random.Random(seed), seconds(plan.order, plan.rungs[0].epochs), 0
    names, epochs, place = plan.order, plan.rungs[0].epochs, 0
    while True:
        images += len(names) * epochs * 100
        best = ranked([score(name, draw.randrange(50, 100)) for name in names], plan.order)
        found = next_rung(plan, place, epochs, best, Left(plan.budget - images, limit - spent, seconds))
        if found is None:
            break
        names, epochs, place = found.names, found.epochs, found.place
        spent += seconds(names, epochs)
    assert spent <= limit


def test_on_a_simulated_truth_it_is_better_than_the_order_alone() -> None:
    """Final accuracies that differ by 3 points, curves of other steepness each, 500 validation images, an order that
    is off by 3 points; a quarter of the images. By the order alone, 64 % are within a point of the best, so 77 %."""
    lost, by_order = [], []
    for seed in range(200):
        random_numbers = np.random.default_rng(seed)
        final = np.clip(random_numbers.normal(0.85, 0.03, 7), 0, 0.98)
        gap = random_numbers.uniform(0.05, 0.15, 7)

        def truth(place: int, epochs: int, final: object = final, gap: object = gap) -> float:
            return float(final[place] - gap[place] * math.exp(-epochs / 4))  # type: ignore[index]

        order = [str(place) for place in np.argsort(-(final + random_numbers.normal(0, 0.03, 7)))]
        plan = make_plan(order, 1000, 20, default_budget(7, 1000, 20))
        names, place, epochs, spent, leader = plan.order, 0, plan.rungs[0].epochs, 0, ""
        while True:
            spent += len(names) * epochs * 1000
            drawn = [score(name, int(random_numbers.binomial(500, truth(int(name), epochs))), 500) for name in names]
            best = ranked(drawn, plan.order)
            found = None if is_settled(best, leader) else next_rung(plan, place, epochs, best, Left(35_000 - spent))
            if found is None:
                break
            leader, names, place, epochs = best[0].name, found.names, found.place, found.epochs
        assert spent <= 35_000
        highest = max(truth(each, 20) for each in range(7))
        lost.append(highest - truth(int(best[0].name), 20))
        by_order.append(highest - truth(int(order[0]), 20))
    within, order_within = (float(np.mean(np.array(each) <= 0.01)) for each in (lost, by_order))
    assert within > order_within + 0.1


@pytest.mark.parametrize(
    ("candidates", "epochs", "rungs", "left_out"),
    [
        (11, 55, [(7, 5), (2, 10)], 4),
        (7, 35, [(3, 5), (2, 10)], 4),
        (7, 75, [(7, 5), (4, 10)], 0),  # all of them, though the ladder to two would cost 115
        (11, 40, [(4, 5), (2, 10)], 7),
        (5, 25, [(2, 12)], 3),
        (2, 2, [(2, 1)], 0),
        (3, 6, [(2, 3)], 1),
    ],
)
def test_as_many_begin_as_the_budget_pays_for(
    candidates: int, epochs: int, rungs: list[tuple[int, int]], left_out: int
) -> None:
    names = [f"n{number}" for number in range(candidates)]
    plan = make_plan(names, 10, 20, Budget(images=10 * epochs))
    assert [(rung.candidates, rung.epochs) for rung in plan.rungs] == rungs
    assert len(plan.left_out) == left_out


@pytest.mark.parametrize(("epochs", "said"), [(1, "2 for 1 epoch: "), (3, "2 for 3 epochs: ")])
def test_the_plan_for_people_counts_epochs(epochs: int, said: str) -> None:
    budget = Budget(images=2 * epochs * 100)
    assert said in halving.plan_lines(halving.make_plan(("a", "b"), 100, 8, budget), budget)[0]
