"""Actors: polling, checkpoints, backpressure, and their ends, over an in-memory group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from sage.errors import NotFound, StageStopped, TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import CommitRefused
from sage.runtime.actors.actor import Actor
from sage.spec.component import Operator
from sage.spec.context import OpenContext
from tests.unit.runtime.acting import Gate, committed, consumer_of, gated_bench, inputs_of, sync_bench, turn
from tests.unit.runtime.bench import IN, Bench, at

# ----------------------------------------------------------------------------------------- checkpoints


def test_what_is_through_is_committed_when_nothing_more_comes() -> None:
    bench = sync_bench()
    actor = bench.actor()
    bench.feed(1, 2, 3)
    turn(bench, actor, times=2)
    assert bench.out() == [1, 2, 3]
    turn(bench, actor, times=2)
    assert committed(bench) == {at(): 3}


def test_under_load_a_checkpoint_is_by_time_and_not_by_batch() -> None:
    bench = sync_bench()
    commits: list[Mapping[TopicPartition, int]] = []
    actor = bench.actor()
    turn(bench, actor, times=2)
    consumer = consumer_of(actor)
    consumer.commit = cast(Any, lambda offsets, texts=None: commits.append(offsets))  # type: ignore[method-assign]
    for number in range(30):
        bench.feed(number)
        turn(bench, actor, seconds=0.1)
    assert 2 <= len(commits) <= 4


def test_a_commit_is_made_once() -> None:
    bench = sync_bench()
    actor = bench.actor()
    bench.feed(1)
    turn(bench, actor, times=3)
    commits: list[Any] = []
    consumer_of(actor).commit = cast(Any, lambda offsets, texts=None: commits.append(offsets))  # type: ignore[method-assign]
    turn(bench, actor, times=20)
    assert commits == []


def test_a_new_actor_goes_on_where_the_last_one_committed() -> None:
    bench = sync_bench()
    actor = bench.actor()
    bench.feed(1, 2)
    turn(bench, actor, times=3)
    consumer_of(actor).abandon()
    bench.feed(3)
    other = bench.actor()
    turn(bench, other, times=3)
    assert bench.out() == [1, 2, 3]
    assert committed(bench) == {at(): 3}


def test_what_was_not_committed_comes_again_after_a_kill() -> None:
    gate = Gate()
    bench = gated_bench(gate)
    actor = bench.actor()
    bench.feed("a", "b", "c", keys=[b"1", b"2", b"3"])
    gate.open("a", "c")
    turn(bench, actor, times=4)
    assert committed(bench) == {at(): 1}
    consumer_of(actor).abandon()
    gate.open("b")
    turn(bench, bench.actor(), times=4)
    assert sorted(bench.out()) == ["a", "b", "b", "c", "c"] or sorted(bench.out()) == ["a", "b", "c", "c"]
    assert committed(bench) == {at(): 3}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_log_that_ends_in_aborted_records_and_markers_is_committed_to_its_end(asynchronous: bool) -> None:
    gate = Gate()
    gate.open(1)
    bench = gated_bench(gate) if asynchronous else sync_bench()
    actor = bench.actor()
    producer = bench.clients.producer(transactional_id="x")
    producer.init_transactions()
    for value, end in ((b"1", producer.commit_transaction), (b"2", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(IN, value)
        producer.flush(1)
        end()
    turn(bench, actor, times=4)
    assert bench.out() == [1]
    end_offset = bench.clients.admin().end_offsets([at()])[at()]
    assert end_offset > 1
    assert committed(bench) == {at(): end_offset}


def test_an_empty_partition_needs_no_commit_to_have_no_lag() -> None:
    bench = sync_bench(partitions=2)
    actor = bench.actor()
    bench.feed(1, partition=0)
    turn(bench, actor, times=4)
    ends = bench.clients.admin().end_offsets([at(0), at(1)])
    assert {p: ends[p] - committed(bench).get(p, 0) for p in ends} == {at(0): 0, at(1): 0}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_commit_that_was_not_answered_is_made_again(asynchronous: bool) -> None:
    gate = Gate()
    gate.open(1, 2)
    bench = gated_bench(gate) if asynchronous else sync_bench()
    actor = bench.actor()
    turn(bench, actor)
    bench.feed(1, 2)
    bench.clients.fail_next_commit(TransientFailure("no answer"))
    bench.clients.fail_next_commit(TransientFailure("no answer"))
    turn(bench, actor, times=2)
    assert bench.out() == [1, 2]
    assert committed(bench) == {}
    turn(bench, actor, times=4)
    assert committed(bench) == {at(): 2}
    assert bench.out() == [1, 2]


def test_a_refused_commit_stops_nothing() -> None:
    bench = sync_bench()
    actor = bench.actor()
    bench.feed(1, 2)
    bench.clients.fail_next_commit(CommitRefused("moved on"))
    turn(bench, actor, times=3)
    bench.feed(3)
    turn(bench, actor, times=3)
    assert committed(bench) == {at(): 3}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_refused_outputs_are_read_again_and_nothing_is_committed_past_them(asynchronous: bool) -> None:
    gate = Gate()
    gate.open(*range(6))
    bench = gated_bench(gate) if asynchronous else sync_bench()
    actor = bench.actor()
    bench.feed(0, 1, 2)
    turn(bench, actor, times=3)
    bench.clients.fail_next_delivery("t.work")
    bench.feed(3, 4, 5)
    turn(bench, actor)
    assert committed(bench) == {at(): 3}
    turn(bench, actor, times=8)
    assert committed(bench) == {at(): 6}
    assert set(bench.out()) == set(range(6))


# -------------------------------------------------------------------------------------- backpressure


def test_a_full_window_pauses_and_half_of_it_resumes() -> None:
    gate = Gate()
    bench = gated_bench(gate, concurrency=4)
    actor = bench.actor()
    consumer, calls = consumer_of(actor), list[str]()
    pause, resume = consumer.pause, consumer.resume

    def paused(partitions: Sequence[TopicPartition]) -> None:
        calls.append("pause")
        pause(partitions)

    def resumed(partitions: Sequence[TopicPartition]) -> None:
        calls.append("resume")
        resume(partitions)

    consumer.pause, consumer.resume = paused, resumed  # type: ignore[method-assign]
    bench.feed(*range(40), keys=[b"%d" % number for number in range(40)])
    turn(bench, actor, times=12)
    assert calls == ["pause"]
    assert len(gate.started) == 4
    gate.open(*range(7))
    turn(bench, actor, times=5)
    assert calls == ["pause"]
    gate.open(7)
    turn(bench, actor, times=12)
    assert calls == ["pause", "resume", "pause"]
    gate.open(*range(40))
    turn(bench, actor, times=30)
    assert sorted(bench.out()) == list(range(40))
    assert committed(bench) == {at(): 40}
    assert calls.count("pause") <= 5


def test_a_window_that_is_full_for_a_moment_throws_nothing_away_that_is_fetched() -> None:
    """A pause costs what is fetched ahead, and the time until more has come."""
    gate = Gate()
    bench = gated_bench(gate, concurrency=4)
    actor = bench.actor()
    consumer_of(actor).pause = pytest.fail  # type: ignore[assignment]
    bench.feed(*range(64), keys=[b"%d" % number for number in range(64)])
    turn(bench, actor, times=2)
    for number in range(0, 64, 8):
        gate.open(*range(number, number + 8))
        turn(bench, actor, times=3)
    turn(bench, actor, times=3)
    assert sorted(bench.out()) == list(range(64))


def test_a_synchronous_stage_never_pauses() -> None:
    bench = sync_bench()
    actor = bench.actor()
    consumer_of(actor).pause = pytest.fail  # type: ignore[assignment]
    bench.feed(*range(5_000))
    turn(bench, actor, times=8)
    assert len(bench.out()) == 5_000


def test_partitions_that_join_a_paused_actor_are_paused_too() -> None:
    gate = Gate()
    bench = gated_bench(gate, concurrency=4, partitions=2)
    first, second = bench.actor(), bench.actor()
    turn(bench, first, second, times=2)
    owned = next(iter(inputs_of(first))).partition
    bench.feed(*range(16), partition=owned)
    turn(bench, first, times=2)
    consumer_of(second).abandon()
    bench.feed(*range(100, 116), partition=1 - owned)
    turn(bench, first, times=20)
    assert len(inputs_of(first)) == 2
    assert all(value < 100 for value in gate.started)
    gate.open(0, 1)
    turn(bench, first, times=2)
    assert set(gate.started[4:]) == {4, 100}  # one of each that has nothing under way, and partitions take turns
    gate.open(*range(200))
    turn(bench, first, times=20)
    assert sorted(bench.out()) == [*range(16), *range(100, 116)]


# ---------------------------------------------------------------------------------------- life and death


def test_a_stop_finishes_what_is_in_hand_commits_it_and_leaves() -> None:
    async def slow(value: int) -> int:
        await asyncio.sleep(2)
        return value

    bench = Bench(lambda s: s.map(slow, name="work"))
    actor = bench.actor()
    bench.feed(1, 2, 3)
    turn(bench, actor)
    actor.stop(10)
    actor.run(lambda _: pytest.fail("it did not fail"))
    assert bench.out() == [1, 2, 3]
    assert committed(bench) == {at(): 3}
    assert consumer_of(actor).assignment() == frozenset()


def test_a_stage_that_stops_says_where_commits_its_prefix_and_leaves_the_group() -> None:
    def check(value: int) -> int:
        if value == 3:
            raise NotFound("no collection 'handbook'")
        return value

    bench = sync_bench(check)
    actor, failed = bench.actor(), list[Actor]()
    bench.feed(1, 2, 3, 4)
    actor.run(failed.append)
    assert failed == [actor]
    assert isinstance(actor.failure, NotFound)
    assert str(actor.failure) == "t step \"work\" at in-0@2: no collection 'handbook' [SAGE203]"
    assert committed(bench) == {at(): 2}
    assert consumer_of(actor).assignment() == frozenset()


def test_a_consumer_that_cannot_go_on_stops_the_stage_with_its_place() -> None:
    bench = sync_bench()
    actor, failed = bench.actor(), list[Actor]()
    bench.clients.fail_next_poll(StageStopped("committed below the log's start"))
    actor.run(failed.append)
    assert str(failed[0].failure) == 't step "work": committed below the log\'s start [SAGE520]'


class Opening(Operator[int, int]):
    async def open(self, ctx: OpenContext) -> None:
        raise NotFound(f"{ctx.topology} {ctx.step} {ctx.concurrency}")

    def process(self, value: int, ctx: Any) -> int:
        return value


def test_a_step_that_cannot_be_opened_is_named() -> None:
    bench = Bench(lambda s: s.map(Opening, name="work"))
    with pytest.raises(NotFound, match='t step "work": t work 1'):
        bench.actor()


def test_a_step_that_cannot_be_closed_fails_the_actor_after_its_commit() -> None:
    class Closing(Operator[int, int]):
        def process(self, value: int, ctx: Any) -> int:
            return value

        async def close(self) -> None:
            raise RuntimeError("the disk is gone")

    bench = Bench(lambda s: s.map(Closing, name="work"))
    actor, failed = bench.actor(), list[Actor]()
    bench.feed(1)
    turn(bench, actor)
    actor.stop(1)
    actor.run(failed.append)
    assert isinstance(failed[0].failure, RuntimeError)
    assert committed(bench) == {at(): 1}
