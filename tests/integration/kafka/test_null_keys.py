"""Keys and values that are null, empty or falsy go through every kind of stage as they are."""

from __future__ import annotations

from typing import Any

from tests.integration.kafka.conftest import PARTITIONS, Stages
from tests.support.records import make_topic

RECORDS: list[tuple[bytes | None, bytes | None]] = [
    (None, b'{"n":1}'), (None, None), (b"", b'""'), (b"", None), (b"0", b"0"), (b"false", b"false"), (b"k", b"null"),
    (None, b'{"n":2}'), (b"k", None),
]  # fmt: skip


def test_null_keys_and_null_values_go_through_every_kind_of_stage(stages: Stages) -> None:
    clients = stages.broker.clients()
    make_topic(clients, stages.source, PARTITIONS)
    producer = clients.producer()
    for number, (key, value) in enumerate(RECORDS):
        producer.produce(stages.source, value, key, [("number", b"%d" % number)], partition=number % 2)
    assert producer.flush(30) == 0
    producer.close()
    stages.build()

    assert stages.env.run_once(60).complete

    stages.come_to_rest()
    wanted = {b"%d" % number: (key, None if value == b"null" else value) for number, (key, value) in enumerate(RECORDS)}
    for kind in ("sync", "async"):
        assert numbered(stages.written(kind)) == wanted, kind
        assert not stages.letters(kind)
    # Keyed state has no place for what has no key: it is said, and nothing is dropped.
    without_key = {number for number, (key, _) in wanted.items() if key is None}
    for kind in ("state", "async-state"):
        assert numbered(stages.written(kind)) == {n: r for n, r in wanted.items() if n not in without_key}, kind
        assert set(numbered(stages.letters(kind))) == without_key, kind


def numbered(messages: list[Any]) -> dict[bytes, tuple[bytes | None, bytes | None]]:
    """Key and value by the number in the header; fails where one is there twice."""
    found = {dict(m.headers())["number"]: (m.key(), m.value()) for m in messages}
    assert len(found) == len(messages)
    return found
