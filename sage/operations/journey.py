"""Where records went: watching the topics of a topology, and putting each record's places in order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage.errors import SageError
from sage.model.identity import SAGE_ID
from sage.model.partition import TopicPartition
from sage.ports import KafkaClients, RawMessage

_PAUSE = 0.05
_EARLIEST = -2


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record seen on a topic; ``seen`` is monotonic seconds, and ``value`` the decoded JSON where it is any."""

    record_id: str
    topic: str
    partition: int
    offset: int
    seen: float
    value: Any = None

    def __str__(self) -> str:
        return f"{self.topic} {self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Journey:
    """One record's way through the topics, in the topology's order."""

    record_id: str
    sightings: tuple[Sighting, ...]

    @property
    def last_value(self) -> Any:
        """The value where the record was seen last."""
        return self.sightings[-1].value

    def hops(self) -> Iterator[tuple[Sighting, float | None]]:
        """Each place with the seconds since the one before; ``None`` for the first."""
        before: Sighting | None = None
        for sighting in self.sightings:
            yield sighting, None if before is None else max(0.0, sighting.seen - before.seen)
            before = sighting


@dataclass
class Watch:
    """Reads topics in a thread while others write them, and notes when each record was seen.

    The topics need not be there yet. Times are those at which a reader sees a record, so they hold the waiting in
    front of a step as well as its work.
    """

    clients: KafkaClients
    topics: Sequence[str]
    sightings: list[Sighting] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, name="sage-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        consumer = self.clients.consumer(None)
        try:
            assigned: set[str] = set()
            while not self._stop.is_set():
                if len(assigned) < len(self.topics):
                    assigned = self._assign(consumer, assigned)
                for message in consumer.poll(500, _PAUSE) if assigned else self._wait():
                    self._note(message)
            for message in consumer.poll(500, _PAUSE):
                self._note(message)
        except SageError:
            # The broker ended before the watch did: what was seen until then stays.
            return
        finally:
            consumer.close()

    def _wait(self) -> Sequence[RawMessage]:
        self._stop.wait(_PAUSE)
        return ()

    def _assign(self, consumer: Any, assigned: set[str]) -> set[str]:
        admin = self.clients.admin()
        try:
            there = admin.describe(self.topics)
        finally:
            admin.close()
        if set(there) == assigned:
            return assigned
        places = [TopicPartition(name, number) for name, info in there.items() for number in range(info.partitions)]
        read = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in self.sightings}
        consumer.assign({place: read.get(place, _EARLIEST) for place in places})
        return set(there)

    def _note(self, message: RawMessage) -> None:
        seen = time.monotonic()
        headers: Mapping[str, bytes | None] = dict(message.headers() or ())
        record_id = (headers.get(SAGE_ID) or b"").decode(errors="replace")
        place = message.topic(), message.partition(), message.offset()
        self.sightings.append(Sighting(record_id, *place, seen, _json(message.value())))


def journeys(sightings: Sequence[Sighting], topics: Sequence[str]) -> list[Journey]:
    """The way of each record, in the order in which they entered; ``topics`` in the topology's order."""
    by_id: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        if sighting.record_id:
            by_id.setdefault(sighting.record_id, []).append(sighting)
    order = {topic: index for index, topic in enumerate(topics)}
    found = [
        Journey(record_id, tuple(sorted(places, key=lambda one: order[one.topic])))
        for record_id, places in by_id.items()
    ]
    return sorted(found, key=lambda journey: (journey.sightings[0].partition, journey.sightings[0].offset))


def _json(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return None
