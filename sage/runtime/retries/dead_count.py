"""By how many records the dead-letter topic grew, whoever wrote there: what a run's exit code looks at."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sage.errors import Unreachable
from sage.model.partition import TopicPartition
from sage.ports import KafkaClients

READ_TIMEOUT = 30.0
"""Seconds without a record before counting gives up."""


class DeadCount:
    """Counts from one call of ``growth`` to the next.

    Args:
        partitions: of the dead-letter topic; none where there is no such topic.
        has_markers: transactions write there, whose markers take offsets too: then records are read to be counted.
    """

    def __init__(self, clients: KafkaClients, topic: str, partitions: int, *, has_markers: bool) -> None:
        self._clients = clients
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._has_markers = has_markers
        self._seen = self._ends()

    def growth(self) -> int:
        """Records since the last call, or since this was made.

        Raises:
            Unreachable: they could not be read.
        """
        before, self._seen = self._seen, self._ends()
        if not self._has_markers:
            return sum(end - before[where] for where, end in self._seen.items())
        return self._records(before, {where: end for where, end in self._seen.items() if end > before[where]})

    def _ends(self) -> dict[TopicPartition, int]:
        if not self._partitions:
            return {}
        admin = self._clients.admin()
        try:
            return dict(admin.end_offsets(self._partitions))
        finally:
            admin.close()

    def _records(self, starts: Mapping[TopicPartition, int], missing: dict[TopicPartition, int]) -> int:
        if not missing:
            return 0
        count, ends = 0, dict(missing)
        consumer = self._clients.consumer(None)
        try:
            consumer.assign({where: starts[where] for where in missing})
            deadline = time.monotonic() + READ_TIMEOUT
            while missing:
                messages = consumer.poll(1_000, 0.1)
                for message in messages:
                    where = TopicPartition(message.topic(), message.partition())
                    if message.offset() < ends[where]:
                        count += 1
                    if message.offset() + 1 >= ends[where]:
                        missing.pop(where, None)
                for where, offset in consumer.ends_reached().items():
                    if offset >= missing.get(where, offset + 1):  # the last one was a marker, which nobody is given
                        del missing[where]
                if messages:
                    deadline = time.monotonic() + READ_TIMEOUT
                elif missing and time.monotonic() >= deadline:
                    raise Unreachable(f"{', '.join(map(str, missing))}: not readable to the end")
        finally:
            consumer.close()
        return count
