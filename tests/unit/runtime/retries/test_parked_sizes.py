"""Records at the size limit that have to wait: they have no room for the headers of the retry topic."""

from __future__ import annotations

from typing import Any

import pytest

from sage.runtime.actors.actor import Actor
from sage.runtime.concurrent.async_task import AsyncTask
from sage.runtime.concurrent.turns import IN_LANE
from tests.unit.runtime.acting import committed, turn
from tests.unit.runtime.bench import Bench, at

LIMIT = 1_500
FULL = "f" * 1_370
"""A text that fits the limit in a record, and not beside the headers of the retry topic."""

GUARANTEES = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
K = b"k"


class Service:
    """What the step calls: it may be down for some numbers."""

    def __init__(self, *numbers: int) -> None:
        self.down = set(numbers)

    async def answer(self, value: dict[str, Any]) -> Any:
        if value["n"] in self.down:
            raise ConnectionError("down")
        return value["n"]


def bench_of(service: Service, **options: Any) -> Bench:
    async def call(value: dict[str, Any]) -> Any:
        return await service.answer(value)

    retry: Any = {"attempts": 1_000, "backoff": 1.0, "max_backoff": 2.0}
    return Bench(lambda s: s.map(call, name="work", concurrency=4, retry=retry), **options)


def parked(bench: Bench) -> int:
    return len(bench.clients.messages("t.work.retry"))


def pass_time(bench: Bench, actor: Actor, seconds: float) -> None:
    turn(bench, actor, seconds=0.5, times=int(seconds / 0.5))


@GUARANTEES
def test_a_record_that_does_not_fit_the_retry_topic_is_tried_in_its_lane_until_it_succeeds(guarantee: Any) -> None:
    service = Service(0)
    bench = bench_of(service, guarantee=guarantee, message_max_bytes=LIMIT)
    actor = bench.actor()
    bench.feed({"n": 0, "text": FULL}, {"n": 1}, keys=[K, K])
    pass_time(bench, actor, IN_LANE + 20)
    assert (bench.dead(), bench.out(), parked(bench)) == ([], [], 0)
    service.down.clear()
    pass_time(bench, actor, 10)
    assert (bench.out(), committed(bench)) == ([0, 1], {at(): 2})


@GUARANTEES
def test_one_that_does_not_fit_the_retry_topic_overtakes_none_of_its_key_that_is_there(guarantee: Any) -> None:
    service = Service(0)
    bench = bench_of(service, guarantee=guarantee, message_max_bytes=LIMIT)
    actor = bench.actor()
    bench.feed({"n": 0}, keys=[K])
    pass_time(bench, actor, IN_LANE + 20)
    assert parked(bench) == 1
    bench.feed({"n": 1, "text": FULL}, {"n": 2}, keys=[K, K])
    pass_time(bench, actor, 10)
    assert (bench.out(), parked(bench)) == ([], 1)
    service.down.clear()
    pass_time(bench, actor, 10)
    assert (bench.out(), bench.dead(), parked(bench)) == ([0, 1, 2], [], 1)


@GUARANTEES
def test_a_key_is_free_again_when_the_broker_did_not_take_its_record_into_the_retry_topic(guarantee: Any) -> None:
    """Its record is dead then; the key's later ones went into the retry topic for good."""
    service = Service(0)
    bench = bench_of(service, guarantee=guarantee)
    bench.clients.limit_record_size("t.work.retry", LIMIT)
    actor = bench.actor()
    bench.feed({"n": 0, "text": FULL}, keys=[K])
    deadline = bench.clock.monotonic() + 20 * IN_LANE
    while not bench.dead() and bench.clock.monotonic() < deadline:
        pass_time(bench, actor, 10)
    assert bench.dead_offsets() == [0]
    bench.feed({"n": 1}, keys=[K])
    pass_time(bench, actor, 5)
    assert (bench.out(), parked(bench)) == ([1], 0)
    assert isinstance(actor.task, AsyncTask)
    assert not actor.task._flights.parked.any
