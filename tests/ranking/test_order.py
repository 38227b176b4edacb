"""ranking/order.py: ranks and the one order, against cases worked out by hand."""

import itertools

import pytest

from ranking.order import combined, ranks


def test_ranks_share_the_mean_of_their_places_and_leave_out_what_is_unknown() -> None:
    assert ranks({"a": 0.5, "b": 0.9, "c": 0.5, "d": None, "e": 0.1}) == {"b": 1, "a": 2.5, "c": 2.5, "e": 4}
    assert ranks({"a": None}) == ranks({}) == {}


def test_the_mean_of_the_ranks_by_probe_and_top1() -> None:
    order = combined({"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 70.0, "b": 80.0, "c": 60.0}, {})
    assert order.mean_rank == {"a": 1.5, "b": 1.5, "c": 3}
    assert order.names == ["a", "b", "c"]  # a and b tie, and a has the better probe
    assert order.parts == ["probe", "top1"]
    assert "linear probe" in order.rule
    assert "ImageNet" in order.rule
    assert "records" not in order.rule


def test_records_count_where_they_are_known_of_all() -> None:
    probe, top1 = {"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 70.0, "b": 80.0, "c": 60.0}
    order = combined(probe, top1, {"a": 4.0, "b": 1.5, "c": 2.0, "other": 1.0})
    assert order.mean_rank == {"a": 2, "b": pytest.approx(4 / 3), "c": pytest.approx(8 / 3)}
    assert order.names == ["b", "a", "c"]
    assert order.parts == ["probe", "top1", "records"]
    assert (
        combined(probe, top1, {"a": 4.0, "b": 1.5}) == combined(probe, top1, {"c": None}) == combined(probe, top1, {})
    )


def test_ranks_of_few_known_top1_are_stretched_and_the_others_take_the_probes() -> None:
    probe = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5}
    order = combined(probe, {"a": 60.0, "c": 70.0, "e": 80.0, "b": None}, {})
    # by top-1 e 1, c 2 and a 3 of three, so 1, 3 and 5 of five; b and d keep 2 and 4
    assert order.mean_rank == {"a": 3, "b": 2, "c": 3, "d": 4, "e": 3}
    assert order.names == ["b", "a", "c", "e", "d"]
    assert "2 without a known ImageNet top-1 take the rank by the linear probe" in order.rule


def test_one_top1_alone_is_no_order() -> None:
    assert combined({"a": 0.5, "b": 0.6}, {"a": 80.0}, {}).parts == ["probe"]
    assert combined({"a": 0.5, "b": 0.6}, {"a": 80.0}, {}).names == ["b", "a"]


def test_without_a_probe_the_rest_decides() -> None:
    nothing = dict.fromkeys("abc")
    by_top1 = combined(nothing, {"a": 70.0, "b": 80.0}, {})
    assert (by_top1.names, by_top1.parts) == (["b", "a", "c"], ["top1"])
    assert by_top1.mean_rank == {"b": 1, "a": 3, "c": 3}
    assert "come last" in by_top1.rule
    by_both = combined(nothing, {"a": 70.0, "b": 80.0}, {"a": 2.0, "b": 3.0, "c": 1.0})
    assert by_both.mean_rank == {"a": 2.5, "b": 2, "c": 1}
    assert "take the rank by the mean rank over your own records" in by_both.rule
    by_records = combined(nothing, {}, {"a": 2.0, "b": 3.0, "c": 1.0})
    assert (by_records.names, by_records.parts) == (["c", "a", "b"], ["records"])
    by_name = combined(nothing, {}, {}, {"c": 0.4})
    assert (by_name.names, by_name.parts, by_name.mean_rank) == (["c", "a", "b"], [], dict.fromkeys("abc", 1.0))


def test_a_backbone_without_a_probe_comes_last_by_it() -> None:
    order = combined({"a": 0.5, "b": None, "c": 0.6, "d": None}, {}, {})
    assert order.mean_rank == {"c": 1, "a": 2, "b": 3.5, "d": 3.5}


def test_ties_go_to_the_better_probe_then_to_5_nn_then_by_name() -> None:
    assert combined({"b": 0.5, "a": 0.6}, {"a": 1.0, "b": 2.0}, {}).names == ["a", "b"]
    even = {"d": 0.5, "c": 0.5, "b": 0.5, "a": 0.5}
    assert combined(even, {}, {}, {"c": 0.3, "d": 0.3, "b": 0.4, "a": None}).names == ["b", "c", "d", "a"]
    # the ranks by top-1 are 1, 7/3, 11/3, 5: thirds, which add up to ties only when rounded
    probe, top1 = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}, {"a": 1.0, "b": 2.0, "d": 3.0, "e": 4.0}
    assert combined(probe, top1, {}).mean_rank["a"] == combined(probe, top1, {}).mean_rank["e"]


def test_the_order_of_the_question_does_not_matter() -> None:
    probe = {"a": 0.9, "b": 0.8, "c": 0.8, "d": None}
    top1, records = {"a": 60.0, "c": 70.0, "d": 80.0}, {"a": 2.0, "b": 3.0, "c": 1.0, "d": 3.0}
    orders = [
        combined({name: probe[name] for name in names}, {n: top1[n] for n in names if n in top1}, records)
        for names in itertools.permutations(probe)
    ]
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0].names) == sorted(probe)


def test_one_backbone_and_none() -> None:
    assert combined({"a": 0.5}, {"a": 80.0}, {"a": 1.0}).mean_rank == {"a": 1}
    assert combined({}, {}, {}).names == []
