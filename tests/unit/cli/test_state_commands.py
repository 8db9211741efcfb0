"""``sage state show`` on a broker in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from sage import app
from sage.ports import KafkaClients, TopicSpec
from sage.testing.broker import InMemoryClients
from tests.unit.cli.conftest import Sage


@dataclass(frozen=True)
class Brokers:
    """What ``app.brokers`` finds."""

    found: KafkaClients

    def clients(self, extra: Mapping[str, Any] | None = None) -> KafkaClients:
        del extra
        return self.found


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> InMemoryClients:
    made = InMemoryClients()
    monkeypatch.setattr(app, "brokers", lambda *_: Brokers(made))
    made.admin().create([TopicSpec("shop.count.changelog", 1)])
    producer = made.producer()
    entries: list[tuple[bytes, bytes | None]] = [
        (b"ann", b'{"t":{"late":90000},"s":{"n":2,"name":"\xc3\xa4"}}'),
        (b"\xff\x00", b'{"s":{"n":7}}'),
        (b"gone", b'{"s":{"n":1}}'),
        (b"gone", None),
    ]
    for key, value in entries:
        producer.produce("shop.count.changelog", value, key, timestamp=1_700_000_000_000)
    assert producer.flush(5) == 0
    return made


def test_what_is_kept_for_a_key(sage: Sage, clients: InMemoryClients) -> None:
    found = sage("state", "show", "shop", "count", "ann")
    assert found.code == 0
    assert found.out.splitlines() == [
        "key        ann",
        'state      {"n": 2, "name": "ä"}',
        "timers     late at 1970-01-01T00:01:30+00:00",
        "changed    2023-11-14T22:13:20+00:00",
        "changelog  partition 0, offset 0",
    ]


def test_as_json_with_a_key_that_is_no_text(sage: Sage, clients: InMemoryClients) -> None:
    entry = json.loads(sage("state", "show", "shop", "count", "0xff00", "-o", "json").out)
    assert (entry["key"], entry["state"], entry["is_forgotten"]) == ("0xff00", {"n": 7}, False)
    assert "0xff00" in sage("state", "show", "shop", "count", "0xff00").out


def test_what_was_forgotten(sage: Sage, clients: InMemoryClients) -> None:
    assert "state      forgotten" in sage("state", "show", "shop", "count", "gone").out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("shop", "count", "bob"), 4, "key 'bob' never had any state"),
        (("shop", "other", "ann"), 4, "step \"other\" of 'shop' keeps no state"),
        (("shop", "count", "ann", "--partition", "3"), 4, "has no partition 3"),
        (("shop", "count", "0xzz"), 2, "is not hexadecimal"),
        (("shop", "count"), 2, "for example `sage state show shop count ann`"),
    ],
)
def test_what_is_not_there(sage: Sage, clients: InMemoryClients, words: tuple[str, ...], code: int, says: str) -> None:
    found = sage("state", "show", *words)
    assert (found.code, found.out) == (code, "")
    assert says in found.err
