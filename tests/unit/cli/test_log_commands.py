"""``sage topology logs`` on a broker in memory."""

from __future__ import annotations

import json
import time

import pytest

from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.log_records import LogRecord
from sage.cluster.names import ControlTopics
from sage.operations.cluster_logs import LogFilter, read_logs
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients
from tests.unit.cli import memory_broker
from tests.unit.cli.conftest import Sage

TOPICS = ControlTopics()
HOUR = 3_600_000


def write(clients: InMemoryClients, *lines: LogRecord) -> None:
    producer = clients.producer()
    for line in lines:
        producer.produce(TOPICS.logs, line.encode(), line.key, timestamp=line.time)
    assert producer.flush(5) == 0
    producer.close()


@pytest.fixture(autouse=True)
def clients(monkeypatch: pytest.MonkeyPatch) -> InMemoryClients:
    made = memory_broker.use(monkeypatch)
    ensure_control_topics(made, TOPICS)
    now = int(time.time() * 1000)
    write(
        made,
        LogRecord(now - 5 * HOUR, "info", "w1", "qa", "ask", "sage.step.qa.ask", "old"),
        LogRecord(now - 3, "info", "w1", "shop", "", "sage.cluster", "starts"),
        LogRecord(now - 2, "warning", "w2", "qa", "ask", "sage.step.qa.ask", "slow"),
        LogRecord(now - 1, "error", "w1", "qa", "say", "sage.runtime", "failed", "Traceback\n  line 1"),
        LogRecord(now, "info", "w1", "", "", "sage.cluster", "beats"),
    )
    return made


def messages(sage: Sage, *words: str) -> list[str]:
    found = sage("topology", "logs", *words, "-o", "json")
    assert found.code == 0
    return [json.loads(line)["message"] for line in found.out.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["old", "starts", "slow", "failed", "beats"]),
        (("qa",), ["old", "slow", "failed"]),
        (("qa", "-n", "2"), ["slow", "failed"]),
        (("qa", "-n", "0"), []),
        (("qa", "--since", "1h"), ["slow", "failed"]),
        (("qa", "--step", "ask"), ["old", "slow"]),
        (("--worker", "w2"), ["slow"]),
        (("--level", "warning"), ["slow", "failed"]),
        (("qa", "--since", "36500d", "--step", "say"), ["failed"]),
        (("shop", "--level", "error"), []),
        (("shop", "--worker", "w2"), []),
    ],
)
def test_lines_of_all_workers_by_time(sage: Sage, words: tuple[str, ...], expected: list[str]) -> None:
    assert messages(sage, *words) == expected


def test_what_people_see(sage: Sage) -> None:
    lines = [line.partition(" ")[2] for line in sage("topology", "logs", "qa").out.splitlines()]
    assert lines == ["info    w1 ask: old", "warning w2 ask: slow", "error   w1 say: failed"]
    assert sage("topology", "logs", "-n", "2").out.splitlines()[0].endswith("error   w1 qa.say: failed")
    assert sage("topology", "logs", "qa", "-n", "1", "-o", "wide").out.splitlines()[1:] == [
        "    Traceback",
        "      line 1",
    ]
    assert sage("topology", "logs", "qa", "-n", "0").err == "no such lines; workers keep them for a day\n"


def test_following_gives_what_comes_later(clients: InMemoryClients) -> None:
    following = read_logs(clients, TOPICS, LogFilter("qa"), count=1, forever=True)
    assert next(following).message == "failed"
    now = int(time.time() * 1000)
    write(clients, LogRecord(now, "info", "w1", "shop", "", "x", "not ours"))
    write(clients, LogRecord(now, "info", "w1", "qa", "", "x", "later"))
    assert next(following).message == "later"
    following.close()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("qa", "-n", "-1"), 2, "-n is 0 or more"),
        (("qa", "--since", "never"), 2, "topology logs: --since: 'never' is not a duration"),
        (("qa", "--level", "loud"), 2, "level"),
        (("shp",), 4, "no topology 'shp'; did you mean shop? [SAGE203]"),
        (("nope",), 4, "no topology 'nope'; topologies: qa, shop [SAGE203]"),
        (("nope", "--follow"), 4, "no topology 'nope'"),
        (("qa", "--step", "aks"), 4, "qa: no step 'aks'; did you mean ask? [SAGE203]"),
        (("shop", "--step", "ask"), 4, "shop: no step 'ask'; there are no steps [SAGE203]"),
        (("--step", "nope"), 4, "no step 'nope'; steps: ask, say [SAGE203]"),
        (("--worker", "w3"), 4, "no worker 'w3'; workers: w1, w2 [SAGE203]"),
        (("qa", "--worker", "nope"), 4, "no worker 'nope'; workers: w1, w2 [SAGE203]"),
    ],
)
def test_what_is_wrong(sage: Sage, words: tuple[str, ...], code: int, says: str) -> None:
    found = sage("topology", "logs", *words)
    assert (found.code, found.out) == (code, "")
    assert says in found.err


def test_what_is_deployed_and_has_no_lines_yet_is_no_error(sage: Sage, clients: InMemoryClients) -> None:
    clients.admin().create([TopicSpec("numbers", 1)])
    assert sage("topology", "deploy", "tests.unit.cli.pipelines:first").code == 0
    for words in (("calc",), ("calc", "--step", "work"), ("--step", "work")):
        found = sage("topology", "logs", *words)
        assert (found.code, found.out, found.err) == (0, "", "no such lines; workers keep them for a day\n"), words
    found = sage("topology", "logs", "calc", "--step", "wrk")
    assert (found.code, found.err) == (4, "calc: no step 'wrk'; did you mean work? [SAGE203]\n")


def test_where_no_worker_has_run(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_broker.use(monkeypatch)
    found = sage("topology", "logs", "qa")
    assert (found.code, found.out) == (4, "")
    assert "no worker has run here" in found.err
