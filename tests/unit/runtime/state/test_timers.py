"""Timers: each fires once at its time, survives as state does, and costs one entry however often it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.runtime.state.table import PartitionTable
from sage.runtime.state.timers import Due, TimerHeap
from sage.state.in_memory import MemoryStore

MakeTable = Callable[..., PartitionTable]


def set_timer(table: PartitionTable, key: bytes = b"k", name: str = "timer", *, now: int = 0, **when: Any) -> None:
    work = table.begin(key, now)
    work.timers.set(name, **when)
    change = table.stage(work)
    if change is not None:
        table.prepare(change)


def cancel(table: PartitionTable, key: bytes = b"k", name: str = "timer") -> None:
    work = table.begin(key, 0)
    work.timers.cancel(name)
    change = table.stage(work)
    assert change is not None
    table.prepare(change)


def fire(table: PartitionTable, due: Due) -> None:
    change = table.stage(table.fire(due, due.at))
    assert change is not None
    table.prepare(change)
    table.fired(due)


def test_a_timer_is_due_at_its_time_and_given_once(table: MakeTable) -> None:
    one = table()
    set_timer(one, after="2s", now=1_000)
    assert one.next_due == 3_000
    assert one.due(2_999) == []
    assert one.due(3_000) == [Due(b"k", "timer", 3_000)]
    assert one.due(9_999) == []


def test_timers_are_due_in_the_order_of_their_times(table: MakeTable) -> None:
    one = table()
    for key, at in ((b"a", 30), (b"b", 10), (b"c", 20)):
        set_timer(one, key, at=at)
    assert [due.key for due in one.due(100, limit=2)] == [b"b", b"c"]
    assert [due.key for due in one.due(100)] == [b"a"]


def test_no_more_are_given_than_may_be_at_work(table: MakeTable) -> None:
    one = table()
    for key in (b"a", b"b", b"c"):
        set_timer(one, key, at=1)
    first = one.due(100, limit=2)
    assert len(first) == 2
    assert one.due(100, limit=2) == []
    one.fired(first[0])
    assert len(one.due(100, limit=2)) == 1


def test_one_that_fired_is_no_longer_set(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    fire(one, due)
    assert one.begin(b"k", 10).timers.due == {}
    assert one.due(100) == []


def test_one_may_be_set_again_while_it_fires(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    work = one.fire(due, 10)
    work.timers.set(after=0.005)
    one.stage(work)
    one.fired(due)
    assert one.due(14) == []
    assert one.due(15) == [Due(b"k", "timer", 15)]


def test_a_timer_of_the_same_name_replaces_the_last(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    set_timer(one, at=50)
    assert one.due(49) == []
    assert one.due(50) == [Due(b"k", "timer", 50)]
    set_timer(one, b"early", at=90)
    set_timer(one, b"early", at=60)
    assert one.due(60) == [Due(b"early", "timer", 60)]
    assert one.due(1_000) == []


def test_a_cancelled_one_is_not_due(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    cancel(one)
    assert one.due(100) == []


def test_one_that_was_moved_between_due_and_its_turn_is_not_fired(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    assert one.is_set(due)
    set_timer(one, at=40)
    assert not one.is_set(due)
    assert one.fire(due, 10).timers.due == {"timer": 40}
    one.fired(due)
    assert one.due(40) == [Due(b"k", "timer", 40)]


def test_one_that_is_about_to_fire_is_not_given_twice(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    set_timer(one, name="other", at=99)  # a record of its key goes first, and arms all of its timers
    assert one.due(10) == []
    fire(one, due)
    assert one.due(98) == []


def test_one_that_failed_is_given_again_at_the_time_of_its_next_try(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    one.again(due, 500)
    set_timer(one, name="other", at=9_000)  # a record of its key does not hurry it
    assert one.due(499) == []
    assert one.due(500) == [due]
    assert one.tries(due) == 1
    one.again(due, 900)
    assert one.tries(due) == 2
    (due,) = one.due(900)
    fire(one, due)
    assert one.tries(due) == 0


@pytest.mark.parametrize("change", [lambda table: set_timer(table, at=900), cancel])
def test_one_that_failed_and_is_moved_or_cancelled_meanwhile_is_not_waited_for(table: MakeTable, change: Any) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    one.again(due, 500)
    change(one)
    one.keep()
    assert one.due(899) == []
    assert one.is_at_rest(899)


def test_one_that_is_moved_to_before_its_next_try_is_due_then(table: MakeTable) -> None:
    one = table()
    set_timer(one, at=10)
    (due,) = one.due(10)
    one.again(due, 500)
    set_timer(one, at=200)
    assert one.due(200) == [Due(b"k", "timer", 200)]


def test_a_timer_that_is_put_off_for_ever_costs_one_entry(table: MakeTable) -> None:
    one = table()
    for now in range(1_000):
        set_timer(one, after="1h", now=now)
    assert len(one._heap) == 1
    assert one.due(3_600_998) == []
    assert one.due(3_600_999) == [Due(b"k", "timer", 3_600_999)]


def test_a_restart_finds_the_timers_without_reading_the_state(store: MemoryStore, table: MakeTable) -> None:
    one = table()
    set_timer(one, b"a", at=10)
    set_timer(one, b"b", at=20)
    work = one.begin(b"plain", 0)
    work.state["n"] = 1
    change = one.stage(work)
    assert change is not None
    one.prepare(change)
    one.keep()
    cancel(one, b"b")
    one.keep()
    assert [key for key, _ in store.scan(b"t")] == [b"ta"]
    assert table().due(100) == [Due(b"a", "timer", 10)]


def test_what_is_dropped_takes_its_timers_along_and_gives_the_fired_ones_back(table: MakeTable) -> None:
    one = table()
    set_timer(one, b"kept", at=10)
    one.keep()
    (due,) = one.due(10)
    fire(one, due)
    set_timer(one, b"dropped", at=5)
    one.drop()
    assert one.due(100) == [Due(b"kept", "timer", 10)]


MOVES = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 60)), st.integers(0, 8)), max_size=60
)


@given(moves=MOVES)
def test_timers_fire_at_the_first_look_after_their_last_time(moves: list[tuple[str, int | None, int]]) -> None:
    """Against a plain dict: set, moved and cancelled in any order while time goes on."""
    table = PartitionTable(MemoryStore(), model=None, ttl=None, has_timers=True)
    expected: dict[bytes, int] = {}
    now = 0
    for letter, at, passed in moves:
        key = letter.encode()
        if at is None and key in expected:
            cancel(table, key)
            del expected[key]
        elif at is not None:
            set_timer(table, key, at=now + at)
            expected[key] = now + at
        if passed == 8:
            table.keep()
            table = PartitionTable(table.store, model=None, ttl=None, has_timers=True)
            table.load_timers()
        now += passed
        fired = table.due(now)
        assert {(due.key, due.at) for due in fired} == {(key, due) for key, due in expected.items() if due <= now}
        for due in fired:
            fire(table, due)
            del expected[due.key]
    assert len(table._heap) <= 2 * 60


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=40))
def test_the_heap_gives_every_armed_timer_no_later_than_asked(arms: list[tuple[str, int]]) -> None:
    heap = TimerHeap()
    for name, at in arms:
        heap.arm(b"k", name, at)
    asked = {name: min(at for other, at in arms if other == name) for name in {name for name, _ in arms}}
    popped = []
    while (due := heap.pop(100)) is not None:
        popped.append((due.name, due.at))
    assert sorted(popped) == sorted(asked.items())
