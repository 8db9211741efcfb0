"""Topics in memory, written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from sage.model.record import Headers
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients

Write = Callable[..., None]


@pytest.fixture
def clients() -> InMemoryClients:
    return InMemoryClients()


@pytest.fixture
def write(clients: InMemoryClients) -> Write:
    """``write("topic", [b"1", b"2"], partitions=2)`` makes the topic where it is missing."""

    def put(
        topic: str,
        values: Sequence[bytes | None],
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partitions: int = 1,
        partition: int = -1,
        timestamp: int | None = None,
    ) -> None:
        clients.admin().create([TopicSpec(topic, partitions)])
        producer = clients.producer()
        for index, value in enumerate(values):
            when = None if timestamp is None else timestamp + index
            producer.produce(topic, value, key, list(headers), when, partition)
        assert producer.flush(5) == 0
        producer.close()

    return put
