"""What ``sage topics`` does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage.errors import NotFound, RecordTooLarge, SageError, TransientFailure
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.operations.reading import follow, partitions_of, read_last
from sage.ports import Admin, DeliveryFailure, KafkaClients, RawMessage, TopicSpec


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """A topic and how many records its partitions hold."""

    name: str
    partitions: int
    replication_factor: int
    records: int
    id: str


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """One partition: its offsets, and the lag of each group that reads it."""

    partition: int
    start: int
    end: int
    lag: Mapping[str, int]

    @property
    def records(self) -> int:
        """Offsets between start and end; markers of transactions count."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Produced:
    """Where one record went."""

    partition: int
    offset: int


def list_topics(clients: KafkaClients, *, internal: bool = False) -> list[TopicSummary]:
    """Every topic by name; ``internal`` includes Kafka's and SAGE's own (``__...``)."""
    admin = clients.admin()
    try:
        infos = [info for info in admin.list_topics() if internal or not info.name.startswith("__")]
        partitions = [TopicPartition(info.name, number) for info in infos for number in range(info.partitions)]
        starts, ends = admin.start_offsets(partitions), admin.end_offsets(partitions)
        counts = dict.fromkeys((info.name for info in infos), 0)
        for one in partitions:
            counts[one.topic] += ends[one] - starts[one]
        return [
            TopicSummary(info.name, info.partitions, info.replication_factor, counts[info.name], info.topic_id)
            for info in sorted(infos, key=lambda info: info.name)
        ]
    finally:
        admin.close()


def describe(clients: KafkaClients, topic: str) -> list[PartitionSummary]:
    """The partitions of ``topic`` with the lag of every group that has committed there.

    Raises:
        NotFound: there is no such topic.
    """
    admin = clients.admin()
    try:
        partitions = partitions_of(admin, topic)
        starts, ends = admin.start_offsets(partitions), admin.end_offsets(partitions)
        committed = _committed(admin, partitions)
        summaries = []
        for one in partitions:
            lag = {group: max(0, ends[one] - offsets[one]) for group, offsets in committed.items() if one in offsets}
            summaries.append(PartitionSummary(one.partition, starts[one], ends[one], lag))
        return summaries
    finally:
        admin.close()


def create(
    clients: KafkaClients, topic: str, *, partitions: int, replication_factor: int, config: Mapping[str, str]
) -> bool:
    """Make a topic; false when it is already there, which changes nothing."""
    admin = clients.admin()
    try:
        spec = TopicSpec(topic, partitions, replication_factor, config)
        return bool(admin.create([spec]))
    finally:
        admin.close()


def tail(
    clients: KafkaClients, topic: str, *, count: int | None, partition: int | None = None, forever: bool = False
) -> Iterator[RawMessage]:
    """The last ``count`` records of a topic (``None``: all) in order of time; with ``forever`` those to come too.

    Raises:
        NotFound: there is no such topic or partition.
    """
    admin = clients.admin()
    try:
        partitions = partitions_of(admin, topic)
        if partition is not None:
            partitions = [one for one in partitions if one.partition == partition]
            if not partitions:
                raise _no_partition(topic, partition)
        read, ends = read_last(clients, admin, partitions, count)
    finally:
        admin.close()
    found = sorted(read, key=_time)
    yield from found if count is None else found[-count or len(found) :]
    if forever:
        yield from follow(clients, ends)


def produce(
    clients: KafkaClients,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    *,
    headers: Headers = (),
    partition: int = -1,
    timeout: float = 30.0,
) -> list[Produced]:
    """Write (key, value) pairs to an existing topic; returns where each went, in order.

    Raises:
        NotFound: there is no such topic, or no such partition.
        RecordTooLarge: a record is over the broker's limit.
        TransientFailure: the broker did not take all of them.
    """
    admin = clients.admin()
    try:
        partitions = partitions_of(admin, topic, advice=f"make it with `sage topics create {topic}`")
    finally:
        admin.close()
    if partition >= len(partitions):
        raise _no_partition(topic, partition)
    producer = clients.producer()
    results: list[Produced | DeliveryFailure | None] = []
    try:
        for key, value in records:
            results.append(None)
            report = _reporter(results, len(results) - 1)
            while True:
                try:
                    producer.produce(topic, value, key, list(headers), None, partition, report)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush(timeout)
    finally:
        producer.close()
    return _checked(topic, results)


def _no_partition(topic: str, partition: int) -> NotFound:
    return NotFound(f"has no partition {partition}; see `sage topics describe {topic}`", where=f"topic {topic}")


def as_dict(message: RawMessage) -> dict[str, Any]:
    """A record as plain JSON: values that are JSON decoded, other text as text, the rest in hexadecimal."""
    kind, timestamp = message.timestamp()
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": timestamp if kind else None,
        "key": _text(message.key()),
        "value": _value(message.value()),
        "headers": [[name, _text(value)] for name, value in message.headers() or ()],
    }


def _committed(admin: Admin, partitions: Sequence[TopicPartition]) -> dict[str, dict[TopicPartition, int]]:
    found = {}
    for group in sorted(admin.list_groups()):
        offsets = {one: offset for one, offset in admin.committed(group, partitions).items() if offset is not None}
        if offsets:
            found[group] = offsets
    return found


def _reporter(results: list[Produced | DeliveryFailure | None], index: int) -> Any:
    def report(failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        results[index] = failure or Produced(partition, offset)

    return report


def _checked(topic: str, results: Sequence[Produced | DeliveryFailure | None]) -> list[Produced]:
    done = [result for result in results if isinstance(result, Produced)]
    if len(done) == len(results):
        return done
    failure = next((result for result in results if isinstance(result, DeliveryFailure)), None)
    reason = failure.reason if failure is not None else "no answer in time"
    message = f"topic {topic}: {len(done)} of {len(results)} records written; {reason}"
    error: type[SageError] = RecordTooLarge if failure is not None and failure.too_large else TransientFailure
    raise error(message)


def _time(message: RawMessage) -> tuple[int, int, int]:
    return message.timestamp()[1], message.partition(), message.offset()


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"


def _value(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return _text(data)
