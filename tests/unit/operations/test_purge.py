"""Dead letters are dropped from the oldest on, as far as was asked."""

from __future__ import annotations

import time

import pytest

from sage.errors import NotFound
from sage.operations.letter_filter import LetterFilter
from sage.operations.purge import plan_purge, purge
from sage.operations.replay import replay
from sage.operations.replay_choice import Choice
from sage.testing.broker import InMemoryClients
from tests.unit.operations.letters import bury, letter_headers, retry_topics, values


def test_all_go(clients: InMemoryClients) -> None:
    for number in range(3):
        bury(clients, b"%d" % number, transaction=True)
    planned = plan_purge(clients, "qa")
    assert planned.letters == 3
    purge(clients, planned)
    assert values(clients, "qa.dlq") == []
    assert plan_purge(clients, "qa").letters == 0


def test_letters_that_came_after_the_plan_stay(clients: InMemoryClients) -> None:
    bury(clients, b"seen")
    planned = plan_purge(clients, "qa")
    bury(clients, b"new")
    purge(clients, planned)
    assert values(clients, "qa.dlq") == [b"new"]


def test_only_what_was_replayed_without_a_gap(clients: InMemoryClients) -> None:
    retry_topics(clients)
    for number, step in enumerate(["generate", "generate", "other", "generate"]):
        bury(clients, b"%d" % number, letter_headers(step=step))
    replay(clients, "qa", Choice(LetterFilter.parse(["step=generate"])))
    planned = plan_purge(clients, "qa", replayed=True)
    assert planned.letters == 2
    purge(clients, planned)
    assert values(clients, "qa.dlq") == [b"2", b"3"]
    assert replay(clients, "qa", Choice(LetterFilter.parse(["step=generate"]))).replayed == 0  # 3 was


def test_only_the_old_ones(clients: InMemoryClients) -> None:
    now = int(time.time() * 1000)
    bury(clients, b"old", timestamp=now - 7_200_000)
    bury(clients, b"young", timestamp=now)
    purge(clients, plan_purge(clients, "qa", older_than=3600.0))
    assert values(clients, "qa.dlq") == [b"young"]


def test_nothing_to_drop_asks_nobody(clients: InMemoryClients) -> None:
    bury(clients, b"young", timestamp=int(time.time() * 1000))
    planned = plan_purge(clients, "qa", older_than=3600.0)
    assert (planned.letters, planned.before) == (0, {})
    with clients.down():
        purge(clients, planned)
    assert values(clients, "qa.dlq") == [b"young"]


def test_a_topology_that_never_ran_is_told(clients: InMemoryClients) -> None:
    with pytest.raises(NotFound, match="no topology named other has run"):
        plan_purge(clients, "other")
