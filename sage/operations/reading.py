"""Reading a topic outside any group, for people who look into it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from sage.errors import DeadlineExceeded, NotFound
from sage.model.partition import TopicPartition
from sage.ports import Admin, Consumer, KafkaClients, RawMessage

_BATCH = 500
_WAIT = 0.2


def partitions_of(admin: Admin, topic: str, *, advice: str = "see `sage topics list`") -> list[TopicPartition]:
    """The partitions of a topic.

    Raises:
        NotFound: there is no such topic; the message ends with ``advice``.
    """
    info = admin.describe([topic]).get(topic)
    if info is None:
        raise NotFound(f"does not exist; {advice}", where=f"topic {topic}")
    return [TopicPartition(topic, number) for number in range(info.partitions)]


def read_last(
    clients: KafkaClients, admin: Admin, partitions: Sequence[TopicPartition], count: int | None
) -> tuple[list[RawMessage], dict[TopicPartition, int]]:
    """The last ``count`` records of each partition (``None``: all), and the ends up to which was read.

    Markers of transactions and aborted records take offsets too, so what lies before the end is looked through in
    steps that grow until there are enough.
    """
    first, ends = admin.start_offsets(partitions), admin.end_offsets(partitions)
    if count is None:
        return list(read_to_end(clients, first, ends)), dict(ends)
    found: dict[TopicPartition, list[RawMessage]] = {}
    open_ones, window = list(partitions), count
    while open_ones:
        starts = {where: max(first[where], ends[where] - window) for where in open_ones}
        for where in open_ones:
            found[where] = []
        for message in read_to_end(clients, starts, ends):
            found[TopicPartition(message.topic(), message.partition())].append(message)
        open_ones = [where for where in open_ones if len(found[where]) < count and starts[where] > first[where]]
        window *= 4
    return [message for where in partitions for message in found[where][-count or len(found[where]) :]], dict(ends)


def read_to_end(
    clients: KafkaClients,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    *,
    timeout: float = 30.0,
) -> Iterator[RawMessage]:
    """Every record from ``starts`` up to ``ends``, which were read before.

    Raises:
        DeadlineExceeded: nothing came for ``timeout`` seconds before the ends were reached.
    """
    missing = {one: ends[one] for one, start in starts.items() if start < ends[one]}
    if not missing:
        return
    consumer = clients.consumer(None)
    try:
        consumer.assign({one: starts[one] for one in missing})
        yield from _read(consumer, missing, timeout)
    finally:
        consumer.close()


def _read(consumer: Consumer, missing: dict[TopicPartition, int], timeout: float) -> Iterator[RawMessage]:
    deadline = time.monotonic() + timeout
    while missing:
        messages = consumer.poll(_BATCH, _WAIT)
        for message in messages:
            where = TopicPartition(message.topic(), message.partition())
            end = missing.get(where)
            if end is None or message.offset() >= end:
                missing.pop(where, None)
                continue
            yield message
            if message.offset() + 1 >= end:
                del missing[where]
        # The last offsets may be transaction markers, which are never given: the end itself is the sign.
        for where, offset in consumer.ends_reached().items():
            if offset >= missing.get(where, offset + 1):
                del missing[where]
        if messages:
            deadline = time.monotonic() + timeout
        elif missing and time.monotonic() >= deadline:
            raise DeadlineExceeded(f"{', '.join(map(str, missing))}: nothing could be read for {timeout:.0f} s")


def follow(clients: KafkaClients, starts: Mapping[TopicPartition, int]) -> Iterator[RawMessage]:
    """Every record from ``starts``, and those still to come, until the caller stops asking."""
    consumer = clients.consumer(None)
    try:
        consumer.assign(starts)
        while True:
            yield from consumer.poll(_BATCH, _WAIT)
    finally:
        consumer.close()
