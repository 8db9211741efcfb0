"""``sage demo`` from the first command to the last, with a chat service that is not ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.llm_server import FakeOpenAI

pytestmark = pytest.mark.integration


def test_the_demo_answers_every_question_and_shows_its_way(tmp_path: Path) -> None:
    with FakeOpenAI(reply="Twenty days.", models=("their-model",)) as service:
        shell = Shell(tmp_path, {"OPENAI_API_KEY": "secret-key", "OPENAI_BASE_URL": service.base_url})
        done = shell("demo", "--folder", "here", "-o", "json", timeout=300)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    questions = (tmp_path / "here" / "handbook" / "questions.txt").read_text(encoding="utf-8").splitlines()
    assert {one["query"] for one in found["records"]} == set(questions)
    for one in found["records"]:
        assert one["answer"]
        assert one["documents"]
        topics = [hop["topic"] for hop in one["path"]]
        assert topics[0] == "rag-qa.questions"
        assert topics[-1] == "rag-qa.generate"
        assert all(hop["offset"] >= 0 and hop["partition"] >= 0 for hop in one["path"])
        assert all(hop["ms"] >= 0 for hop in one["path"][1:])
    assert len(service.calls) == len(questions)
    typed = [line[2:] for line in done.err.splitlines() if line.startswith("$ ")]
    assert typed == [
        "export OPENAI_MODEL=their-model",
        "sage init handbook --template rag-qa && cd handbook",
        "sage up",
        "sage memory ingest handbook docs/",
        "sage topology run rag-qa.yaml --until-idle",
        "sage down",
    ]
    assert "secret-key" not in done.out + done.err
    assert not (tmp_path / "here" / "handbook" / ".sage" / "up.json").exists()
