"""A timer whose output the broker refuses: for its size it is dead, once; for now it fires until it is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sage.errors import StageStopped
from tests.unit.runtime.acting import committed, keyed_bench, turn
from tests.unit.runtime.bench import Bench, at, text

K, L = b"k", b"l"
LIMIT = 600
LARGE = "x" * LIMIT
GUARANTEES = ["at_least_once", "exactly_once"]


def ringing(value: Any, ctx: Any) -> Iterator[Any]:
    """Sets a timer of that name, and counts."""
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    if value.startswith("ring"):
        ctx.timer.set(value, after=0.5)
    yield [value, ctx.state["n"]]


def ring(name: str, ctx: Any) -> Iterator[Any]:
    """Counts ten, and is too large for its topic where its name says so."""
    ctx.state["n"] += 10
    yield [name + (LARGE if "large" in name else ""), ctx.state["n"]]


async def ringing_later(value: Any, ctx: Any) -> AsyncIterator[Any]:
    for item in ringing(value, ctx):
        yield item


async def ring_later(name: str, ctx: Any) -> AsyncIterator[Any]:
    for item in ring(name, ctx):
        yield item


KINDS: Any = {"sync": (ringing, ring), "async": (ringing_later, ring_later)}


def bench_of(kind: str, guarantee: Any, **options: Any) -> Bench:
    step, on_timer = KINDS[kind]
    bench = keyed_bench(step, on_timer=on_timer, guarantee=guarantee, **options)
    bench.clients.limit_record_size("t.work", LIMIT)
    return bench


def settle(bench: Bench, *actors: Any, times: int = 20) -> None:
    turn(bench, *actors, seconds=0.15, times=times)


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_timer_whose_output_is_too_large_is_dead_once_and_done(kind: str, guarantee: Any) -> None:
    bench = bench_of(kind, guarantee)
    actor = bench.actor()
    bench.feed("ring large", keys=[K])
    settle(bench, actor)
    (letter,) = bench.dead()
    assert (letter.key(), letter.value()) == (K, None)
    said = text(letter)
    assert said["sage.timer"] == "ring large"
    assert said["__connect.errors.exception.class.name"] == "sage.errors.RecordTooLarge"
    assert actor.is_at_rest, "it is not due any more"
    assert actor.task.steps[0].counters.dead == 1
    settle(bench, actor)
    assert len(bench.dead()) == 1
    assert bench.out() == [["ring large", 1]]


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_next_owner_does_not_fire_it_again(kind: str, guarantee: Any) -> None:
    bench = bench_of(kind, guarantee)
    first = bench.actor()
    bench.feed("ring large", keys=[K])
    settle(bench, first)
    first.stop(1.0)
    first.run(lambda _: None)
    second = bench.actor()
    settle(bench, second)
    assert second.is_at_rest
    assert len(bench.dead()) == 1


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_records_and_timers_beside_it_do_not_pay(kind: str, guarantee: Any) -> None:
    bench = bench_of(kind, guarantee, partitions=2)
    actor = bench.actor()
    bench.feed("ring", "ring large", "ring too", keys=[K, L, b"m"])
    turn(bench, actor, seconds=0.1, times=4)
    bench.feed("a", "b", "c", keys=[K, L, b"m"])
    bench.run(0.3)  # all of them in one checkpoint
    settle(bench, actor)
    assert [text(letter)["sage.timer"] for letter in bench.dead()] == ["ring large"]
    outputs = [tuple(output) for output in bench.out()]
    assert {value for value, _ in outputs} == {"ring", "ring large", "ring too", "a", "b", "c"}
    assert {("ring", 12), ("ring too", 12)} <= set(outputs)
    if guarantee == "exactly_once":
        assert len(outputs) == len(set(outputs)) == 8
    assert sum(committed(bench).values()) >= 6
    assert actor.is_at_rest


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_what_a_refused_timer_did_to_its_state_does_not_stay(guarantee: Any) -> None:
    bench = bench_of("sync", guarantee)
    actor = bench.actor()
    bench.feed("ring large", keys=[K])
    settle(bench, actor)
    bench.feed("a", keys=[K])
    settle(bench, actor)
    assert bench.out()[-1] == ["a", 2]


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_is_refused_for_now_is_sent_until_it_is_taken(kind: str, guarantee: Any) -> None:
    bench = bench_of(kind, guarantee)
    actor = bench.actor()
    bench.feed("ring", keys=[K])
    turn(bench, actor, seconds=0.1, times=4)
    for _ in range(4):
        bench.clients.fail_next_delivery("t.work")
    settle(bench, actor)
    assert not bench.clients._state.faults.deliveries
    assert bench.dead() == []
    assert bench.out() == [["ring", 1], ["ring", 11]]


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_letter_of_a_timer_that_fits_only_without_its_trace(kind: str, guarantee: Any) -> None:
    bench = bench_of(kind, guarantee)
    actor = bench.actor()
    bench.clients.fail_next_delivery("t.dlq", too_large=True, retriable=False)
    bench.feed("ring large", keys=[K])
    settle(bench, actor)
    (letter,) = bench.dead()
    assert text(letter)["__connect.errors.exception.stacktrace"] == "(cut)"
    assert text(letter)["sage.timer"] == "ring large"


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_timer_without_room_for_its_letter_stops_the_stage(kind: str, guarantee: Any) -> None:
    bench = bench_of(kind, guarantee)
    bench.clients.limit_record_size("t.dlq", 100)
    actor = bench.actor()
    bench.feed("ring large", keys=[K])
    with pytest.raises(StageStopped, match=r"t\.dlq"):
        settle(bench, actor)
    assert committed(bench) == {at(): 1}, "the record itself is done"


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_timer_that_fails_for_good_is_named_by_its_letter_too(kind: str, guarantee: Any) -> None:
    def broken(name: str, ctx: Any) -> Iterator[Any]:
        raise ValueError("no")
        yield

    async def broken_later(name: str, ctx: Any) -> AsyncIterator[Any]:
        raise ValueError("no")
        yield

    step = KINDS[kind][0]
    bench = keyed_bench(step, on_timer=broken if kind == "sync" else broken_later, guarantee=guarantee)
    actor = bench.actor()
    bench.feed("ring", keys=[K])
    settle(bench, actor)
    assert [(letter.key(), text(letter)["sage.timer"]) for letter in bench.dead()] == [(K, "ring")]
