"""What a worker says reaches the topic, and never holds the worker up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.names import ControlTopics
from sage.cluster.status import StageStatus, TopologyStatus, WorkerStatus
from sage.cluster.worker.publisher import AFFIRM_EVERY, Publisher
from sage.testing.broker import InMemoryClients

TOPICS = ControlTopics("test")
WORD = TopologyStatus("w", "qa", (StageStatus("s", 1, "running", read=5),))


@pytest.fixture
def clients() -> InMemoryClients:
    made = InMemoryClients()
    ensure_control_topics(made, TOPICS)
    return made


def words(clients: InMemoryClients) -> list[bytes]:
    return [message.key() or b"" for message in clients.messages(TOPICS.status)]


def test_every_beat_is_sent_however_soon_the_last_one_was_answered(clients: InMemoryClients) -> None:
    publisher = Publisher(clients, TOPICS)
    for seen in range(5):
        publisher.beat(WorkerStatus("w", seen=seen))
    assert words(clients) == [b"w"] * 5
    assert publisher.heard_at > 0


def test_beats_do_not_pile_up_while_the_brokers_are_away(clients: InMemoryClients) -> None:
    publisher = Publisher(clients, TOPICS)
    with clients.deliveries_held():
        for seen in range(50):
            publisher.beat(WorkerStatus("w", seen=seen))
    publisher.beat(WorkerStatus("w", seen=50))
    assert len(words(clients)) <= 2


def test_a_word_is_said_when_it_changed_and_numbers_now_and_then(
    clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("sage.cluster.worker.publisher.time.monotonic", lambda: now[0])
    publisher = Publisher(clients, TOPICS)
    publisher.say(WORD)
    publisher.say(WORD)
    publisher.say(replace(WORD, stages=(replace(WORD.stages[0], read=6),)))
    assert len(words(clients)) == 1
    now[0] += 5.1
    publisher.say(replace(WORD, stages=(replace(WORD.stages[0], read=7),)))
    assert len(words(clients)) == 2
    publisher.say(replace(WORD, stages=(replace(WORD.stages[0], state="paused"),)))
    assert len(words(clients)) == 3
    now[0] += AFFIRM_EVERY + 0.1
    publisher.say(replace(WORD, stages=(replace(WORD.stages[0], state="paused"),)))
    assert len(words(clients)) == 4


def test_a_word_says_for_how_long_its_stages_have_had_these_partitions(
    clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("sage.cluster.worker.publisher.time.monotonic", lambda: now[0])
    publisher = Publisher(clients, TOPICS)

    def said(after: float, **changes: Any) -> float:
        now[0] += after
        publisher.say(replace(WORD, stages=(replace(WORD.stages[0], **changes),)))
        return TopologyStatus.decode(clients.messages(TOPICS.status)[-1].value() or b"").settled

    assert said(0.0, partitions=("in:0", "in:1")) == 0.0
    assert said(40.0, partitions=("in:0", "in:1"), read=9, problem="slow") == 40.0
    assert said(1.0, partitions=("in:0",)) == 0.0
    assert said(2.0, partitions=("in:0",), problem="again") == 2.0
    publisher.silence("w", "qa")
    assert said(50.0, partitions=("in:0",)) == 0.0


def test_numbers_that_have_come_to_rest_are_said_within_a_second(
    clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("sage.cluster.worker.publisher.time.monotonic", lambda: now[0])

    def word(read: int) -> TopologyStatus:
        return replace(WORD, stages=(replace(WORD.stages[0], read=read, since=1, steps={"s": (read, read, 0, 0, 0)}),))

    publisher = Publisher(clients, TOPICS)
    for read in (0, 5, 9):  # they move
        publisher.say(word(read))
    publisher.say(word(9))
    assert len(words(clients)) == 1, "a moment is no rest"
    for _ in range(3):
        now[0] += 1.0
        publisher.say(word(9))
    assert len(words(clients)) == 2
    view = ClusterView(clients, TOPICS)
    view.read_to_end()
    assert view._seen["w"].topologies["qa"].stages == word(9).stages
    view.close()


def test_goodbye_leaves_nothing_behind(clients: InMemoryClients) -> None:
    publisher = Publisher(clients, TOPICS)
    publisher.beat(WorkerStatus("w"))
    publisher.say(WORD)
    view = ClusterView(clients, TOPICS)
    view.read_to_end()
    assert view.live["w"].topologies["qa"] == WORD
    publisher.goodbye("w", 5.0)
    view.read_to_end()
    assert view.workers == {}
    view.close()
