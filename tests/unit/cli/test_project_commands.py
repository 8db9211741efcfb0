"""``sage init``, ``sage models``, ``sage operators``, ``sage topology`` on files alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sage import app
from sage.graph.yaml import parse_topology
from tests.unit.cli.conftest import Sage

TOPOLOGY = """\
version: 1
name: qa
steps:
  questions: {source: file, config: {path: questions.txt}}
  prompt:    {operator: chat_promptor, from: questions}
  answers:   {sink: topic, from: prompt, config: {topic: answers}}
"""


FOREIGN = """
version: 1
name: shop
steps:
  orders: {source: topic, config: {topic: orders}}
  loud:   {operator: chat_promptor, from: orders, retry: {attempts: 2}}
  out:    {sink: topic, from: loud, config: {topic: out}}
"""


@pytest.fixture
def qa(tmp_path: Path, sage: Sage) -> Path:
    (tmp_path / "questions.txt").write_text("why?\n")
    path = tmp_path / "qa.yaml"
    path.write_text(TOPOLOGY)
    return path


def test_what_init_says_to_type_next_can_be_typed(sage: Sage) -> None:
    assert sage("init", "my pages/管 道").out.endswith("Next: cd 'my pages/管 道' && sage up\n")


def test_init_makes_a_project_that_validates(sage: Sage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sage("init", "handbook", "--template", "rag-qa")
    assert made.code == 0, made.err
    assert made.out.startswith("created ")
    assert made.out.endswith("Next: cd handbook && sage up\n")
    monkeypatch.chdir(tmp_path / "handbook")
    valid = sage("topology", "validate", "rag-qa.yaml")
    assert (valid.code, valid.out) == (0, "rag-qa: 5 steps in 5 stages, valid\n"), valid.err


def test_an_unknown_template_is_4(sage: Sage) -> None:
    found = sage("init", "x", "-t", "rag")
    assert found.code == 4
    assert "rag-qa" in found.err


def test_validate_plan_and_explain_agree(sage: Sage, qa: Path) -> None:
    assert json.loads(sage("topology", "validate", "qa.yaml", "-o", "json").out)["valid"] is True
    plan = json.loads(sage("topology", "plan", "qa.yaml", "-o", "json").out)
    rows = json.loads(sage("topology", "explain", "qa.yaml", "-o", "json").out)
    assert [row["stage"] for row in rows] == [stage["name"] for stage in plan["stages"]]
    table = sage("topology", "plan", "qa.yaml").out
    assert "qa.questions" in table
    assert "PARTITIONS" in table
    assert "prompt" in sage("topology", "explain", "qa.yaml").out


def test_export_gives_the_same_topology_back(sage: Sage, qa: Path, tmp_path: Path) -> None:
    text = sage("topology", "export", "qa.yaml").out
    assert parse_topology(text).steps == parse_topology(TOPOLOGY).steps
    assert sage("topology", "export", "qa.yaml", "--to", "copy.yaml").err == "wrote copy.yaml\n"
    assert (tmp_path / "copy.yaml").read_text().rstrip() == text.rstrip()
    assert "questions" in sage("topology", "export", "qa.yaml", "--format", "mermaid").out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--to", "."), 1, ".: cannot be written: Is a directory [SAGE100]"),
        (("--to", "nowhere/x"), 1, "nowhere/x: cannot be written: No such file or directory [SAGE100]"),
        (("--format", "k8s", "--replicas", "-1"), 2, "--replicas is 0 or more; found -1"),
        (("--format", "compose", "--replicas", "-1"), 2, "--replicas is 0 or more; found -1"),
        (("--format", "k8s", "--brokers", ""), 2, "--brokers is empty; k8s needs host:port"),
        (("--format", "keda", "--brokers", ""), 2, "--brokers is empty; keda needs host:port"),
        (("--format", "asyncapi", "--brokers", " , "), 2, "--brokers is empty; asyncapi needs host:port"),
    ],
)
def test_an_export_that_would_be_of_no_use_is_refused(
    sage: Sage, qa: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    found = sage("topology", "export", "qa.yaml", *words)
    assert (found.code, found.out) == (code, "")
    assert says in found.err


def test_partitions_that_a_foreign_topic_decides_are_shown_as_its(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(FOREIGN)
    rows = [line.split() for line in sage("topology", "plan", "shop.yaml").out.splitlines()]
    assert ["shop.loud.retry", "as", "orders", "retention.ms=-1"] in rows
    assert ["shop.dlq", "1", "retention.ms=-1"] in rows


FORMS = ("yaml", "asyncapi", "compose", "k8s", "keda")


@pytest.mark.parametrize("form", [*FORMS, "mermaid"])
def test_an_export_is_data_where_data_is_asked_for(sage: Sage, qa: Path, form: str) -> None:
    words = ("topology", "export", "qa.yaml", "--format", form)
    document = json.loads(sage(*words, "-o", "json").out)
    assert YAML(typ="safe").load(sage(*words, "-o", "yaml").out) == document
    text = sage(*words).out
    if form == "mermaid":
        assert document == {"mermaid": text}
    elif form == "k8s":
        assert (document["apiVersion"], document["kind"]) == ("v1", "List")
        assert list(YAML(typ="safe").load_all(text)) == document["items"]
    else:
        assert YAML(typ="safe").load(text) == document


@pytest.mark.parametrize("form", FORMS)
def test_an_export_to_a_file_has_the_form_that_was_asked_for(sage: Sage, qa: Path, tmp_path: Path, form: str) -> None:
    words = ("topology", "export", "qa.yaml", "--format", form, "-o", "json")
    assert sage(*words, "--to", "export.json").out == ""
    assert (tmp_path / "export.json").read_text() == sage(*words).out


def test_the_schema_is_json(sage: Sage) -> None:
    assert "properties" in json.loads(sage("topology", "schema").out)


def test_an_environment_in_python_is_a_target(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "from sage import LocalEnvironment\n"
        "env = LocalEnvironment('flow')\n"
        "env.from_collection([1, 2]).map(abs, name='size').to('flow-out')\n"
        "def make():\n    return env\n"
    )
    for target in ("flow.py", "flow.py:env", "flow.py:make"):
        found = sage("topology", "validate", target)
        assert found.code == 0, found.err
        assert found.out.startswith("flow: ")


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("a.yaml", "name: [", 3, "a.yaml:1:"),
        ("b.yaml", TOPOLOGY.replace("chat_promptor", "chat_promter"), 3, "did you mean chat_promptor?"),
        ("c.yaml", TOPOLOGY.replace("from: questions", "from: question"), 3, "questions"),
        ("d.yaml", TOPOLOGY.replace("path: questions.txt", "path: '${NOWHERE_SET}'"), 3, "NOWHERE_SET is not set"),
        ("e.yaml", TOPOLOGY + "guarantee: exactly_twice\n", 3, "exactly_once"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line(
    sage: Sage, tmp_path: Path, name: str, text: str, code: int, says: str
) -> None:
    (tmp_path / name).write_text(text)
    found = sage("topology", "validate", name)
    assert found.code == code, found
    assert says in found.err
    assert "Traceback" not in found.err


def test_files_and_modules_that_are_missing(sage: Sage) -> None:
    assert sage("topology", "validate", "nope.yaml").code == 4
    assert sage("topology", "validate", "nope.py").code == 4
    assert sage("topology", "validate", "no.such:thing").code == 3
    assert sage("topology", "validate", "gibberish").code == 3


def test_operators_and_connectors_are_listed_and_described(sage: Sage) -> None:
    assert "dense_retriever" in sage("operators", "list").out
    page = sage("operators", "describe", "dense_retriever").out
    assert "collection" in page
    assert "required" in page
    assert json.loads(sage("operators", "describe", "dense_retriever", "-o", "json").out)["kind"] == "operator"
    names = {row["name"] for row in json.loads(sage("connectors", "list", "-o", "json").out)}
    assert {"file", "terminal", "topic"} <= names
    assert "path" in sage("connectors", "describe", "file").out
    found = sage("operators", "describe", "dense_retriver")
    assert found.code == 3
    assert "did you mean dense_retriever?" in found.err


@dataclass(frozen=True)
class Model:
    name: str
    description: str
    size: int
    path: Path | None


def test_models_are_listed_pulled_and_served(sage: Sage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "a.gguf"
    weights.write_bytes(b"x" * 2_000_000)
    known = [Model("local/a", "small", 2_000_000, weights), Model("local/b", "other", 90_000_000, None)]
    served: list[tuple[str, int]] = []
    monkeypatch.setattr(app, "local_models", lambda: known)
    monkeypatch.setattr(app, "ensure_local_model", lambda name, progress: weights)
    monkeypatch.setattr(app, "serve_local_model", lambda name, port: served.append((name, port)))
    table = sage("models", "list").out
    assert "90 MB  no, `sage models pull`" in table
    assert [row["here"] for row in json.loads(sage("models", "list", "-o", "json").out)] == [True, False]
    assert sage("models", "pull", "local/a").out == f"local/a 2 MB {weights}\n"
    assert sage("models", "serve", "local/a", "--port", "0").code == 0
    assert served == [("local/a", 0)]
