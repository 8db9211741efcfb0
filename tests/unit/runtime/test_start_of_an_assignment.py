"""Where an actor begins to read a partition that it was given: nobody is left to find that out again."""

from __future__ import annotations

from typing import Any

import pytest

from sage.model.partition import TopicPartition
from sage.runtime.actors.actor import EARLIEST
from tests.unit.runtime.acting import consumer_of, turn
from tests.unit.runtime.bench import Bench, at


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_partition_is_read_from_what_is_committed_and_the_client_need_not_ask_again(
    guarantee: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="work"), partitions=2, guarantee=guarantee)
    first = bench.actor()
    for number in range(3):
        bench.feed(number, partition=0)
    turn(bench, first, seconds=0.2, times=10)
    first.stop(1.0)
    first.run(lambda _: None)
    left = bench.clients.committed("t.work")[at(0)]

    second, starts = bench.actor(), dict[TopicPartition, int]()
    seek = consumer_of(second).seek

    def note(partition: TopicPartition, offset: int) -> None:
        starts[partition] = offset
        seek(partition, offset)

    monkeypatch.setattr(consumer_of(second), "seek", note)
    bench.feed(3, partition=0)
    turn(bench, second, seconds=0.2, times=10)
    assert starts[at(0)] == left == 3
    assert starts[at(1)] in (0, EARLIEST)
    assert bench.out() == [0, 1, 2, 3]
