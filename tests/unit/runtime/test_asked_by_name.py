"""Synchronous stages that ask for records by name, as the broker refused an output: each answer is one record's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.unit.runtime.acting import committed, counting, keyed_bench, sync_bench, turn
from tests.unit.runtime.bench import Bench, at

K, L = b"k", b"l"


def settle(bench: Bench, *actors: Any) -> None:
    turn(bench, *actors, seconds=0.15, times=20)


def failing_once(*values: int) -> Any:
    """A function that fails for each of these the first time."""
    left = list(values)

    def work(value: int) -> int:
        if value in left:
            left.remove(value)
            raise ConnectionError("reset")
        return value

    return work


@pytest.mark.parametrize(("too_large", "lost"), [(False, []), (True, [0])])
def test_a_refusal_of_a_parked_record_is_told_of_that_record(too_large: bool, lost: list[int]) -> None:
    bench = sync_bench(failing_once(0, 0))
    actor = bench.actor()
    retry = bench.setting.stage.retry_topic
    bench.feed(0, 1, 2, keys=[K, L, L])
    bench.clients.fail_next_delivery("t.work")  # from now on one by one
    bench.clients.fail_next_delivery(retry, too_large=too_large, retriable=not too_large)
    bench.clients.fail_next_delivery(retry, too_large=too_large, retriable=not too_large)
    settle(bench, actor)
    assert committed(bench) == {at(): 3}
    assert sorted(set(bench.out())) == [value for value in (0, 1, 2) if value not in lost]
    assert [orjson.loads(letter.value() or b"") for letter in bench.dead()] == lost


def test_a_record_that_is_dead_in_place_of_being_parked_holds_up_none_of_its_key() -> None:
    bench = sync_bench(failing_once(0, 0))
    actor = bench.actor()
    retry = bench.setting.stage.retry_topic
    bench.feed(0, keys=[K])
    for _ in range(2):
        bench.clients.fail_next_delivery(retry, too_large=True, retriable=False)
    settle(bench, actor)
    assert bench.dead_offsets() == [0]
    bench.feed(1, 2, keys=[K, K])
    settle(bench, actor)
    assert bench.out() == [1, 2]
    assert not bench.clients.messages(retry)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_letter_that_is_refused_for_now_is_sent_until_it_is_taken(times: int) -> None:
    bench = sync_bench()
    actor = bench.actor()
    bench.feed(1)
    for _ in range(2):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    for _ in range(times):
        bench.clients.fail_next_delivery("t.dlq")
    settle(bench, actor)
    bench.feed(2)
    settle(bench, actor)
    assert bench.dead_offsets() == [0]
    assert bench.out() == [2]
    assert actor.task.steps[0].counters.dead == 1
    assert committed(bench) == {at(): 2}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_letter_that_is_too_large_goes_without_its_trace(guarantee: Any) -> None:
    bench = keyed_bench(counting, guarantee=guarantee)
    actor = bench.actor()
    bench.feed(1, keys=[K])
    for _ in range(2):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    bench.clients.fail_next_delivery("t.dlq", too_large=True, retriable=False)
    settle(bench, actor)
    assert bench.dead_offsets() == [0]
    assert dict(bench.dead()[0].headers() or ())["__connect.errors.exception.stacktrace"] == b"(cut)"
    assert bench.out() == []


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("too_large", [True, False])
def test_what_a_refused_record_did_to_its_state_does_not_stay(guarantee: Any, too_large: bool) -> None:
    """Neither when it is given up nor when it is run again."""
    bench = keyed_bench(counting, guarantee=guarantee)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    for _ in range(2):
        bench.clients.fail_next_delivery("t.work", too_large=too_large, retriable=not too_large)
    settle(bench, actor)
    bench.feed("c", keys=[K])
    settle(bench, actor)
    assert bench.out()[-1] == ["c", 1 if too_large else 2]
    assert bench.dead_offsets() == ([0] if too_large else [])


def test_a_timer_fires_when_no_record_is_asked_for_by_name_any_more() -> None:
    def ringing(value: Any, ctx: Any) -> Iterator[Any]:
        ctx.timer.set("ring", after=0.2)
        yield value

    def ring(name: str, ctx: Any) -> Iterator[Any]:
        yield name

    bench = keyed_bench(ringing, on_timer=ring)
    actor = bench.actor()
    bench.feed("a", keys=[K])
    turn(bench, actor, times=3)
    bench.feed("b", "c", keys=[L, L])
    for _ in range(4):
        bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)
    settle(bench, actor)
    assert len(bench.dead()) == 1
    assert bench.out().count("ring") == 2
    assert "a" in bench.out()
