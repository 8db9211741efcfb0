"""Exactly-once through actors on the in-memory broker: aborts, losses, and who may commit."""

from __future__ import annotations

from typing import Any

import pytest

from sage.errors import TransientFailure, Unreachable
from sage.ports import DeliveryFailure, ProducerFatal, TransactionAbortable
from sage.runtime.actors.actor import CLAIM_AGAIN, Actor
from sage.runtime.actors.commit_text import CommitText
from sage.runtime.actors.transaction import Transactions
from tests.unit.runtime.acting import GROUP, Gate, committed, consumer_of, gated_bench, sync_bench, turn
from tests.unit.runtime.bench import Bench, at

EXACTLY: Any = {"guarantee": "exactly_once"}


def settle(bench: Bench, *actors: Any) -> None:
    turn(bench, *actors, seconds=0.15, times=8)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_outputs_and_offsets_appear_together(kind: str) -> None:
    gate = Gate()
    gate.open(*range(5))
    bench = sync_bench(**EXACTLY) if kind == "sync" else gated_bench(gate, **EXACTLY)
    actor = bench.actor()
    bench.feed(*range(5))
    actor.step(0)
    bench.run()
    assert (bench.out(), committed(bench).get(at(), 0)) in (([], 0), (list(range(5)), 5))
    settle(bench, actor)
    assert (bench.out(), committed(bench)) == (list(range(5)), {at(): 5})


def test_only_the_prefix_of_what_finished_out_of_order_is_committed() -> None:
    gate = Gate()
    bench = gated_bench(gate, **EXACTLY)
    actor = bench.actor()
    bench.feed("a", "b", "c", keys=[b"1", b"2", b"3"])
    gate.open("b", "c")
    settle(bench, actor)
    assert bench.out() == []
    gate.open("a")
    settle(bench, actor)
    assert (sorted(bench.out()), committed(bench)) == (["a", "b", "c"], {at(): 3})


@pytest.mark.parametrize("error", [TransactionAbortable("moved"), ProducerFatal("fenced")])
def test_a_transaction_that_fails_is_made_again_and_nothing_is_doubled(error: Exception) -> None:
    bench = sync_bench(**EXACTLY)
    actor = bench.actor()
    bench.clients._state.faults.transactions.append(error)
    bench.feed(*range(4))
    settle(bench, actor)
    assert (bench.out(), committed(bench)) == ([0, 1, 2, 3], {at(): 4})


def test_an_abort_sends_again_from_memory_and_makes_no_call_twice() -> None:
    gate = Gate()
    bench = gated_bench(gate, **EXACTLY)
    actor = bench.actor()
    gate.open("a", "b")
    bench.clients._state.faults.transactions.append(TransactionAbortable("moved"))
    bench.feed("a", "b")
    settle(bench, actor)
    assert bench.out() == ["a", "b"]
    assert sorted(gate.started) == ["a", "b"]


def test_a_member_that_was_expelled_commits_nothing_and_the_next_owner_does_it_once() -> None:
    gate = Gate()
    bench = gated_bench(gate, **EXACTLY)
    frozen = bench.actor()
    bench.feed("a", "b")
    gate.open("a", "b")
    frozen.step(0)
    bench.run()
    consumer_of(frozen).lose()
    frozen._guarded(frozen._checkpoint)  # it wakes up in mid-turn, before any poll tells it
    assert committed(bench).get(at(), 0) == 0
    settle(bench, bench.actor(), frozen)
    assert (bench.out(), committed(bench)) == (["a", "b"], {at(): 2})


def test_a_lost_partition_takes_no_output_of_a_retained_one_with_it() -> None:
    bench = sync_bench(partitions=2, **EXACTLY)
    actor = bench.actor()
    bench.feed(0, partition=0)
    bench.feed(10, partition=1)
    actor.step(0)  # both in one open transaction
    actor.on_lost([at(1)])
    settle(bench, actor)
    assert bench.out() == [0], "the other one is its next owner's to write"
    assert committed(bench).get(at(0)) == 1
    assert not committed(bench).get(at(1))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_output_that_the_broker_refuses_for_its_size_buries_only_its_record(kind: str) -> None:
    gate = Gate()
    gate.open(*range(3))
    bench = sync_bench(**EXACTLY) if kind == "sync" else gated_bench(gate, **EXACTLY)
    actor = bench.actor()
    refused = DeliveryFailure("t.work", 0, "too large", True, False)
    faults = bench.clients._state.faults.deliveries
    faults.append(("t.work", refused))
    bench.feed(*range(3))
    while faults or bench.clients._state.open:  # refused among others: aborted, and nobody knows whose it was
        turn(bench, actor, seconds=0.02)
    faults.append(("t.work", refused))  # refused again when each record is asked for by name
    settle(bench, actor)
    settle(bench, actor)
    assert len(bench.out()) == 2
    assert len(bench.dead()) == 1
    assert committed(bench) == {at(): 3}


