"""``sage dlq`` on a broker in memory: what is printed in which format, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from ruamel.yaml import YAML

from sage import app
from sage.operations.replay_choice import MAX_REPLAYS
from sage.testing.broker import InMemoryClients
from tests.unit.cli.conftest import Sage
from tests.unit.cli.memory_broker import Brokers
from tests.unit.operations.letters import bury, letter_headers, retry_topics, values


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> InMemoryClients:
    made = InMemoryClients()
    monkeypatch.setattr(app, "brokers", lambda *_: Brokers(made))
    retry_topics(made)
    bury(made, b'{"query": "1"}')
    bury(made, b'{"query": "2"}', letter_headers(error="sage.errors.TransientFailure", message="no answer"))
    bury(made, b'{"query": "3"}')
    return made


def test_list_takes_a_filter_and_shows_replays(sage: Sage, clients: InMemoryClients) -> None:
    found = sage("dlq", "list", "qa", "--filter", "error=Trans*", "-o", "json")
    (letter,) = json.loads(found.out)
    assert (letter["id"], letter["stage"], letter["replays"]) == ("0:1", "generate", 0)
    assert "REPLAYS" in sage("dlq", "list", "qa", "-o", "wide").out


def test_a_dry_run_is_a_histogram_of_reasons(sage: Sage, clients: InMemoryClients) -> None:
    found = sage("dlq", "replay", "qa", "--dry-run")
    assert found.code == 0
    assert found.out.splitlines() == [
        "COUNT  REASON",
        "    2  KeyError at step generate",
        "    1  TransientFailure at step generate",
        "",
        "COUNT  TO",
        "    3  qa.generate.retry",
    ]
    assert found.err == "3 would be replayed\n"
    assert values(clients) == []


def test_replay_writes_the_chosen_ones_and_says_how_many(sage: Sage, clients: InMemoryClients) -> None:
    found = sage("dlq", "replay", "qa", "--filter", "KeyError", "--max", "1", "-o", "json")
    report = json.loads(found.out)
    assert (found.code, report["replayed"], report["topics"]) == (0, 1, {"qa.generate.retry": 1})
    assert values(clients) == [b'{"query": "1"}']
    again = YAML(typ="safe").load(sage("dlq", "replay", "qa", "-o", "yaml").out)
    assert again["replayed"] == 2
    done = sage("dlq", "replay", "qa")
    assert (done.code, done.out, done.err) == (0, "", "0 replayed\n")


def test_a_letter_that_cannot_be_replayed_is_exit_code_1(sage: Sage, clients: InMemoryClients) -> None:
    bury(clients, b"?", letter_headers(step="gone"))
    found = sage("dlq", "replay", "qa")
    assert found.code == 1
    assert "3 replayed" in found.err
    assert "1 can't be replayed: topic qa.gone.retry does not exist" in found.err


def test_letters_replayed_too_often_are_named(sage: Sage, clients: InMemoryClients) -> None:
    bury(clients, b"?", letter_headers(replays=1))
    found = sage("dlq", "replay", "qa", "--max-replays", "1")
    assert (found.code, values(clients)) == (0, [b'{"query": "1"}', b'{"query": "2"}', b'{"query": "3"}'])
    assert "1 stay: replayed 1 times already (--max-replays)" in found.err


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_batch(
    sage: Sage, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch, asked: signal.Signals, code: int
) -> None:
    make = InMemoryClients.producer

    def producer(self: InMemoryClients, **options: Any) -> Any:
        made = make(self, **options)
        begin = made.begin_transaction

        def interrupted() -> None:
            begin()
            os.kill(os.getpid(), asked)

        monkeypatch.setattr(made, "begin_transaction", interrupted)
        return made

    monkeypatch.setattr(InMemoryClients, "producer", producer)
    found = sage("dlq", "replay", "qa", "--rate", "0.1", "-o", "json")
    report = json.loads(found.out)
    assert (found.code, report["replayed"], report["interrupted"]) == (code, 1, True)
    assert values(clients) == [b'{"query": "1"}']


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max", "0"), "--max is 1 or more"),
        (("--rate", "0"), "--rate is 0.01 or more"),
        (("--max-replays", "0"), "--max-replays is 1 or more"),
    ],
)
def test_senseless_limits_are_refused(sage: Sage, clients: InMemoryClients, words: tuple[str, ...], says: str) -> None:
    found = sage("dlq", "replay", "qa", *words)
    assert (found.code, values(clients)) == (2, [])
    assert says in found.err


def test_an_unknown_field_is_an_error(sage: Sage, clients: InMemoryClients) -> None:
    found = sage("dlq", "replay", "qa", "--filter", "stpe=generate")
    assert (found.code, values(clients)) == (3, [])
    assert "no field 'stpe'" in found.err


def test_purge_needs_a_yes_and_tells_how_many(sage: Sage, clients: InMemoryClients) -> None:
    refused = sage("dlq", "purge", "qa")
    assert (refused.code, len(values(clients, "qa.dlq"))) == (2, 3)
    assert "Delete 3 dead letters of qa for good? Say so with --yes" in refused.err
    assert "nothing to delete" in sage("dlq", "purge", "qa", "--replayed").out
    found = sage("dlq", "purge", "qa", "--yes", "-o", "json")
    assert json.loads(found.out) == {"topology": "qa", "deleted": 3}
    assert values(clients, "qa.dlq") == []


def test_purge_refuses_what_is_no_duration(sage: Sage, clients: InMemoryClients) -> None:
    found = sage("dlq", "purge", "qa", "--older-than", "long")
    assert found.code == 2
    assert "--older-than: 'long' is not a duration" in found.err
    assert sage("dlq", "purge", "qa", "--older-than", "5", "--yes").code == 0, "a bare number is seconds, as elsewhere"


def test_a_topology_that_never_ran_is_exit_code_4(sage: Sage, clients: InMemoryClients) -> None:
    for verb in ("list", "show", "replay", "purge"):
        found = sage("dlq", verb, "other")
        assert found.code == 4
        assert "no topology named other has run" in found.err


def test_the_help_names_the_default_of_the_operation(sage: Sage) -> None:
    assert f"already stay. [{MAX_REPLAYS}]" in " ".join(sage("dlq", "replay", "--help").out.split())
