"""The local model server as its own process: started, asked, counted, ended."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sage.errors import NotFound, RecordFailure
from sage.llm.chat.openai_model import OpenAIChatModel
from sage.llm.local.command import model_server_command, server_url, serves
from sage.llm.local.download import ensure_model
from sage.llm.local.request_log import calls_in
from sage.ports import ChatRequest, ChatResponse
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MODEL = "local/smollm2"
LEAVE = "New staff get 20 days of paid leave a year.\n\nQuestion: How many days of leave do new staff get?"
CORE = "Core hours are from 10:00 to 15:00.\n\nQuestion: What are the core hours?"


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return server_url(self.port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(folder: Path) -> Server:
    ensure_model(MODEL)
    port, log = free_port(), folder / "model.log"
    command = model_server_command(MODEL, port)
    assert not command.ready()
    with log.open("wb") as output:
        process = subprocess.Popen(command.argv, stdout=output, stderr=output)
    try:
        wait_until(lambda: command.ready() or process.poll() is not None, timeout=60, what="the model server answers")
        assert process.poll() is None, log.read_text()
    except BaseException:
        process.kill()
        raise
    return Server(process, port, log)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start(tmp_path_factory.mktemp("model"))
    yield running
    running.process.kill()
    running.process.wait(10)


async def ask(url: str, *prompts: str, max_tokens: int = 24) -> list[ChatResponse]:
    """Ask all at once."""
    model = OpenAIChatModel(url, "none")
    calls = [
        model.complete(ChatRequest(({"role": "user", "content": prompt},), MODEL, temperature=0, max_tokens=max_tokens))
        for prompt in prompts
    ]
    try:
        return await asyncio.gather(*calls)
    finally:
        await model.close()


async def test_answers_from_the_text_and_counts_tokens(server: Server) -> None:
    (response,) = await ask(server.url, LEAVE)
    assert "20 days" in response.text
    assert response.model == MODEL
    assert response.usage["input_tokens"] > 20
    assert 0 < response.usage["output_tokens"] <= 24


async def test_answers_repeat_exactly_whatever_was_asked_before_or_beside(server: Server) -> None:
    (leave,), (core,) = await ask(server.url, LEAVE), await ask(server.url, CORE)
    beside = await ask(server.url, LEAVE, CORE, CORE, LEAVE, LEAVE)
    assert [response.text for response in beside] == [leave.text, core.text, core.text, leave.text, leave.text]


async def test_every_call_is_in_the_log(server: Server) -> None:
    before = calls_in(server.log)
    await ask(server.url, LEAVE, CORE, LEAVE)
    wait_until(lambda: calls_in(server.log) == before + 3, what="three calls are logged")


async def test_a_canceled_call_stops_the_work(server: Server) -> None:
    before = calls_in(server.log)
    call = asyncio.create_task(ask(server.url, "Tell a very long story.", max_tokens=2000))
    await asyncio.to_thread(wait_until, lambda: calls_in(server.log) == before + 1, what="the call is logged")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    wait_until(lambda: f"call {before + 1} ended early" in server.log.read_text(), what="the call is given up")


async def test_a_prompt_over_the_context_is_the_records_failure(server: Server) -> None:
    with pytest.raises(RecordFailure, match="context"):
        await ask(server.url, "word " * 6000)


async def test_an_operator_can_check_for_the_model(server: Server) -> None:
    model = OpenAIChatModel(server.url, "none")
    await model.check(MODEL)
    await model.close()
    assert serves(MODEL, server.port)
    assert not serves("local/other", server.port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ends_at_once_when_told_to_though_it_is_answering(number: signal.Signals, tmp_path: Path) -> None:
    own = start(tmp_path)
    try:
        call = asyncio.create_task(ask(own.url, "Tell a very long story.", max_tokens=3000))
        await asyncio.to_thread(wait_until, lambda: calls_in(own.log) == 1, what="the call is logged")
        began = time.monotonic()
        own.process.send_signal(number)
        assert own.process.wait(5) == 0
        assert time.monotonic() - began < 2
        with pytest.raises(Exception, match=r"broke|reach"):
            await call
    finally:
        own.process.kill()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is taken" in done.stderr and "[SAGE211]" in done.stderr


def test_an_unknown_model_is_one_clear_line() -> None:
    done = run("--model", "local/nothing")
    assert done.returncode == 3
    assert "local/smollm2" in done.stderr and done.stderr.count("\n") == 1


def test_a_file_that_is_no_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_MODELS", str(tmp_path))
    (tmp_path / "broken.gguf").write_bytes(b"no weights")
    done = run("--model", "local/broken")
    assert done.returncode == NotFound.default_exit_code
    assert "broken.gguf can't be loaded" in done.stderr and "Traceback" not in done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "sage.llm.local.server", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
