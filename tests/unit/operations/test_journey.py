"""Where records went, seen from outside."""

from __future__ import annotations

import time
from collections.abc import Callable

from sage.operations.journey import Journey, Sighting, Watch, journeys
from sage.testing.broker import InMemoryClients
from tests.unit.operations.conftest import Write

TOPICS = ("qa.questions", "qa.answers")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_topics_that_come_later_are_watched_from_their_beginning(clients: InMemoryClients, write: Write) -> None:
    with Watch(clients, TOPICS) as watch:
        write("qa.questions", [b'"why?"'], headers=[("sage.id", b"r1")])
        wait_for(lambda: len(watch.sightings) == 1)
        write("qa.answers", [b'{"query": "why?", "answer": "so"}'], headers=[("sage.id", b"r1")])
        wait_for(lambda: len(watch.sightings) == 2)
        write("qa.questions", [b"not json"], headers=[("sage.id", b"r2")])
        wait_for(lambda: len(watch.sightings) == 3)
    first, second = journeys(watch.sightings, TOPICS)
    assert [str(sighting) for sighting, _ in first.hops()] == ["qa.questions 0:0", "qa.answers 0:0"]
    assert first.last_value == {"query": "why?", "answer": "so"}
    assert second.last_value is None


def test_the_time_of_a_hop_is_that_between_two_topics() -> None:
    way = Journey(
        "r", (Sighting("r", "a", 0, 0, 10.0), Sighting("r", "b", 0, 4, 10.25), Sighting("r", "c", 0, 4, 10.2))
    )
    assert [waited for _, waited in way.hops()] == [None, 0.25, 0.0]


def test_records_are_told_in_the_order_in_which_they_entered() -> None:
    seen = [
        Sighting("b", "t", 0, 1, 1.0),
        Sighting("a", "u", 0, 0, 4.0),
        Sighting("a", "t", 0, 0, 2.0),
        Sighting("", "t", 0, 2, 3.0),
    ]
    ways = journeys(seen, ["t", "u"])
    assert [way.record_id for way in ways] == ["a", "b"]
    assert [one.topic for one in ways[0].sightings] == ["t", "u"]
