"""What is logged on a worker gets into the topic with whose it is, and without secrets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.log_records import LogReader, LogRecord
from sage.cluster.names import ControlTopics
from sage.cluster.worker import log_handler
from sage.cluster.worker.log_handler import TopicHandler, about
from sage.testing.broker import InMemoryClients
from tests.support.waiting import wait_until

TOPICS = ControlTopics("test")
LOGGER = logging.getLogger("sage.step.qa.ask")


@pytest.fixture
def clients() -> InMemoryClients:
    made = InMemoryClients()
    ensure_control_topics(made, TOPICS)
    return made


@pytest.fixture
def handler(clients: InMemoryClients) -> Iterator[TopicHandler]:
    made = TopicHandler(clients, TOPICS, "w1", ["hunter2", "no"])
    root = logging.getLogger("sage")
    before = root.level
    root.addHandler(made)
    root.setLevel(logging.INFO)
    yield made
    root.removeHandler(made)
    root.setLevel(before)
    made.close()


def lines(clients: InMemoryClients, count: int) -> list[LogRecord]:
    reader = LogReader(clients, TOPICS)
    found: list[LogRecord] = []

    def there() -> bool:
        found.extend(reader.poll(0.1))
        return len(found) >= count

    wait_until(there, what=f"{count} lines are there")
    reader.close()
    return found


def test_a_steps_line_is_told_by_its_logger_and_its_secrets_are_masked(
    clients: InMemoryClients, handler: TopicHandler
) -> None:
    LOGGER.warning("the key is hunter2, and that is no secret")
    (line,) = lines(clients, 1)
    assert (line.worker, line.topology, line.step, line.level) == ("w1", "qa", "ask", "warning")
    assert line.message == "the key is ***, and that is no secret"


def test_a_line_of_the_runtime_is_told_by_its_thread_or_by_what_it_says(
    clients: InMemoryClients, handler: TopicHandler
) -> None:
    runtime = logging.getLogger("sage.runtime")
    for name in ("sage-qa.ask", "sage-qa.loop", "main"):
        thread = threading.Thread(target=lambda: runtime.info("x"), name=name)
        thread.start()
        thread.join()
    runtime.info("x", extra=about("other", "tell"))
    found = [(line.topology, line.step) for line in lines(clients, 4)]
    assert sorted(found) == [("", ""), ("other", "tell"), ("qa", ""), ("qa", "ask")]


def test_a_traceback_comes_along(clients: InMemoryClients, handler: TopicHandler) -> None:
    try:
        raise ValueError("hunter2")
    except ValueError:
        LOGGER.exception("it failed")
    (line,) = lines(clients, 1)
    assert "ValueError: ***" in line.trace


def test_brokers_that_are_away_cost_lines_and_nothing_else(
    clients: InMemoryClients, handler: TopicHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_handler, "ROOM", 10)
    handler._closing.set()  # nobody sends
    handler._came.set()
    handler._thread.join(10)
    for number in range(25):
        LOGGER.info("%d", number)
    assert handler.lost == 15


def test_a_reader_knows_when_it_has_read_all_that_was_there(clients: InMemoryClients, handler: TopicHandler) -> None:
    LOGGER.info("one")
    lines(clients, 1)
    reader = LogReader(clients, TOPICS)
    wait_until(lambda: (list(reader.poll(0.1)) and False) or reader.is_at_end, what="it is at the end")
    reader.close()
