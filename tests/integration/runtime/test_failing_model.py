"""``sage topology run`` while the model service misbehaves: one clear message, the right exit code, nothing lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import ApacheBroker
from tests.support.llm_server import FakeOpenAI, Mode
from tests.support.programs import Program, sage
from tests.support.records import everything

QUESTIONS = 3


@pytest.fixture
def run(apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path) -> Callable[[FakeOpenAI], Program]:
    """Runs a chain of file -> generator -> file against the service, until idle."""
    name = unique("model")
    messages = [{"role": "user", "content": "How many days?"}]
    lines = "".join(json.dumps({"id": str(n), "messages": messages}) + "\n" for n in range(QUESTIONS))
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")

    def go(service: FakeOpenAI) -> Program:
        (tmp_path / "topology.yaml").write_text(
            f"""version: 1
name: {name}
steps:
  questions: {{source: file, config: {{path: questions.jsonl, format: jsonl}}}}
  generate:
    operator: openai_generator
    from: questions
    timeout: 2
    retry: {{attempts: 3, backoff: 50ms, max_backoff: 500ms}}
    config: {{model: fake-model, base_url: "{service.base_url}", api_key: "${{KEY}}"}}
  answers: {{sink: file, from: generate, config: {{path: answers.jsonl}}}}
""",
            encoding="utf-8",
        )
        arguments = ("topology", "run", "topology.yaml", "--until-idle", "--bootstrap-servers")
        with sage(tmp_path, *arguments, apache_kafka.bootstrap_servers, environ={"KEY": "sk-secret-key"}) as program:
            program.wait(90)
        assert "Traceback" not in program.output
        assert "sk-secret-key" not in program.output
        return program

    go.name = name  # type: ignore[attr-defined]
    return go


def answers(program: Program) -> list[str]:
    file = program.log.parent / "answers.jsonl"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


@pytest.mark.parametrize(
    ("mode", "exit_code", "words"),
    [
        ("unauthorized", 4, "refused"),
        ("unknown_model", 4, "fake-model"),
        ("quota", 4, "quota"),
    ],
)
def test_what_every_record_would_meet_stops_the_stage_and_a_mended_service_answers_all(
    run: Callable[[FakeOpenAI], Program], apache_kafka: ApacheBroker, mode: Mode, exit_code: int, words: str
) -> None:
    with FakeOpenAI(mode=mode, lists_models=False) as service:
        refused = run(service)
        assert refused.process.returncode == exit_code, refused.output
        assert words in refused.output
        service.mode = "ok"
        mended = run(service)
    assert mended.process.returncode == 0, mended.output
    assert len(answers(mended)) == QUESTIONS
    assert everything(apache_kafka.clients(), f"{run.name}.dlq") == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["limited", "failing", "garbage", "empty", "broken_off"])
def test_a_service_that_fails_for_a_while_is_asked_again_and_nothing_dies(
    run: Callable[[FakeOpenAI], Program], mode: Mode
) -> None:
    with FakeOpenAI(mode=mode, fail_first=2) as service:
        program = run(service)
    assert program.process.returncode == 0, program.output
    assert len(answers(program)) == QUESTIONS
    assert len(service.calls) == QUESTIONS + 2


def test_a_service_that_hangs_in_mid_run_makes_dead_letters_with_their_reason_and_exit_1(
    run: Callable[[FakeOpenAI], Program], apache_kafka: ApacheBroker
) -> None:
    never = threading.Event()
    with FakeOpenAI(reply=lambda _: str(never.wait(4))) as service:
        program = run(service)
    letters = everything(apache_kafka.clients(), f"{run.name}.dlq")  # type: ignore[attr-defined]
    assert program.process.returncode == 1, program.output
    assert f'step "generate": {QUESTIONS} of {QUESTIONS} records dead' in program.output
    assert len(letters) == QUESTIONS
    assert all(dict(letter.headers() or ())["sage.attempts"] == b"3" for letter in letters)
    assert all(b"sk-secret-key" not in repr(letter.headers()).encode() for letter in letters)


def test_requests_that_the_service_refuses_are_dead_at_once_and_asked_for_once(
    run: Callable[[FakeOpenAI], Program], apache_kafka: ApacheBroker
) -> None:
    with FakeOpenAI(mode="refused") as service:
        program = run(service)
    letters = everything(apache_kafka.clients(), f"{run.name}.dlq")  # type: ignore[attr-defined]
    assert program.process.returncode == 1, program.output
    assert len(service.calls) == QUESTIONS, "an answer, and no trouble on the way to one: not asked again"
    assert all(dict(letter.headers() or ())["sage.attempts"] == b"1" for letter in letters)
    assert all(b"maximum context length" in repr(letter.headers()).encode() for letter in letters)


def test_a_service_that_asks_to_wait_is_asked_again_no_sooner(run: Callable[[FakeOpenAI], Program]) -> None:
    asked: list[float] = []
    with FakeOpenAI(mode="limited", fail_first=QUESTIONS, retry_after=0.45) as service:
        service.when_called = lambda: asked.append(time.monotonic())
        program = run(service)
    assert program.process.returncode == 0, program.output
    assert len(answers(program)) == QUESTIONS
    assert asked[QUESTIONS] - asked[0] >= 0.4, "the first back-off by itself would be 50 ms"


def test_a_service_that_hangs_when_it_is_first_asked_stops_the_stage(run: Callable[[FakeOpenAI], Program]) -> None:
    with FakeOpenAI(mode="hang") as service:
        program = run(service)
    assert program.process.returncode == 4, program.output
    assert "did not answer within 10 s" in program.output
    assert service.calls == []


def test_a_service_that_is_not_there_stops_at_once(run: Callable[[FakeOpenAI], Program]) -> None:
    with FakeOpenAI() as service:
        pass
    program = run(service)
    assert program.process.returncode == 4, program.output
    assert "cannot reach the model service" in program.output
