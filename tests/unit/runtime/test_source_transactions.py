"""Source tasks where each record counts once: records and their position in one transaction."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from sage.errors import TransientFailure
from sage.ports import ProducerFatal, TransactionAbortable
from sage.runtime.actors.transaction import Transactions
from sage.runtime.sources.positions import SourcePosition
from sage.runtime.sources.source_output import PlainOutput, TransactionalOutput
from sage.spec.options import Guarantee
from sage.testing.in_memory_producer import InMemoryProducer
from tests.support.waiting import wait_until
from tests.unit.runtime.sources.test_source_task import Desk, Following, Script


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_what_was_not_taken_before_a_failure_is_given_again(guarantee: Guarantee) -> None:
    desk = Desk(*range(6), guarantee=guarantee)
    Script.failures = {3: [ConnectionError("reset")]}
    desk.clients.fail_next_delivery("t.file", retriable=True)
    desk.begin()
    desk.order()
    desk.run(30)
    assert sorted(set(desk.values)) == list(range(6))
    assert guarantee == "at_least_once" or desk.values == list(range(6))


@pytest.mark.parametrize("error", [TransactionAbortable("produce"), ProducerFatal("fenced")])
@pytest.mark.parametrize("stops", [False, True])
def test_exactly_once_no_position_is_written_past_records_that_were_lost_with_their_transaction(
    error: Exception, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(*range(6), guarantee="exactly_once")
    produce, failures = InMemoryProducer.produce, [error]

    def fail_once(self: InMemoryProducer, topic: str, value: bytes | None, *more: Any, **options: Any) -> None:
        if value == b"3" and failures:
            raise failures.pop()  # as librdkafka's where an earlier record of the transaction was refused
        produce(self, topic, value, *more, **options)

    monkeypatch.setattr(InMemoryProducer, "produce", fail_once)
    desk.begin()
    desk.order()
    if stops:
        desk.run(0.01)
        desk.stop()
        desk.begin(fresh_epoch=None)
    desk.run(30)
    assert desk.values == list(range(6))


@pytest.mark.parametrize("output", [PlainOutput, TransactionalOutput])
def test_nothing_is_given_behind_a_checkpoint_that_failed_while_the_next_record_waited(
    output: type[PlainOutput | TransactionalOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_plain = output is PlainOutput
    desk = Desk(*range(40), guarantee="at_least_once" if is_plain else "exactly_once")
    save, saved, failures = output.save, list[Any](), [TransientFailure("not taken")]

    async def fail_slowly_once(self: Any, position: SourcePosition) -> None:
        if position.position is not None and len(saved) > 2 and failures:
            await asyncio.sleep(0.5)  # the next record comes to wait meanwhile
            if not is_plain:
                self._transactions.abort()
            raise failures.pop()
        await save(self, position)
        saved.append(position.position)

    monkeypatch.setattr(output, "save", fail_slowly_once)
    monkeypatch.setattr(output, "interval", 0.1)
    Script.pace = 0.03
    desk.begin()
    desk.order()
    desk.run(30)
    assert not failures
    assert [position for position, _ in Script.reads] == [None, saved[2]]
    assert sorted(set(desk.values)) == list(range(40))
    assert is_plain or desk.values == list(range(40))


@pytest.mark.parametrize("fenced", [False, True])
async def test_exactly_once_a_stop_in_the_middle_of_a_commit_waits_for_it_and_fails_nothing(
    fenced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(*range(6), guarantee="exactly_once", source=Following)
    commit, begun, go_on = Transactions.commit, threading.Event(), threading.Event()

    def commit_slowly(self: Transactions, *arguments: Any) -> None:
        if desk.saved is not None and not go_on.is_set():
            begun.set()
            go_on.wait(30)
            if fenced:
                raise self.replaced(ProducerFatal("fenced"))
        commit(self, *arguments)

    monkeypatch.setattr(Transactions, "commit", commit_slowly)
    running = asyncio.create_task(desk.task().run())
    desk.order(bounded=False)
    assert await asyncio.to_thread(begun.wait, 30)
    running.cancel()
    await asyncio.sleep(0.05)  # the task leaves while the commit is under way
    assert not running.done(), "it did not wait"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    monkeypatch.undo()
    again = asyncio.create_task(desk.task().run())
    await asyncio.to_thread(wait_until, lambda: len(desk.values) >= 6, timeout=30, what="all is given")
    again.cancel()
    await asyncio.wait({again})
    assert desk.values == list(range(6))


def test_exactly_once_a_record_that_reached_one_of_its_topics_only_is_in_none() -> None:
    desk = Desk("one", {"no": "text"}, guarantee="exactly_once", texts=True)
    desk.begin()
    desk.order()
    desk.run(5)
    assert "the output is a dict, and its topic holds text" in str(desk.failure)
    assert desk.values == []
    Script.values[1] = "two"
    desk.begin(fresh_epoch=None)
    desk.run(5)
    assert desk.values == ["one", "two"]
    assert [each.value() for each in desk.clients.messages("texts")] == [b"one", b"two"]


@pytest.mark.parametrize("seed", range(20))
def test_exactly_once_a_task_that_is_killed_and_moved_gives_each_value_once(seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk(*range(20), guarantee="exactly_once")
    Script.pace = 0.03
    desk.begin()
    desk.order()
    for _ in range(6):
        desk.run(chance.random() / 4)
        if chance.random() < 0.5:
            desk.kill()
        else:
            desk.stop()
        desk.begin(fresh_epoch=None)
    desk.run(60)
    assert desk.values == list(range(20))
    assert len(set(desk.ids_given)) == 20
    assert desk.saved is not None
    assert (desk.saved.position, desk.saved.exhausted) == (20, True)


@pytest.mark.parametrize("where", ["at its beginning", "while it takes over", "after its end"])
def test_exactly_once_a_task_that_another_owner_fences_for_a_moment_goes_on(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(*range(6), guarantee="exactly_once")
    commit, init, fenced = Transactions.commit, InMemoryProducer.init_transactions, list[str]()

    def is_due() -> bool:
        saved = desk.saved
        has_ended = saved is not None and saved.exhausted
        return len(fenced) < 2 and (saved is None if where == "while it takes over" else has_ended)

    def commit_if_not_fenced(self: Transactions, *arguments: Any) -> None:
        if where != "at its beginning" and is_due():
            fenced.append(where)
            raise self.replaced(ProducerFatal("fenced"))
        commit(self, *arguments)

    def init_if_not_fenced(self: InMemoryProducer, *arguments: Any) -> None:
        if where == "at its beginning" and len(fenced) < 2:
            fenced.append(where)
            raise ProducerFatal("fenced")
        init(self, *arguments)

    monkeypatch.setattr(Transactions, "commit", commit_if_not_fenced)
    monkeypatch.setattr(InMemoryProducer, "init_transactions", init_if_not_fenced)
    desk.begin()
    desk.order()
    desk.run(10)
    assert len(fenced) == 2
    assert desk.values == list(range(6))
    assert desk.saved == SourcePosition("epoch-1", 6, exhausted=True, run="w1#1")


def test_a_task_that_goes_while_it_takes_over_leaves_no_producer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, closed = Desk(*range(6), guarantee="exactly_once"), list[Transactions]()
    close = Transactions.close

    def note(self: Transactions) -> None:
        closed.append(self)
        close(self)

    async def never(*_: object) -> None:
        await asyncio.sleep(1_000)

    monkeypatch.setattr(Transactions, "close", note)
    monkeypatch.setattr(TransactionalOutput, "save", never)
    desk.begin()
    desk.run(1)
    desk.stop()
    assert len(closed) == 1


def test_exactly_once_a_task_that_has_read_all_and_was_fenced_writes_no_older_position() -> None:
    desk = Desk(*range(6), guarantee="exactly_once")
    desk.begin()
    desk.order()
    desk.run(0.5)
    former = desk.running
    assert former is not None
    Script.values += [6, 7, 8]
    desk.begin(fresh_epoch=None)  # the next owner's, while the former one does not know of it
    desk.run(0.8)  # in which the former one says that it has read all, and fences the next one by it
    former.cancel()
    desk.run()
    desk.stop()
    desk.begin(fresh_epoch=None)
    desk.run(30)
    assert desk.values == list(range(9))
    assert desk.saved is not None
    assert desk.saved.position == 9


def test_exactly_once_a_producer_that_can_never_be_opened_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, tries = Desk(*range(6), guarantee="exactly_once"), list[str]()

    def refuse(*_: object) -> None:
        tries.append("init")
        raise ProducerFatal("the transaction timeout is larger than the broker allows")

    monkeypatch.setattr(InMemoryProducer, "init_transactions", refuse)
    desk.begin()
    desk.run(10)
    assert desk.running is not None
    assert isinstance(desk.running.exception(), ProducerFatal)
    assert len(tries) == 5