def test_a_commit_that_happened_without_an_answer_is_not_taken_back_when_the_partition_moves() -> None:
    """The offsets are committed again without our name then: those that we know, and they must not be older."""
    bench = sync_bench(**EXACTLY)
    actor = bench.actor()
    turn(bench, actor)
    producer = transactions_of(actor).producer
    commit = producer.commit_transaction

    def unanswered(timeout: float = 0) -> None:
        commit(timeout)
        raise ProducerFatal("it hangs")

    producer.commit_transaction = unanswered  # type: ignore[method-assign]
    bench.feed(1, 2)
    while not committed(bench).get(at()):
        turn(bench, actor, seconds=0.15)
    actor.on_revoked([at()])
    assert committed(bench) == {at(): 2}
    assert CommitText.decode(texts(bench)[at()]).transactional_id == ""


def test_a_revoke_that_cannot_commit_leaves_nothing_open() -> None:
    """What is open holds outputs of partitions that are another's in a moment."""
    bench = sync_bench(partitions=2, **EXACTLY)
    actor = bench.actor()
    turn(bench, actor)
    bench.feed(0, partition=0)
    bench.feed(10, partition=1)
    actor.step(0)
    actor.step(0)
    assert transactions_of(actor).is_open
    consumer_of(actor).group_metadata = lambda: None  # type: ignore[method-assign]
    actor.on_revoked([at(1)])
    del consumer_of(actor).group_metadata  # type: ignore[attr-defined]
    settle(bench, actor)
    assert bench.out() == [0]
    assert committed(bench).get(at(1), 0) == 0


def test_our_name_is_put_beside_the_offsets_though_the_coordinator_was_away_at_first() -> None:
    bench = sync_bench(**EXACTLY)
    bench.clients.fail_next_commit(TransientFailure("no coordinator"))
    actor = bench.actor()
    turn(bench, actor)
    assert at() not in texts(bench)
    turn(bench, actor, seconds=CLAIM_AGAIN, times=2)
    assert CommitText.decode(texts(bench)[at()]).transactional_id == transactions_of(actor).id


def test_putting_our_name_there_takes_no_commit_back_that_happened_without_an_answer() -> None:
    bench = sync_bench(**EXACTLY)
    bench.clients.fail_next_commit(TransientFailure("no coordinator"))  # so that it is put there later
    actor = bench.actor()
    turn(bench, actor)
    producer = transactions_of(actor).producer
    commit = producer.commit_transaction

    def unanswered(timeout: float = 0) -> None:
        commit(timeout)
        raise ProducerFatal("it hangs")

    producer.commit_transaction = unanswered  # type: ignore[method-assign]
    bench.feed(1, 2)
    while not committed(bench).get(at()):
        turn(bench, actor, seconds=0.05)
    turn(bench, actor, seconds=CLAIM_AGAIN, times=3)
    assert committed(bench) == {at(): 2}
    assert CommitText.decode(texts(bench)[at()]).transactional_id == transactions_of(actor).id


def test_a_producer_that_is_fenced_before_it_is_of_use_is_replaced_too() -> None:
    bench = sync_bench(**EXACTLY)
    actor = bench.actor()
    producer = bench.clients.producer
    fenced = [ProducerFatal("by who took over"), ProducerFatal("once more")]

    def make(**options: Any) -> Any:
        made = producer(**options)
        if fenced:
            made.init_transactions = raising(fenced.pop())  # type: ignore[method-assign]
        return made

    bench.clients.producer = make  # type: ignore[method-assign]
    bench.clients.fail_next_transaction(ProducerFatal("fenced"))
    bench.feed(1)
    settle(bench, actor)
    assert (fenced, bench.out(), committed(bench)) == ([], [1], {at(): 1})


def test_a_commit_without_an_answer_is_not_aborted_at_the_end_either() -> None:
    bench = sync_bench(**EXACTLY)
    actor = bench.actor()
    bench.feed(1)
    actor.step(0)
    transactions = transactions_of(actor)
    aborts: list[float] = []
    transactions.producer.abort_transaction = aborts.append  # type: ignore[assignment,method-assign]
    actor.setting.stopping.set()
    with bench.clients.down(), pytest.raises(Unreachable):
        transactions.commit({at(): 1}, consumer_of(actor).group_metadata())
    transactions.close()
    assert aborts == []


def test_a_batch_that_ends_after_one_of_its_partitions_went_does_nothing_for_that_one() -> None:
    gate = Gate()

    async def together(values: list[Any]) -> list[Any]:
        await gate("batch")
        raise ConnectionError("reset")

    bench = Bench(lambda s: s.map_batches(together, name="work", max_size=2, max_wait=0), partitions=2)
    actor = bench.actor()
    turn(bench, actor)
    bench.feed(0, partition=0)
    bench.feed(10, partition=1)
    actor.step(0)
    bench.run()
    actor.on_lost([at(1)])
    gate.open("batch")
    bench.run()
    assert actor.setting.steps[0].counters.retried == 1


def raising(error: Exception) -> Any:
    def call(*arguments: Any) -> None:
        raise error

    return call


def transactions_of(actor: Actor) -> Transactions:
    assert actor._transactions is not None
    return actor._transactions


def texts(bench: Bench) -> dict[Any, str]:
    """What stands beside the group's offsets."""
    return bench.clients._state.group(GROUP).texts
