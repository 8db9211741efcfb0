"""What this worker says: heartbeats and words on topologies, never waiting for the brokers."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Final

from sage.cluster.names import ControlTopics
from sage.cluster.status import TopologyStatus, WorkerStatus
from sage.errors import SageError
from sage.ports import DeliveryFailure, KafkaClients

logger = logging.getLogger("sage.cluster")

REPEAT_EVERY: Final = 5.0
"""Seconds after which a word on a topology whose numbers moved is said again."""

AT_REST_AFTER: Final = 0.9
"""Seconds in which numbers stand still that have come to rest: they are looked at each second."""

AFFIRM_EVERY: Final = 30.0
"""Seconds after which one whose numbers did not move is said again: it may have been lost on its way."""

_MOST_UNDER_WAY: Final = 1_000
"""Words that may wait for the brokers: while they are away there is no use in more, the newest are said later."""


class Publisher:
    """Writes to the status topic. One thread calls it.

    Attributes:
        heard_at: when, by the monotonic clock, a heartbeat last was acknowledged; 0 before the first.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics) -> None:
        self._topic = topics.status
        self._producer = clients.producer()
        self._said: dict[str, tuple[TopologyStatus, float]] = {}
        self._seen: dict[str, tuple[object, float]] = {}
        self._settled: dict[str, tuple[object, float]] = {}
        self._beat_under_way = False
        self.heard_at = 0.0

    def beat(self, status: WorkerStatus) -> None:
        """A heartbeat; left out while the last one is still under way."""
        self._producer.poll(0)
        if not self._beat_under_way:
            self._beat_under_way = True  # before it is sent: the answer may be there at once
            if not self._send(status.key, status.encode(), is_beat=True):
                self._beat_under_way = False

    def say(self, status: TopologyStatus) -> None:
        """A word on a topology: at once where anything but numbers changed, or these have come to rest; else now and
        then."""
        now, numbers = time.monotonic(), _numbers(status)
        settled = self._settled_for(status, now)
        seen, since = self._seen.get(status.topology, (None, now))
        if seen != numbers:
            self._seen[status.topology] = numbers, now
        is_at_rest = seen == numbers and now - since >= AT_REST_AFTER
        last = self._said.get(status.topology)
        if last is not None:
            is_known = _outline(last[0]) == _outline(status) and not (is_at_rest and _numbers(last[0]) != numbers)
            patience = AFFIRM_EVERY if last[0] == status else REPEAT_EVERY
            if is_known and now - last[1] < patience:
                return
        if self._send(status.key, replace(status, settled=settled).encode()):
            self._said[status.topology] = (status, now)

    def _settled_for(self, status: TopologyStatus, now: float) -> float:
        """Seconds for which it has had these stages and partitions."""
        places = _places(status)
        if self._settled.get(status.topology, (None, now))[0] != places:
            self._settled[status.topology] = places, now
        return round(now - self._settled[status.topology][1], 1)

    def silence(self, worker: str, topology: str) -> None:
        """Take the word on a topology back: nothing of it is here any more."""
        if topology in self._said and self._send(TopologyStatus(worker, topology).key, None):
            del self._said[topology]
            self._seen.pop(topology, None)
            self._settled.pop(topology, None)

    def goodbye(self, worker: str, timeout: float) -> None:
        """Take everything back, and wait up to ``timeout`` seconds for the brokers to have it."""
        for topology in list(self._said):
            self.silence(worker, topology)
        self._send(WorkerStatus(worker).key, None)
        if self._producer.flush(timeout):
            logger.info("the brokers did not take this worker's leave; it will be missed in a few seconds")

    def bury(self, worker: str, topologies: list[str]) -> None:
        """Remove what a worker left that died long ago."""
        for topology in topologies:
            self._send(TopologyStatus(worker, topology).key, None)
        self._send(WorkerStatus(worker).key, None)

    def _send(self, key: bytes, value: bytes | None, *, is_beat: bool = False) -> bool:
        if len(self._producer) >= _MOST_UNDER_WAY:
            return False
        report = self._beat_answered if is_beat else _answered
        try:
            self._producer.produce(self._topic, value, key, partition=0, on_delivery=report)
        except (SageError, BufferError) as error:  # status must not stop a worker
            logger.warning("%s not said: %s", key.decode(), error)
            return False
        self._producer.poll(0)
        return True

    def _beat_answered(self, failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        self._beat_under_way = False
        if failure is None:
            self.heard_at = time.monotonic()
        _answered(failure, partition, offset)

    def close(self) -> None:
        """Release the producer."""
        self._producer.close(1.0)


def _answered(failure: DeliveryFailure | None, partition: int, offset: int) -> None:
    del partition, offset
    if failure is not None:
        logger.info("the brokers did not take a status: %s", failure.reason)


def _outline(status: TopologyStatus) -> object:
    """What others act upon; the rest are numbers."""
    stages = [
        (each.stage, each.version, each.state, each.partitions, each.restart_number, each.problem, each.restarts)
        for each in status.stages
    ]
    return stages, status.checks


def _places(status: TopologyStatus) -> object:
    """Who does what."""
    return [(each.stage, each.version, each.state, each.partitions, each.restart_number) for each in status.stages]


def _numbers(status: TopologyStatus) -> object:
    """What its steps have counted."""
    return [(each.stage, each.since, each.steps) for each in status.stages]
