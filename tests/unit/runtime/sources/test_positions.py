"""Where source tasks have got to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import DecodeFailure, StageStopped
from sage.model.json import Json
from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from sage.runtime.sources.positions import (
    ExhaustionWatch,
    PositionWriter,
    SourcePosition,
    load_position,
    position_key,
    run_name,
)
from sage.testing.broker import InMemoryClients

ZERO, ONE = TopicPartition("t.offsets", 0), TopicPartition("t.offsets", 1)
KEY = position_key("file", "0")


NOW = 1_700_000_000_000
AHEAD = NOW + 300_000


def made() -> InMemoryClients:
    clients = InMemoryClients()
    clients.admin().create([TopicSpec("t.offsets", 2)])
    return clients


def writer(clients: InMemoryClients, partition: TopicPartition = ZERO, key: bytes = KEY) -> PositionWriter:
    return PositionWriter(clients.producer(), partition, key)


def write_at(clients: InMemoryClients, time: int, partition: TopicPartition, position: Json) -> None:
    """Write a position as a worker does whose clock says ``time``."""
    producer = clients.producer()
    data = SourcePosition("e", position).encode()
    producer.produce(partition.topic, data, KEY, timestamp=time, partition=partition.partition)
    assert producer.flush(1.0) == 0


POSITIONS: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(max_size=8), POSITIONS, st.booleans(), st.text(max_size=5))
def test_a_position_comes_back_from_its_topic(epoch: str, position: Json, exhausted: bool, run: str) -> None:
    written = SourcePosition(epoch, position, exhausted, run)
    assert SourcePosition.decode(written.encode()) == written


def test_a_position_without_a_run_reads_as_before() -> None:
    assert SourcePosition.decode(b'{"epoch":"e","position":3,"exhausted":false}') == SourcePosition("e", 3)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"epoch":"e"}', b"3"])
def test_bytes_that_no_sage_wrote_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeFailure, match="not a source position"):
        SourcePosition.decode(data)


def test_a_key_tells_steps_and_tasks_apart() -> None:
    assert len({position_key(step, task) for step in ("a", "a-b") for task in ("0", "b-0", "")}) == 6


def test_the_last_position_of_the_task_is_loaded_and_others_are_passed_over() -> None:
    clients = made()
    assert load_position(clients, ZERO, KEY) is None
    assert writer(clients, ONE).write(SourcePosition("e", 77), 1.0)  # older: where it was before sources changed
    for position in (1, 2):
        assert writer(clients).write(SourcePosition("e", position), 1.0)
    assert writer(clients, key=position_key("other", "0")).write(SourcePosition("e", 99), 1.0)
    assert load_position(clients, ZERO, KEY) == SourcePosition("e", 2)


@pytest.mark.parametrize("own", [ZERO, ONE])
def test_a_worker_whose_clock_was_ahead_does_not_outlive_those_after_it(own: TopicPartition) -> None:
    """Read from its own partition, or from the one that it has moved away from."""
    clients = made()
    write_at(clients, AHEAD, ZERO, 1000)
    write_at(clients, NOW, ZERO, 1500)
    write_at(clients, NOW + 1_000, ZERO, 2000)
    assert load_position(clients, own, KEY) == SourcePosition("e", 2000)


@given(st.lists(st.integers(0, 2 * NOW), min_size=1, max_size=8))
def test_within_a_partition_the_higher_offset_wins_at_any_times(times: list[int]) -> None:
    clients = made()
    for number, time in enumerate(times):
        write_at(clients, time, ZERO, number)
    assert load_position(clients, ZERO, KEY) == SourcePosition("e", len(times) - 1)


@pytest.mark.parametrize("own", [ZERO, ONE])
def test_a_task_that_moved_away_and_back_goes_on_where_it_was_last(own: TopicPartition) -> None:
    clients = made()
    for number, place in enumerate((ZERO, ONE, ZERO)):
        write_at(clients, NOW + number, place, number)
        assert load_position(clients, own, KEY) == SourcePosition("e", number)


@pytest.mark.parametrize("own", [ZERO, ONE])
def test_of_several_partitions_the_times_of_their_last_positions_are_compared(own: TopicPartition) -> None:
    clients = made()
    write_at(clients, AHEAD, ZERO, 1000)
    write_at(clients, NOW, ZERO, 1500)
    write_at(clients, NOW + 1_000, ONE, 2000)
    assert load_position(clients, own, KEY) == SourcePosition("e", 2000)


def test_a_position_that_was_refused_for_now_is_not_written() -> None:
    clients = made()
    clients.fail_next_delivery("t.offsets", retriable=True)
    mine = writer(clients)
    assert mine.write(SourcePosition("e", 1), 1.0) is False
    assert mine.write(SourcePosition("e", 1), 1.0) is True
    assert load_position(clients, ZERO, KEY) == SourcePosition("e", 1)


def test_a_position_that_is_refused_for_good_stops_the_source() -> None:
    clients = made()
    clients.fail_next_delivery("t.offsets", reason="TOPIC_AUTHORIZATION_FAILED", retriable=False)
    with pytest.raises(StageStopped, match=r"t\.offsets-0 did not take a source position: TOPIC_AUTHORIZATION"):
        writer(clients).write(SourcePosition("e", 1), 1.0)


class Watching:
    """A watch over two tasks, and what they say."""

    def __init__(self, past_run: str = "") -> None:
        self.clients = made()
        self.keys = {ZERO: position_key("file", "0"), ONE: position_key("file", "1")}
        self.writers = {p: writer(self.clients, p, key) for p, key in self.keys.items()}
        self.past_run = past_run

    def start(self) -> ExhaustionWatch:
        return ExhaustionWatch(self.clients, self.keys, self.past_run)

    def say(self, partition: TopicPartition, position: Any, *, exhausted: bool, run: str = "") -> None:
        assert self.writers[partition].write(SourcePosition("e", position, exhausted, run), 1.0)


def test_a_run_waits_for_every_task() -> None:
    watching = Watching()
    watch = watching.start()
    assert not watch.exhausted(0)
    watching.say(ZERO, 3, exhausted=True)
    assert not watch.exhausted(0)
    watching.say(ONE, 1, exhausted=False)
    assert not watch.exhausted(0)
    watching.say(ONE, 2, exhausted=True)
    assert watch.exhausted(0)


def test_what_was_said_before_the_run_does_not_count() -> None:
    watching = Watching()
    for partition in (ZERO, ONE):
        watching.say(partition, 3, exhausted=True)
    assert not watching.start().exhausted(0)


def test_a_task_that_reads_on_is_waited_for_again() -> None:
    watching = Watching()
    watch = watching.start()
    watching.say(ZERO, 3, exhausted=True)
    watching.say(ZERO, 4, exhausted=False)
    watching.say(ONE, 4, exhausted=True)
    assert not watch.exhausted(0)


def test_a_word_about_the_run_before_does_not_end_this_one() -> None:
    """Tasks repeat that they are through; one that does so while the next run is ordered means the last."""
    watching = Watching(past_run=run_name("w1", 1))
    watch = watching.start()
    for partition in (ZERO, ONE):
        watching.say(partition, 3, exhausted=True, run=run_name("w1", 1))
    assert not watch.exhausted(0)
    watching.say(ZERO, 9, exhausted=True, run=run_name("w1", 2))
    watching.say(ONE, 9, exhausted=True, run=run_name("another worker", 1))
    assert watch.exhausted(0)


def test_a_topology_without_sources_is_exhausted_at_once() -> None:
    assert ExhaustionWatch(InMemoryClients(), {}).exhausted(0)
