"""The consumers of a named process have names; readers outside a group have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest

from sage.errors import InvalidTopology, StageStopped, TransientFailure
from sage.ports import Consumer, TopicSpec
from sage.testing.broker import InMemoryClients, InMemoryConsumer
from sage.wiring import static_members
from sage.wiring.static_members import StaticMembers
from tests.support.kafka import Recorder, poll_until


class Watched(InMemoryClients):
    """Remembers the settings of its consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[dict[str, Any]] = []

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> Any:
        self.settings.append(dict(config or {}))
        return super().consumer(group, read_from=read_from, config=config)


def test_each_group_knows_the_process_by_its_own_name() -> None:
    clients = Watched()
    named = StaticMembers(clients, "worker-1")
    made: list[Consumer] = [
        named.consumer("qa.prompt"),
        named.consumer("qa.offsets", config={"queued.min.messages": 8}),
        named.consumer(None),
    ]
    for consumer in made:
        consumer.close()
    assert clients.settings == [
        {"group.instance.id": "worker-1.qa.prompt"},
        {"queued.min.messages": 8, "group.instance.id": "worker-1.qa.offsets"},
        {},
    ]


def test_all_else_is_the_clients_own() -> None:
    clients = Watched()
    named = StaticMembers(clients, "w")
    assert (named.address, named.is_embedded) == (clients.address, clients.is_embedded)
    named.producer(transactional_id="t").close()
    assert named.admin().list_topics() == []


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b"])
def test_a_name_that_kafka_refuses_is_refused(name: str) -> None:
    with pytest.raises(InvalidTopology, match="only letters, digits"):
        StaticMembers(Watched(), name)


class Taken(InMemoryClients):
    """A group that refuses a name ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times
        self.made: list[InMemoryConsumer] = []

    def consumer(
        self,
        group: str | None,
        *,
        read_from: Literal["earliest", "latest"] = "earliest",
        config: Mapping[str, Any] | None = None,
    ) -> Any:
        made = super().consumer(group, read_from=read_from, config=config)
        self.made.append(made)
        if self.left:
            self.left -= 1
            self.fail_next_poll(TransientFailure("the instance id is still used"))
        return made


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_members, "AGAIN_AFTER", 0.0)


def test_a_name_that_is_still_taken_is_waited_for() -> None:
    clients = Taken(2)
    clients.admin().create([TopicSpec("t", 2)])
    consumer, listener = StaticMembers(clients, "w").consumer("g"), Recorder()
    consumer.subscribe(["t"], listener)
    assert consumer.poll(1, 0) == []
    poll_until(lambda: len(clients.made) == 3 and consumer.assignment(), consumer, timeout=5)
    assert [partition.partition for partition in listener.assigned[-1]] == [0, 1]
    assert consumer.assignment() == set(listener.assigned[-1])
    at = listener.assigned[0][0]
    consumer.commit({at: 3}, {at: "text"})
    assert consumer.committed([at]) == {at: 3}
    assert consumer.group_metadata() is not None
    consumer.pause([at])
    consumer.resume([at])
    consumer.seek(at, 0)
    assert consumer.ends_reached() is not None
    consumer.close()
    assert len(clients._state.group("g").members) == 0


def test_a_name_that_stays_taken_stops_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_members, "PATIENCE", -1.0)
    clients = Taken(5)
    clients.admin().create([TopicSpec("t", 1)])
    consumer = StaticMembers(clients, "w").consumer("g")
    consumer.subscribe(["t"], Recorder())
    assert consumer.poll(1, 0) == []
    with pytest.raises(StageStopped, match="give each process its own --instance-id"):
        consumer.poll(1, 0)
    consumer.close()


def test_a_name_that_was_ours_and_is_refused_later_is_waited_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait does not count from the first refusal, which may be weeks ago on a topic without records."""
    monkeypatch.setattr(static_members, "AGAIN_AFTER", 0.0)
    monkeypatch.setattr(static_members, "PATIENCE", -1.0)
    clients = InMemoryClients()
    clients.admin().create([TopicSpec("in")])
    consumer = StaticMembers(clients, "w").consumer("g")
    consumer.subscribe(["in"], Recorder())
    for _ in range(2):
        clients.fail_next_poll(TransientFailure("the name is taken"))
        assert consumer.poll(1, 0.0) == []
        assert consumer.poll(1, 0.0) == []
        assert consumer.assignment()
    consumer.close()
