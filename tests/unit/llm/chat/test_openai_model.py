"""The chat client against a real HTTP server that behaves and misbehaves as services do."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from sage.errors import (
    NotFound,
    RateLimited,
    RecordFailure,
    SageError,
    TransientFailure,
    Unauthorized,
    Unreachable,
)
from sage.llm.chat.clients import open_clients
from sage.llm.chat.errors import retry_after
from sage.llm.chat.openai_model import OpenAIChatModel
from sage.ports import ChatRequest, ChatResponse
from tests.support.llm_server import FakeOpenAI, Mode

KEY = "sk-secret-key-of-this-test"


def request(**changes: Any) -> ChatRequest:
    fields = {"messages": ({"role": "user", "content": "How many days?"},), "model": "fake-model", "timeout": 5.0}
    return ChatRequest(**{**fields, **changes})


async def ask(service: FakeOpenAI, **changes: Any) -> ChatResponse:
    model = OpenAIChatModel(service.base_url, KEY)
    try:
        return await model.complete(request(**changes))
    finally:
        await model.close()


async def failure(service: FakeOpenAI, **changes: Any) -> SageError:
    with pytest.raises(SageError) as caught:
        await ask(service, **changes)
    assert KEY not in str(caught.value)
    assert service.base_url in str(caught.value)
    return caught.value


@pytest.mark.parametrize("mode", ["ok", "whole"])
async def test_gives_text_usage_and_model_however_the_service_answers(mode: Mode) -> None:
    with FakeOpenAI(mode=mode, reply="Twenty days a year.") as service:
        response = await ask(service)
    assert response.text == "Twenty days a year."
    assert response.model == "fake-model"
    assert response.usage == {"input_tokens": 7, "output_tokens": 3}
    assert response.finish_reason == "stop"


@pytest.mark.parametrize("mode", ["ok", "whole"])
async def test_hands_on_every_piece_of_text_as_it_comes(mode: Mode) -> None:
    pieces: list[str] = []

    async def keep(delta: str) -> None:
        pieces.append(delta)

    with FakeOpenAI(mode=mode, reply="one two three") as service:
        model = OpenAIChatModel(service.base_url, KEY)
        response = await model.complete(request(), on_delta=keep)
        await model.close()
    assert "".join(pieces) == response.text == "one two three"
    assert len(pieces) == (3 if mode == "ok" else 1)


async def test_sends_what_was_asked_and_nothing_that_was_not() -> None:
    with FakeOpenAI() as service:
        await ask(service, temperature=0.0, seed=4, max_tokens=9, idempotency_key="abc", extra={"stop": ["\n"]})
        await ask(service)
    full, bare = service.calls
    assert (full["temperature"], full["seed"], full["max_tokens"], full["stop"]) == (0.0, 4, 9, ["\n"])
    assert full["stream"] is True and full["stream_options"] == {"include_usage": True}
    assert not {"temperature", "seed", "max_tokens", "stop"} & set(bare)
    assert service.keys == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("unauthorized", Unauthorized),
        ("quota", Unauthorized),
        ("unknown_model", NotFound),
        ("refused", RecordFailure),
        ("failing", TransientFailure),
        ("garbage", TransientFailure),
        ("empty", TransientFailure),
        ("broken_off", TransientFailure),
        ("limited", RateLimited),
    ],
)
async def test_each_failure_is_the_error_that_says_what_helps(mode: Mode, kind: type[SageError]) -> None:
    with FakeOpenAI(mode=mode) as service:
        error = await failure(service)
    assert type(error) is kind
    assert len(service.calls) == 1, "retries are the runtime's"


async def test_a_rate_limit_says_how_long_to_wait() -> None:
    with FakeOpenAI(mode="limited", retry_after=1.5) as service:
        error = await failure(service)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 1.5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_reads_every_form_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        model = OpenAIChatModel(address, KEY)
        with pytest.raises(Unreachable, match=r"cannot reach the model service at http://127.*sage up"):
            await model.complete(request())
        await model.close()


async def test_an_answer_has_a_time_limit() -> None:
    with FakeOpenAI(mode="hang") as service:
        began = time.monotonic()
        error = await failure(service, timeout=0.2)
    assert isinstance(error, TransientFailure)
    assert "0.2 s" in str(error)
    assert time.monotonic() - began < 3


async def test_a_canceled_call_hangs_up() -> None:
    with FakeOpenAI(mode="hang") as service:
        model = OpenAIChatModel(service.base_url, KEY)
        call = asyncio.create_task(model.complete(request()))
        await until(lambda: len(service.calls) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: service.disconnects == 1)
        await model.close()


async def test_a_mistake_in_a_listener_shows_itself() -> None:
    async def broken(delta: str) -> None:
        raise ZeroDivisionError(delta)

    with FakeOpenAI() as service:
        model = OpenAIChatModel(service.base_url, KEY)
        with pytest.raises(ZeroDivisionError):
            await model.complete(request(), on_delta=broken)
        await model.close()


async def test_steps_share_one_client_for_each_service_and_key() -> None:
    before = open_clients()
    with FakeOpenAI() as service:
        models = [OpenAIChatModel(service.base_url, KEY), OpenAIChatModel(service.base_url + "/", KEY)]
        other = OpenAIChatModel(service.base_url, "another")
        for model in (*models, other):
            await model.complete(request())
        assert open_clients() == before + 2
        await models[0].close()
        await models[0].close()
        assert (await models[1].complete(request())).text, "one user's close must not end the other's client"
        await models[1].close()
        await other.close()
    assert open_clients() == before


async def test_the_key_is_not_in_any_printed_form() -> None:
    assert KEY not in repr(OpenAIChatModel("http://127.0.0.1:1/v1", KEY))


class TestCheck:
    async def check(self, service: FakeOpenAI, model: str = "fake-model") -> None:
        client = OpenAIChatModel(service.base_url, KEY)
        try:
            await client.check(model)
        finally:
            await client.close()

    async def test_a_listed_model_passes_without_a_chat_call(self) -> None:
        with FakeOpenAI() as service:
            await self.check(service)
        assert service.calls == []

    async def test_a_model_that_the_service_denies_is_not_found(self) -> None:
        with FakeOpenAI() as service, pytest.raises(NotFound, match="knows no model 'other'"):
            await self.check(service, "other")

    async def test_a_refused_key_is_unauthorized(self) -> None:
        with FakeOpenAI(mode="unauthorized") as service, pytest.raises(Unauthorized, match="OPENAI_API_KEY"):
            await self.check(service)

    async def test_a_service_that_never_answers_is_unreachable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sage.llm.chat.openai_model.CHECK_TIMEOUT", 0.2)
        with FakeOpenAI(mode="hang") as service, pytest.raises(Unreachable, match=r"within 0\.2 s"):
            await self.check(service)

    async def test_a_service_without_a_list_passes(self) -> None:
        with FakeOpenAI(lists_models=False) as service:
            await self.check(service, "anything")


async def until(reached: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.01)
