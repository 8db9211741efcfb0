"""Checkpoints of a table: what is written, what is kept, what an abort and a drop leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage.ports import DeliveryFailure
from sage.runtime.state.envelope import Envelope
from sage.runtime.state.table import PartitionTable
from sage.runtime.state.write_set import WriteSet
from sage.state.in_memory import MemoryStore

MakeTable = Callable[..., PartitionTable]


def changed(table: PartitionTable, key: bytes = b"k", now: int = 0, **state: Any) -> WriteSet:
    work = table.begin(key, now)
    work.state = state
    change = table.stage(work)
    assert change is not None
    return change


def state(table: PartitionTable, key: bytes = b"k", now: int = 0) -> Any:
    return table.begin(key, now).state


def test_only_what_is_prepared_is_written_and_of_a_key_only_the_last(table: MakeTable) -> None:
    one = table()
    for n in (1, 2):
        one.prepare(changed(one, n=n))
    changed(one, b"later", n=3)
    assert one.prepared == {b"k": b'{"s":{"n":2}}'}


def test_prepared_out_of_order_the_last_change_counts(table: MakeTable) -> None:
    one = table()
    first, second = changed(one, n=1), changed(one, n=2)
    one.prepare(second)
    one.prepare(first)
    assert one.prepared == {b"k": second.value}


def test_nothing_reaches_the_store_before_the_checkpoint_is_committed(store: MemoryStore, table: MakeTable) -> None:
    one = table()
    one.prepare(changed(one, n=1))
    assert list(store.scan()) == []
    one.acknowledged(None, 0, 41)
    one.keep()
    assert (store.applied, list(store.scan())) == (42, [(b"sk", b'{"s":{"n":1}}')])
    assert not one.is_dirty


def test_what_came_after_the_checkpoint_is_seen_and_not_kept(store: MemoryStore, table: MakeTable) -> None:
    one = table()
    one.prepare(changed(one, n=1))
    changed(one, n=2)
    one.keep()
    assert store.get(b"sk") == b'{"s":{"n":1}}'
    assert state(one) == {"n": 2}


def test_an_aborted_checkpoint_is_prepared_again_from_memory(table: MakeTable) -> None:
    one = table()
    change = changed(one, n=1)
    one.prepare(change)
    one.forget_prepared()
    assert not one.is_dirty
    assert state(one) == {"n": 1}
    one.prepare(change)
    assert one.prepared == {b"k": change.value}


def test_a_drop_leaves_what_is_kept(table: MakeTable) -> None:
    one = table()
    one.prepare(changed(one, n=1))
    one.keep()
    one.prepare(changed(one, n=2))
    changed(one, b"new", n=3)
    one.drop()
    assert (state(one), state(one, b"new"), one.is_dirty) == ({"n": 1}, {}, False)


def test_a_closed_table_takes_nothing(table: MakeTable) -> None:
    one = table()
    work = one.begin(b"k", 0)
    work.state["n"] = 1
    one.close()
    assert one.stage(work) is None
    assert not one.is_dirty


def test_answers_of_the_broker_are_told_apart(table: MakeTable) -> None:
    one = table()
    refusal = DeliveryFailure("t.count.changelog", 0, "too large", True, False)
    one.acknowledged(refusal, 0, -1)
    one.acknowledged(None, 0, 7)
    assert (one.take_failures(), one.take_failures()) == ([refusal], [])


# --------------------------------------------------------------------- changes that build upon others


def test_a_change_waits_for_the_one_that_it_builds_upon(table: MakeTable) -> None:
    """A record of a second input, or a retried one, may reach the front of its own partition first."""
    one = table()
    first, second = changed(one, n=1), changed(one, n=2)
    assert not second.claim()
    assert first.claim()
    assert second.claim()


def test_after_an_abort_all_of_them_wait_again(table: MakeTable) -> None:
    one = table()
    first, second, third = (changed(one, n=n) for n in (1, 2, 3))
    for change in (first, second):
        assert change.claim()
        one.prepare(change)
    one.forget_prepared()
    assert not second.claim()
    assert not third.claim()


def test_what_is_committed_is_waited_for_by_nobody(table: MakeTable) -> None:
    one = table()
    first = changed(one, n=1)
    second = changed(one, n=2)
    one.prepare(first)
    one.keep()
    assert second.claim()
    assert second.before is first
    assert first.before is None


def test_an_abort_does_not_undo_what_an_earlier_checkpoint_committed(table: MakeTable) -> None:
    one = table()
    first, second = changed(one, n=1), changed(one, n=2)
    one.prepare(first)
    one.keep()
    assert second.claim()
    one.prepare(second)
    one.forget_prepared()
    assert second.claim()


def test_long_chains_are_let_go_when_they_are_committed(table: MakeTable) -> None:
    one = table()
    for n in range(1, 5_001):
        one.prepare(changed(one, n=n))
    last = one._prepared[b"k"]
    one.keep()
    assert last.before is None


# ---------------------------------------------------------------------------------------------- ttl

HOUR = 3_600_000


def kept(table: PartitionTable, key: bytes, now: int, **values: Any) -> None:
    table.prepare(changed(table, key, now, **values))
    table.keep()


def test_an_expired_entry_reads_as_empty_and_may_be_set_to_the_same_again(table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"k", 0, n=1)
    assert state(one, now=HOUR) == {"n": 1}
    assert state(one, now=HOUR + 1) == {}
    kept(one, b"k", HOUR + 1, n=1)
    assert state(one, now=2 * HOUR) == {"n": 1}


def test_a_change_makes_it_live_on_and_a_look_does_not(table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"k", 0, n=1)
    kept(one, b"k", HOUR, n=2)
    assert one.stage(one.begin(b"k", HOUR + 5)) is None
    assert state(one, now=2 * HOUR) == {"n": 2}
    assert state(one, now=2 * HOUR + 1) == {}


def test_the_sweep_forgets_what_is_old_as_changes_like_others(store: MemoryStore, table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"old", 0, n=1)
    kept(one, b"young", HOUR, n=1)
    swept = one.sweep(HOUR + 1)
    assert [(change.key, change.value) for change in swept] == [(b"old", None)]
    assert one.prepared == {b"old": None}
    one.keep()
    assert [key for key, _ in store.scan(b"s")] == [b"syoung"]


def test_the_sweep_does_not_touch_a_key_that_was_changed_since(table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"k", 0, n=1)
    change = changed(one, now=HOUR + 1, n=2)  # not committed yet
    assert one.sweep(HOUR + 2) == []
    one.prepare(change)
    assert one.sweep(HOUR + 2) == []
    one.keep()
    assert state(one, now=HOUR + 3) == {"n": 2}


def test_a_record_that_is_at_work_while_its_key_is_swept_has_the_last_word(table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"k", 0, n=1)
    work = one.begin(b"k", HOUR)
    work.state["n"] += 1
    assert len(one.sweep(HOUR + 1)) == 1
    change = one.stage(work)
    assert change is not None
    assert change.claim()
    one.prepare(change)
    one.keep()
    assert state(one, now=HOUR + 2) == {"n": 2}


def test_what_was_swept_in_an_aborted_checkpoint_is_swept_again(table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"k", 0, n=1)
    one.sweep(HOUR + 1)
    one.forget_prepared()
    assert not one.is_dirty
    assert [change.key for change in one.sweep(HOUR + 2)] == [b"k"]


def test_a_change_made_upon_a_sweep_does_not_wait_for_it(table: MakeTable) -> None:
    one = table(ttl=3600)
    kept(one, b"k", 0, n=1)
    one.sweep(HOUR + 1)
    change = changed(one, now=HOUR + 2, n=5)
    one.forget_prepared()
    assert change.claim()


def test_the_sweep_leaves_timers(store: MemoryStore, table: MakeTable) -> None:
    one = table(ttl=3600)
    work = one.begin(b"k", 0)
    work.state["n"] = 1
    work.timers.set(at=5 * HOUR)
    change = one.stage(work)
    assert change is not None
    one.prepare(change)
    one.keep()
    one.sweep(HOUR + 1)
    one.keep()
    (entry,) = [envelope for _, envelope in one.entries()]
    assert entry == Envelope(None, {"timer": 5 * HOUR})
    assert one.sweep(HOUR + 2) == []


def test_a_sweep_looks_at_some_keys_each_time_and_at_all_in_the_end(table: MakeTable) -> None:
    one = table(ttl=3600)
    for number in range(25):
        one.prepare(changed(one, b"%02d" % number, 0, n=1))
    one.keep()
    sizes = []
    for _ in range(3):
        sizes.append(len(one.sweep(HOUR + 1, limit=10)))
        one.keep()
    assert sizes == [10, 10, 5]


def test_without_a_ttl_nothing_is_swept(table: MakeTable) -> None:
    one = table()
    kept(one, b"k", 0, n=1)
    assert one.sweep(10**15) == []
