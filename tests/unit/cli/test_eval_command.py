"""``sage topology eval`` on a broker in memory: what is printed in which format, the exit codes, what is left."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sage.memory import MemoryManager
from sage.memory.in_memory import InMemoryVectorStore
from sage.operations import isolation
from sage.ports import TopicSpec
from sage.testing import InMemoryClients
from tests.support.waiting import wait_until
from tests.unit.cli import evaluated, memory_broker
from tests.unit.cli.conftest import Sage

HERE = "tests.unit.cli.evaluated"
GOLDEN = [
    {"id": "d", "query": "How many days?", "expected": "20 days"},
    {"id": "w", "query": "Who?", "expected": ["a director", "nobody"]},
    {"id": "y", "query": "Why?", "references": ["because"]},
    {"id": "o", "query": "Where?", "expected": "there"},
]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> InMemoryClients:
    """Every command finds one broker, which has the original's topics, with a record of somebody's."""
    made = memory_broker.use(monkeypatch)
    found = memory_broker.Brokers(made)
    monkeypatch.setattr("sage.wiring.brokers.find_brokers", lambda *_, **__: found)
    made.admin().create([TopicSpec("questions", 2), TopicSpec("answers"), TopicSpec("qa.dlq")])
    producer = made.producer()
    producer.produce("questions", b'"How many days?"')
    assert producer.flush(5) == 0
    return made


@pytest.fixture(autouse=True)
def golden(sage: Sage) -> Path:
    path = Path("golden.jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in GOLDEN), encoding="utf-8")
    evaluated.given.clear()
    return path


def evaluate(sage: Sage, *words: str, of: str = "qa") -> Any:
    return sage("topology", "eval", f"{HERE}:{of}", "--dataset", "golden.jsonl", *words)


def left(clients: InMemoryClients) -> set[str]:
    return {info.name for info in clients.admin().list_topics()} | set(clients.admin().list_groups())


def test_the_table_has_each_measure_over_all_questions_and_the_worst_answers(
    sage: Sage, clients: InMemoryClients
) -> None:
    found = evaluate(sage, "--worst", "2")
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[0].split() == ["METRIC", "MEAN", "COUNT", "MISSING", "DEAD"]
    assert lines[1].split() == ["f1", "0.500", "2", "1", "1"]
    assert [line.split()[0] for line in lines[2:5]] == ["exact_match", "rouge_l", "bleu"]
    assert lines[6] == "worst by f1:"
    assert lines[7].split() == ["LINE", "SCORE", "QUERY", "ANSWER", "EXPECTED"]
    assert "(dead: step answer: ValueError: there is no why)" in lines[8]
    assert "(missing: the output has no answer: it has id, query, expected)" in lines[9]
    assert found.err.splitlines()[-1].startswith("4 questions: 2 answered, 1 missing, 1 dead, ")


def test_the_original_is_neither_read_nor_written_and_nothing_is_left(sage: Sage, clients: InMemoryClients) -> None:
    before = left(clients)
    assert evaluate(sage).code == 0
    assert left(clients) == before
    assert clients.messages("answers") == clients.messages("qa.dlq") == []
    assert [value["query"] for value in evaluated.given] == [record["query"] for record in GOLDEN]


def test_keep_says_where_the_topics_are(sage: Sage, clients: InMemoryClients) -> None:
    before = left(clients)
    found = evaluate(sage, "--keep", "-o", "json")
    (note,) = [line for line in found.err.splitlines() if line.startswith("kept:")]
    name = note.split("begin with ")[1].split(".;")[0]
    assert {one for one in left(clients) - before if not one.startswith(f"{name}.")} == set()
    letters = sage("dlq", "list", name, "-o", "json")
    assert [letter["step"] for letter in json.loads(letters.out)] == ["answer"]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_structured_output_is_all_of_it(sage: Sage, clients: InMemoryClients, form: str) -> None:
    found = evaluate(sage, "-o", form, "--worst", "1")
    document = json.loads(found.out) if form == "json" else YAML(typ="safe").load(found.out)
    assert {name: document[name] for name in ("topology", "version", "records", "answered", "missing", "dead")} == {
        "topology": "qa", "version": 0, "records": 4, "answered": 2, "missing": 1, "dead": 1,
    }  # fmt: skip
    assert document["metrics"]["exact_match"] == {"mean": 0.5, "count": 2}
    assert [(one["line"], one["status"]) for one in document["worst"]] == [(3, "dead")]


def test_a_goal_that_is_reached_is_0_and_one_that_is_not_is_1_with_the_difference(
    sage: Sage, clients: InMemoryClients
) -> None:
    assert evaluate(sage, "--min", "f1=0.5", "--min", "bleu=0.1").code == 0
    found = evaluate(sage, "--min", "f1=0.6", "--min", "rouge_l=0.1", "-o", "json")
    assert (found.code, json.loads(found.out)["records"]) == (1, 4)
    assert found.err.splitlines()[-1] == "qa: f1 is 0.5000, 0.1000 short of 0.6 [SAGE100]"


def test_a_saved_result_is_compared_with_what_became_worse_first(
    sage: Sage, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(sage, "--save", "before.json").code == 0
    monkeypatch.setitem(evaluated.KNOWN, "How many days?", "ten")
    found = evaluate(sage, "--compare", "before.json")
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[0].split() == ["METRIC", "BEFORE", "MEAN", "CHANGE", "COUNT", "MISSING", "DEAD"]
    assert lines[6] == "worse by f1:"
    assert lines[8].split()[:4] == ["1", "-1.000", "1.000", "0.000"]
    assert lines[8].endswith("ten     20 days")
    assert "1 worse, 0 better by f1" in found.err
    document = json.loads(evaluate(sage, "--compare", "before.json", "-o", "json").out)
    assert [one["now"]["id"] for one in document["comparison"]["regressions"]] == ["d"]


def test_measures_of_the_topologys_own_can_be_asked_for(sage: Sage, clients: InMemoryClients) -> None:
    found = evaluate(sage, "--min", "short=0.5", "--by", "short", of="judged")
    assert found.code == 0, found.err
    assert any(line.split()[:2] == ["short", "0.500"] for line in found.out.splitlines())
    missing = evaluate(sage, "--min", "shrt=0.5", of="judged")
    assert missing.code == 2
    assert "did you mean short?" in missing.err


def test_as_text_gives_the_questions_alone(sage: Sage, clients: InMemoryClients) -> None:
    assert evaluate(sage, "--as-text").code == 0
    assert evaluated.given == [record["query"] for record in GOLDEN]


def test_a_deployed_topology_is_named(sage: Sage, clients: InMemoryClients) -> None:
    assert sage("topology", "deploy", f"{HERE}:qa").code == 0
    found = sage("topology", "eval", "qa", "--dataset", "golden.jsonl", "-o", "json")
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert (document["topology"], document["version"], document["answered"]) == ("qa", 1, 2)
    assert evaluated.given[0] == GOLDEN[0]


def test_what_is_not_deployed_is_4_and_a_missing_file_too(sage: Sage, clients: InMemoryClients) -> None:
    for target in ("qa", "none.yaml"):
        found = sage("topology", "eval", target, "--dataset", "golden.jsonl")
        assert (found.code, found.out) == (4, ""), found.err
    assert sage("topology", "deploy", f"{HERE}:qa").code == 0
    found = sage("topology", "eval", "qaa", "--dataset", "golden.jsonl")
    assert (found.code, "did you mean qa?" in found.err) == (4, True)
    assert evaluate(sage, "--compare", "none.json").code == 4
    Path("golden.jsonl").unlink()
    assert evaluate(sage).code == 4


def test_an_invalid_topology_is_3(sage: Sage, clients: InMemoryClients) -> None:
    Path("bad.yaml").write_text("version: 1\nname: bad\nsteps:\n  a: {source: topic, config: {topic: x}, oops: 1}\n")
    assert sage("topology", "eval", "bad.yaml", "--dataset", "golden.jsonl").code == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--min", "f1"), "--min: wants METRIC=NUMBER such as f1=0.6; found 'f1'"),
        (("--worst", "-1"), "--worst is 0 or more"),
        (("--timeout", "soon"), "--timeout: 'soon' is not a duration"),
        (("--source", "qestions"), "did you mean questions?"),
    ],
)
def test_what_is_not_understood_is_2_and_runs_nothing(
    sage: Sage, clients: InMemoryClients, words: tuple[str, ...], says: str
) -> None:
    found = evaluate(sage, *words)
    assert (found.code, found.out, evaluated.given) == (2, "", [])
    assert says in found.err


def test_a_data_set_that_is_wrong_is_2_with_its_line(sage: Sage, clients: InMemoryClients, golden: Path) -> None:
    golden.write_text('{"query": "a", "expected": "b"}\n{"query": "a"}\n')
    found = evaluate(sage)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("golden.jsonl:2: expected must be a text")
    assert "for example `sage topology eval rag-qa.yaml --dataset" in sage("topology", "eval", "rag-qa.yaml").err


def test_a_step_that_stops_ends_it_with_its_error_and_nothing_is_left(sage: Sage, clients: InMemoryClients) -> None:
    before = left(clients)
    found = evaluate(sage, of="stopping")
    assert (found.code, found.out) == (1, "")
    assert "there is no why" in found.err
    assert left(clients) == before


def test_memory_is_only_read(sage: Sage, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemoryVectorStore()
    monkeypatch.setattr(MemoryManager, "_connected", lambda self: store)
    found = evaluate(sage, of="remembering")
    assert (found.code, "this run only reads memory" in found.out) == (0, True), found.err
    assert store.list() == []


def test_the_end_of_its_time_is_5_and_nothing_is_left(
    sage: Sage, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage.operations.evaluation.running._STOP", 0.1)
    before = left(clients)
    found = evaluate(sage, "--timeout", "500ms", of="stuck")
    assert (found.code, found.out) == (5, "")
    assert 'waiting for step "wait": 4 records behind; give it a longer --timeout' in found.err
    assert left(clients) == before


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_130_and_nothing_is_left(
    sage: Sage, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch, asked: signal.Signals
) -> None:
    monkeypatch.setattr("sage.operations.evaluation.running._STOP", 0.1)
    before = left(clients)

    def interrupt() -> None:
        wait_until(lambda: any(".wait" in name for name in left(clients) - before), what="it runs")
        os.kill(os.getpid(), asked)

    thread = threading.Thread(target=interrupt)
    thread.start()
    found = evaluate(sage, of="stuck")
    thread.join()
    assert (found.code, found.out) == (130, "")
    assert left(clients) == before


def test_topics_that_can_not_be_removed_are_named_beside_what_went_wrong(
    sage: Sage, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sage.errors import Forbidden

    def refuse(*_: Any, **__: Any) -> None:
        raise Forbidden("may not delete topics")

    monkeypatch.setattr(isolation, "remove_run", refuse)
    found = evaluate(sage, of="stopping")
    assert found.code == 1
    assert "are removed: may not delete topics" in found.err
    assert evaluate(sage).code == 4
