"""Every verb of the table, on one running cluster: `-o json` and `-o yaml` say the same, and what is wrong is one line.

The verbs come from the table itself: a new one has to be put into ``every_verb``, or be told there why it has no data.
"""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sage.cli.main import main
from sage.cli.verbs import VERBS, Verb
from sage.kafka.probe import BrokerFeatures, probe
from sage.services.service_set import ServiceSet
from tests.integration.cli.conftest import Shell, Typed
from tests.integration.cli.every_verb import CASES, FILES, NOT_DATA, VOLATILE, WRONG, Case
from tests.support.brokers import free_port
from tests.support.programs import sage as program
from tests.support.waiting import wait_until

RECORDS = ('{"n": 1, "user": "ann"}', '{"n": -1, "user": "ann"}', '{"n": 2, "user": "bob"}', '{"n": -2, "user": "bob"}')

ONE_LINE = re.compile(r"[^\n]+ \[SAGE\d{3}\]\n|sage: [^\n]+\n")
"""An error: what SAGE found wrong with its code, or what was typed wrong."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a broker, a memory, a worker, and a topology that has counted records and given some up."""
    shell = Shell(tmp_path_factory.mktemp("cluster"))
    for name, text in FILES.items():
        shell.write(name, text)
    try:
        with pytest.MonkeyPatch.context() as patch:
            _enter(patch, shell.folder)
            _typed("up", "--only", "broker,memory")
            worker = ("worker", "run", "--id", "w1", "--allow-code", "walk_steps")
            with program(shell.folder, *worker, environ=shell.variables):
                _deployed_and_fed()
                yield shell.folder
    finally:
        for state in shell.folder.glob("*/up.json"):
            ServiceSet(state.parent).down(timeout=5)


