"""An asynchronous keyed record that is given up for its output's size: what it did to its key's state goes too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.runtime.acting import committed, counting, counting_later, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at

K = b"k"


def settle(bench: Bench, *actors: Any) -> None:
    turn(bench, *actors, seconds=0.15, times=20)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_change_goes_with_its_record_where_nothing_was_built_upon_it(guarantee: Any) -> None:
    bench = keyed_bench(counting_later, guarantee=guarantee)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    settle(bench, actor)
    bench.feed("b", keys=[K])
    for _ in range(2):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    settle(bench, actor)
    assert bench.dead_offsets() == [1]
    bench.feed("c", keys=[K])
    settle(bench, actor)
    assert bench.out() == [["a", 1], ["c", 2]]
    assert committed(bench) == {at(): 3}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_change_that_a_later_record_built_upon_stays(guarantee: Any) -> None:
    bench = keyed_bench(counting_later, guarantee=guarantee)
    actor = bench.actor()
    bench.feed("a", "b", keys=[K, K])
    for _ in range(3):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    settle(bench, actor)
    assert bench.dead_offsets() == [0]
    assert bench.out() == [["b", 2]]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_an_output_over_the_clients_limit_changes_nothing_for_those_behind_it(guarantee: Any) -> None:
    async def grow(value: Any, ctx: Any) -> AsyncIterator[Any]:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        yield ["x" * 2000 if value == "large" else value, ctx.state["n"]]

    bench = keyed_bench(grow, guarantee=guarantee, message_max_bytes=1500)
    actor = bench.actor()
    bench.feed("a", "large", "b", keys=[K, K, K])
    settle(bench, actor)
    assert bench.dead_offsets() == [1]
    assert bench.out() == [["a", 1], ["b", 2]]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_timer_that_a_given_up_record_cancelled_fires(guarantee: Any) -> None:
    async def ringing(value: Any, ctx: Any) -> AsyncIterator[Any]:
        if value == "set":
            ctx.timer.set("ring", after=4)
        else:
            ctx.timer.cancel("ring")
        yield value

    async def ring(name: str, ctx: Any) -> AsyncIterator[Any]:
        yield name

    bench = keyed_bench(ringing, on_timer=ring, guarantee=guarantee)
    actor = bench.actor()
    bench.feed("set", keys=[K])
    turn(bench, actor, seconds=0.15, times=4)
    bench.feed("cancel", keys=[K])
    for _ in range(2):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    settle(bench, actor)
    settle(bench, actor)
    assert bench.out() == ["set", "ring"]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("step", [counting, counting_later])
def test_a_change_that_went_is_not_found_by_the_next_owner_either(step: Any, guarantee: Any) -> None:
    bench = keyed_bench(step, guarantee=guarantee)
    first = bench.actor()
    bench.feed("a", keys=[K])
    for _ in range(2):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    settle(bench, first)
    assert bench.dead_offsets() == [0]
    first.stop(1.0)
    first.run(lambda _: None)
    second = bench.actor()
    bench.feed("b", keys=[K])
    settle(bench, second)
    assert bench.out() == [["b", 1]]
