"""Offsets that a broker has no record for. librdkafka would go back to the log's start, or skip, without a word."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException

from sage.errors import StageStopped
from sage.model.partition import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 60.0
"""Seconds for which a log may end before what was read of it: brokers that come back don't know their end at once."""

_PAUSE: Final = 0.2
"""Seconds between two fetches of an offset that is not there yet."""

_ASK_TIMEOUT: Final = 1.0


class OutOfRange:
    """Decides where a member of a group fetches on.

    Args:
        consumer: asked for the log's bounds.
        read_from: where to start where no offset is committed.
    """

    def __init__(
        self,
        consumer: confluent_kafka.Consumer,
        read_from: Literal["earliest", "latest"],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._start = OFFSET_BEGINNING if read_from == "earliest" else OFFSET_END
        self._now = now
        self._beyond: dict[TopicPartition, tuple[float, float]] = {}

    def resume_at(self, where: TopicPartition, offset: int | None) -> int:
        """The offset to fetch next, after ``offset`` could not be fetched; ``None``: nothing is committed.

        Raises:
            StageStopped: the records there are gone.
        """
        if offset is None or offset < 0:
            return self._start
        try:
            low, high = self._consumer.get_watermark_offsets(_at(where), timeout=_ASK_TIMEOUT, cached=False)
        except KafkaException:  # it is away; the next fetch asks again
            return offset
        if offset < low:
            raise StageStopped(
                f"{low - offset} records of {where} were dropped by the broker before this step read them (it was at "
                f"{offset}, the log starts at {low}); raise the topic's retention"
            )
        if offset > high:
            self._wait_for(where, offset, high)
        return offset

    def _wait_for(self, where: TopicPartition, offset: int, high: int) -> None:
        now = self._now()
        since, last = self._beyond.get(where, (now, now))
        if now - last > PATIENCE / 2:  # another time
            since = now
        if now - since > PATIENCE:
            raise StageStopped(
                f"the log of {where} ends at {high}, and was read up to {offset}: the brokers lost records, and new "
                "ones in their place would not be read"
            )
        self._beyond[where] = (since, now)
        time.sleep(_PAUSE)


def _at(where: TopicPartition) -> confluent_kafka.TopicPartition:
    return confluent_kafka.TopicPartition(where.topic, where.partition)
