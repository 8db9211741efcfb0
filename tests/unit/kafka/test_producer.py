"""The size of a record as the producer reckons it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import RecordTooLarge
from sage.kafka.clients import ConfluentClients
from sage.kafka.producer import ConfluentProducer, encoded_size
from sage.model.record import Headers
from tests.support.waiting import wait_until


def zigzag(value: int) -> int:
    """Bytes of a Kafka varint."""
    value = value << 1
    return max(1, (value.bit_length() + 6) // 7)


def true_size(value: bytes | None, key: bytes | None, headers: Headers) -> int:
    """A record batch (magic 2) of this one record, byte by byte as the protocol lays it out."""
    body = 1 + zigzag(0) + zigzag(0)
    for part in (key, value):
        body += 1 if part is None else zigzag(len(part)) + len(part)
    body += zigzag(len(headers))
    for name, content in headers:
        body += zigzag(len(name.encode())) + len(name.encode())
        body += 1 if content is None else zigzag(len(content)) + len(content)
    return 61 + zigzag(body) + body


optional_bytes = st.none() | st.binary(max_size=300)


@given(optional_bytes, optional_bytes, st.lists(st.tuples(st.text(max_size=20), optional_bytes), max_size=5))
def test_the_reckoned_size_is_never_below_the_true_one(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    reckoned = encoded_size(value, key, headers)
    assert 0 <= reckoned - true_size(value, key, headers) <= 40 + 10 * len(headers)


@pytest.fixture
def producer() -> ConfluentProducer:
    return ConfluentClients("localhost:1").producer(config={"message.max.bytes": 1000})


def test_a_name_of_wide_characters_is_measured_in_bytes(producer: ConfluentProducer) -> None:
    producer.produce("t", b"x" * 700, headers=[("h" * 150, b"")])
    with pytest.raises(RecordTooLarge, match=r"message\.max\.bytes=1000"):
        producer.produce("t", b"x" * 700, headers=[("資" * 150, b"")])
    producer.close(0)


def test_closing_without_a_broker_drops_what_is_queued_and_does_not_hang(producer: ConfluentProducer) -> None:
    producer.produce("t", b"x")
    assert len(producer) >= 1
    producer.close(0.1)
    # The length counts connection errors too, which keep coming until they are polled.
    wait_until(lambda: producer.poll(0.01) == 0 and len(producer) == 0, what="nothing is queued any more")
