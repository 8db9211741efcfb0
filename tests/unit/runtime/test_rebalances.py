"""Rebalances: partitions shared, revoked, lost and taken over, over an in-memory group."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.runtime.acting import GROUP, Gate, committed, consumer_of, gated_bench, inputs_of, sync_bench, turn
from tests.unit.runtime.bench import Bench, at


def test_partitions_are_shared_and_each_record_runs_once() -> None:
    bench = sync_bench(partitions=4)
    first = bench.actor()
    for partition in range(4):
        bench.feed(partition * 10, partition=partition)
    turn(bench, first, times=2)
    second = bench.actor()
    turn(bench, first, second, times=4)
    shares = [inputs_of(actor) for actor in (first, second)]
    assert [len(share) for share in shares] == [2, 2]
    for partition in range(4):
        bench.feed(partition * 10 + 1, partition=partition)
    turn(bench, first, second, times=4)
    assert sorted(bench.out()) == [0, 1, 10, 11, 20, 21, 30, 31]
    assert committed(bench) == {at(partition): 2 for partition in range(4)}


def test_a_revoke_commits_the_finished_prefix_and_the_new_owner_takes_the_rest() -> None:
    gate = Gate()
    bench = gated_bench(gate, partitions=2)
    first = bench.actor()
    for partition in (0, 1):
        bench.feed(*(f"{partition}{letter}" for letter in "abc"), partition=partition)
    gate.open("0a", "1a", "0c", "1c")
    turn(bench, first, times=1)
    second = bench.actor()
    turn(bench, first, times=1)  # revokes one: it waits for "b", in vain
    (moved,) = {at(0), at(1)} - consumer_of(first).assignment()
    assert committed(bench)[moved] == 1
    gate.open("0b", "1b")
    turn(bench, first, second, times=5)
    assert set(bench.out()) == {"0a", "0b", "0c", "1a", "1b", "1c"}
    assert committed(bench) == {at(0): 3, at(1): 3}


def test_retained_partitions_work_on_through_a_rebalance() -> None:
    gate = Gate()
    bench = gated_bench(gate, partitions=2)
    first = bench.actor()
    bench.feed("p0", partition=0)
    bench.feed("p1", partition=1)
    turn(bench, first)
    second = bench.actor()
    turn(bench, first, second, times=3)
    (kept,) = inputs_of(first)
    gate.open("p0", "p1")
    turn(bench, first, second, times=3)
    assert gate.started.count(f"p{kept.partition}") == 1
    assert sorted(bench.out()) == ["p0", "p1"]


def test_lost_partitions_are_not_committed_and_come_back_clean() -> None:
    gate = Gate()
    bench = gated_bench(gate)
    actor = bench.actor()
    bench.feed("a", "b", keys=[b"1", b"2"])
    gate.open("a")
    actor.step(0)
    bench.run()
    assert bench.out() == ["a"]
    consumer_of(actor).lose()
    commits: list[Any] = []
    commit = consumer_of(actor).commit
    consumer_of(actor).commit = cast(Any, lambda offsets, texts=None: commits.append(offsets))  # type: ignore[method-assign]
    actor.step(0)
    assert commits == []
    consumer_of(actor).commit = commit  # type: ignore[method-assign]
    gate.open("b")
    turn(bench, actor, times=4)
    assert committed(bench) == {at(): 2}
    assert bench.out()[-2:] == ["a", "b"]


def test_records_that_were_polled_together_with_the_loss_of_their_partition_are_not_run() -> None:
    """librdkafka may give records in the same call in which it says that their partition is gone."""
    bench = sync_bench()
    actor = bench.actor()
    turn(bench, actor)
    poll = consumer_of(actor).poll

    def late(count: int, timeout: float) -> Any:
        messages = poll(count, timeout)
        actor.on_lost([at()])
        return messages

    consumer_of(actor).poll = cast(Any, late)  # type: ignore[method-assign]
    bench.feed(1, 2)
    turn(bench, actor, times=3)
    assert (bench.out(), committed(bench)) == ([], {})


def test_a_rewind_of_an_assignment_that_is_gone_does_not_move_the_next_one() -> None:
    """Outputs are refused, and before the actor has looked the partition is lost, taken on by another, and back."""
    gate = Gate()
    bench = gated_bench(gate)
    actor = bench.actor()
    bench.feed("a", "b")
    gate.open("a", "b", "c")
    turn(bench, actor, times=3)
    assert committed(bench) == {at(): 2}
    bench.feed("c", "d", keys=[b"1", b"2"])
    bench.clients.fail_next_delivery("t.work")
    actor.step(0)
    bench.run()  # "c" is refused: the loop asks for a rewind to 2
    consumer_of(actor).lose()
    bench.clients._state.group(GROUP).offsets[at()] = 4  # the other owner got on, and left
    bench.feed("e")
    gate.open("e")
    turn(bench, actor, times=6)
    assert committed(bench) == {at(): 5}
    assert bench.out()[-1] == "e"
    assert gate.started.count("c") == 1
    assert actor.task.idle()


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(["feed", "join", "leave", "kill", "lose", "turn", "refuse"]), max_size=25),
    st.booleans(),
)
def test_whatever_a_group_goes_through_nothing_is_lost_and_the_lag_goes_to_nothing(
    events: list[str], asynchronous: bool
) -> None:
    async def later(value: int) -> int:
        await asyncio.sleep(0.03 * (value % 3))
        return value

    bench = Bench(lambda s: s.map(later if asynchronous else (lambda v: v), name="work"), partitions=3)
    actors, fed = [bench.actor()], 0
    for event in events:
        match event:
            case "feed":
                bench.feed(fed, fed + 1, fed + 2, keys=[b"%d" % (fed + n) for n in range(3)])
                fed += 3
            case "join" if len(actors) < 3:
                actors.append(bench.actor())
            case "leave" if len(actors) > 1:
                leaving = actors.pop(0)
                leaving.stop(5.0)
                leaving.run(lambda actor: pytest.fail(f"failed: {actor.failure}"))
            case "kill":
                consumer_of(actors.pop(0)).abandon()
                actors = actors or [bench.actor()]
            case "lose":
                consumer_of(actors[0]).lose()
            case "refuse":
                bench.clients.fail_next_delivery("t.work")
        turn(bench, *actors)
    turn(bench, *actors, times=30)
    assert set(bench.out()) == set(range(fed))
    ends = bench.clients.admin().end_offsets([at(number) for number in range(3)])
    assert all(committed(bench).get(partition, 0) == end for partition, end in ends.items())


@pytest.mark.parametrize(("interval", "seconds"), [(300.0, 5.0), (8.0, 2.0)])
def test_a_revoke_waits_no_longer_than_a_quarter_of_the_time_between_two_polls(interval: float, seconds: float) -> None:
    gate = Gate()
    bench = gated_bench(gate, partitions=2)
    actor = bench.actor()
    consumer_of(actor).max_poll_interval = interval
    turn(bench, actor, times=2)
    bench.feed(0, partition=0)
    bench.feed(1, partition=1)
    turn(bench, actor, times=2)
    assert len(gate.held) == 2
    before = bench.clock.monotonic()
    bench.actor()  # takes one of the two
    actor.step(0)
    assert seconds <= bench.clock.monotonic() - before < seconds + 0.1
