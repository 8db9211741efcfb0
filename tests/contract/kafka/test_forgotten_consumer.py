"""A consumer that nobody closed, at the garbage collector."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable

import pytest

from sage.ports import TopicSpec
from tests.support.brokers import Broker
from tests.support.kafka import Recorder, poll_until


def test_a_forgotten_consumer_leaves_its_group_and_blocks_nobody(
    broker: Broker, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    clients, topic, group = broker.clients(), unique("forgotten"), unique("g")
    clients.admin().create([TopicSpec(topic, 4)])
    listener = Recorder()
    members = [clients.consumer(group), clients.consumer(group)]
    members[0].subscribe([topic], listener)
    members[1].subscribe([topic], Recorder())
    poll_until(lambda: [len(member.assignment()) for member in members] == [2, 2], *members)
    revoked_before = len(listener.revoked)
    gone = weakref.ref(members[0])
    with caplog.at_level(logging.WARNING, logger="sage.kafka.consumer"):
        del members[0]
        gc.collect()
    assert gone() is None
    assert "was not closed" in caplog.text
    assert len(listener.revoked) == revoked_before
    poll_until(lambda: len(members[0].assignment()) == 4, *members)
    members[0].close()
