"""A rebalance on Apache Kafka with work in flight: what stays works on through it, and nothing of it is done twice."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sage import LocalEnvironment
from sage.model.partition import TopicPartition
from sage.runtime.actors import actor as actor_module
from sage.runtime.actors.actor import Actor
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, make_topic, total_lag, values_of
from tests.support.waiting import wait_until

PARTITIONS = 4
KEYS = 3
"""In flight in each partition."""


class Worker:
    """One member of the stage's group, whose calls wait until they are let go.

    Attributes:
        begun: (partition, number) of each call, in the order in which they began.
        cancelled: of those that did not come to their end.
        revokes: partitions that it was asked for; ``revoking`` while it is.
    """

    def __init__(self, broker: ApacheBroker, name: str, source: str, target: str, folder: Path) -> None:
        self.begun: list[tuple[int, int]] = []
        self.cancelled: list[tuple[int, int]] = []
        self.open: set[tuple[int, int]] = set()
        self.all_open = False
        self.revokes: list[set[int]] = []
        self.revoking = threading.Event()
        self.env = LocalEnvironment(name, bootstrap_servers=broker.bootstrap_servers, data_dir=folder)
        self.env.from_topic(source).map(self._work, name="work", concurrency=64).to(target)

    async def _work(self, value: Any) -> Any:
        place = (value["at"], value["n"])
        self.begun.append(place)
        try:
            while not (self.all_open or place in self.open):  # noqa: ASYNC110 - the test opens it from its own thread
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.append(place)
            raise
        return value

    def start(self) -> Actor:
        """Join the group; it goes on by itself."""
        self.env.run_streaming(block=False)
        assert self.env._run is not None
        (actor,) = self.env._run.runner._actors
        revoked = actor.on_revoked

        def on_revoked(partitions: Sequence[TopicPartition]) -> None:
            self.revokes.append({place.partition for place in partitions if not place.topic.endswith(".retry")})
            self.revoking.set()
            try:
                revoked(partitions)
            finally:
                self.revoking.clear()

        actor.on_revoked = on_revoked  # type: ignore[method-assign]
        return actor


def test_retained_partitions_give_output_during_a_rebalance_and_none_of_their_work_is_begun_again(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_module, "REVOKE_TIMEOUT", 8.0)  # time to look into the middle of it on a busy machine
    name, source, target = unique("retained"), unique("in"), unique("out")
    clients = apache_kafka.clients()
    make_topic(clients, source, PARTITIONS)
    first, second = (Worker(apache_kafka, name, source, target, tmp_path / each) for each in ("first", "second"))
    second.all_open = True

    def written() -> Counter[tuple[int, int]]:
        return Counter((value["at"], value["n"]) for value in values_of(everything(clients, target)))

    def feed(numbers: range) -> None:
        producer = clients.producer()
        for at in range(PARTITIONS):
            for n in numbers:
                producer.produce(source, b'{"at": %d, "n": %d}' % (at, n), b"%d" % n, partition=at)
        assert producer.flush(30) == 0
        producer.close()

    with first.env, second.env:
        actor = first.start()
        feed(range(KEYS))
        wait_until(lambda: len(first.begun) == PARTITIONS * KEYS, timeout=40, what="all of it is in flight")
        second.start()
        wait_until(first.revoking.is_set, timeout=40, what="the first one is asked for some of them")
        (leaving,) = first.revokes
        kept = set(range(PARTITIONS)) - leaving
        assert len(kept) == PARTITIONS // 2

        finishing, stuck = sorted(leaving)
        early = {(at, 0) for at in kept} | {(finishing, n) for n in range(KEYS)}
        first.open |= early
        wait_until(lambda: set(written()) == early, what="what is let go comes out")
        assert first.revoking.is_set(), "in the middle of the rebalance: a record of what leaves does not end"
        assert second.begun == []

        wait_until(lambda: (stuck, 0) in second.begun, timeout=30, what="the second one has what did not end")
        feed(range(KEYS, 2 * KEYS))
        first.all_open = True
        wait_until(lambda: total_lag(clients, f"{name}.work", source, PARTITIONS) == 0, timeout=40, what="no lag")
        assert {place.partition for place in actor.assignment} == kept

    assert sorted(first.cancelled) == [(stuck, n) for n in range(KEYS)], "only what left, and did not end in time"
    assert Counter(place for place in first.begun if place[0] in kept) == Counter(
        (at, n) for at in kept for n in range(2 * KEYS)
    )
    assert {at for at, _ in second.begun} == leaving
    assert not [place for place in second.begun if place in early], "what ended in time was committed with the revoke"
    assert written() == Counter((at, n) for at in range(PARTITIONS) for n in range(2 * KEYS)), "none lost, none twice"