def _enter(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Type in ``folder`` from now on, without any variable that leads elsewhere."""
    patch.chdir(folder)
    for name in ("SAGE_BOOTSTRAP_SERVERS", "MILVUS_URI"):
        patch.delenv(name, raising=False)
    patch.setenv("SAGE_CONFIG", str(folder / "contexts.yaml"))


def _deployed_and_fed() -> None:
    for topic in ("walk-in", "walk-out"):
        _typed("topics", "create", topic, "-p", "2")
    _typed("memory", "create", "walked")
    _typed("topology", "deploy", "walk-1.yaml")
    _typed("topology", "deploy", "walk.yaml", "--wait")
    _typed("topics", "produce", "walk-in", *RECORDS)

    def counted() -> bool:
        topics = {row["name"]: row["records"] for row in json.loads(_typed("topics", "list", "-o", "json").out)}
        return (topics["walk-out"], topics["walk.dlq"]) == (2, 2)

    wait_until(counted, timeout=60, what="two are counted and two are dead")


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _enter(monkeypatch, folder)
    return folder


def _call(*words: str) -> Typed:
    """A command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return Typed(code, out.getvalue(), err.getvalue())


def _typed(*words: str) -> Typed:
    found = _call(*words)
    assert found.code == 0, (words, found)
    return found


def test_each_verb_has_a_case_or_a_reason_to_have_none() -> None:
    known = {verb.words for verb in VERBS.values()}
    assert set(CASES) | set(NOT_DATA) == known
    assert not set(CASES) & set(NOT_DATA)


def test_every_verb_says_the_same_in_json_and_in_yaml(place: Path) -> None:
    (place / "contexts.yaml").unlink(missing_ok=True)
    (row,) = json.loads(_typed("worker", "list", "-o", "json").out)
    port = json.loads(_typed("status", "-o", "json").out)[0]["port"]
    _typed("config", "set-context", "main", "-b", f"127.0.0.1:{port}")
    wrong = []
    for verb in VERBS.values():
        if (case := CASES.get(verb.words)) is not None:
            found = {form: _answer(verb, case, form, row["worker"]) for form in ("json", "yaml")}
            wrong += [f"sage {verb.words}: {each}" for each in _differences(case, found)]
    assert not wrong, "\n".join(wrong)


def _answer(verb: Verb, case: Case, form: str, worker: str) -> Typed:
    words = case.words if form == "json" or case.again is None else case.again
    return _call(*verb.path, *words.replace("FORM", form).replace("WORKER", worker).split(), "-o", form)


def _differences(case: Case, found: dict[str, Typed]) -> Iterator[str]:
    """What is wrong with the two answers."""
    documents: dict[str, list[Any]] = {}
    for form, typed in found.items():
        if typed.code not in case.codes:
            yield f"exit code {typed.code}: {typed.err}"
            return
        try:
            text = typed.out.replace(f"-{form}", "-FORM") if "-FORM" in case.words else typed.out
            documents[form] = _documents(form, text, stream=case.stream)
        except ValueError as error:  # YAML's errors are not, and end the test with their place
            yield f"-o {form} is none: {error}\n{typed.out[:300]}"
            return
    if case.stream and not all(documents.values()):
        yield "the stream is empty"
    if case.does and not all(documents["json"]):
        yield "it does something and says nothing of it"
    yield from _unequal(documents["json"], documents["yaml"], values=not case.does)


def _documents(form: str, text: str, *, stream: bool) -> list[Any]:
    if form == "yaml":
        return list(YAML(typ="safe").load_all(text))
    return [json.loads(line) for line in text.splitlines()] if stream else [json.loads(text)]


def _unequal(one: Any, other: Any, *, values: bool, place: str = "") -> Iterator[str]:
    """Where two documents differ: in fields, lengths and kinds, and with ``values`` in all that is no time or load."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{place}: {sorted(one)} and {sorted(other)}"
        for name in one.keys() & other.keys():
            yield from _unequal(one[name], other[name], values=values and name not in VOLATILE, place=f"{place}.{name}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)}"
        for number, (first, second) in enumerate(zip(one, other, strict=False)):
            yield from _unequal(first, second, values=values, place=f"{place}[{number}]")
    elif (one != other) if values else not _alike(one, other):
        yield f"{place}: {one!r} and {other!r}"


def _alike(one: Any, other: Any) -> bool:
    """Of the same kind, where both are there."""
    numbers = (int, float)
    return one is None or other is None or type(one) is type(other) or (type(one) in numbers and type(other) in numbers)


def test_answers_of_a_verb_that_does_something_have_the_same_fields() -> None:
    json_said = [{"name": "walk", "scale": {"count": 1}, "steps": ["check"], "revision": 4}]
    again = [{"name": "walk", "scale": {"count": 2}, "steps": ["count"], "revision": 5}]
    assert list(_unequal(json_said, again, values=False)) == []
    for said in ({}, {**again[0], "extra": 1}, {**again[0], "scale": {}}, {**again[0], "steps": []}):
        assert list(_unequal(json_said, [said], values=False)), said
    typed = {"json": Typed(0, "{}", ""), "yaml": Typed(0, "{}\n", "")}
    assert list(_differences(Case(does=True), typed)) == ["it does something and says nothing of it"]


def test_what_is_wrong_is_one_line_and_its_exit_code(place: Path) -> None:
    _typed("topology", "deploy", "stuck.yaml")
    wrong = [_complaint(words.split(), code) for words, code in WRONG]
    wrong += [_complaint([*verb.path, "--no-such-option"], 2) for verb in VERBS.values()]
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_brokers_that_do_not_answer_are_one_line_and_4(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would wait for ten seconds, and one more to find out why."""

    def asked(address: str, config: Mapping[str, Any], *, timeout: float) -> BrokerFeatures:
        return probe(address, config, timeout=timeout / 10)

    monkeypatch.setattr("sage.kafka.admin.probe", asked)
    for patience in ("_PATIENCE", "_REQUEST_TIMEOUT"):
        monkeypatch.setattr(f"sage.kafka.admin.{patience}", 0.1)
    nobody = f"127.0.0.1:{free_port()}"
    verbs = [verb for verb in VERBS.values() if _talks_to_brokers(verb) and verb.words not in {"dev", "doctor"}]
    assert len(verbs) > 10
    wrong = []
    for verb in verbs:
        words = CASES[verb.words].words.replace("FORM", "json").split() if verb.words in CASES else []
        quiet = ["--quiet"] if verb.words in {"bench run", "worker run"} else []  # these say first what they begin
        wrong.append(_complaint([*verb.path, *words, "-b", nobody, *quiet], 4))
    assert not any(wrong), "\n".join(filter(None, wrong))


def _complaint(words: list[str], code: int) -> str:
    """What is wrong with an error under ``-o json``; empty where it is as documented."""
    found = _call(*words, "-o", "json", "--no-input")
    said = found.err if code != 3 else found.err.splitlines(keepends=True)[-1] if found.err else ""
    if (found.code, found.out) == (code, "") and ONE_LINE.fullmatch(said):
        return ""
    return f"sage {' '.join(words)}: {code} was expected of {found}"


def _talks_to_brokers(verb: Verb) -> bool:
    module, _, name = verb.target.partition(":")
    return "kafka_config" in inspect.signature(getattr(import_module(module), name)).parameters
