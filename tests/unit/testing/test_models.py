"""The scripted chat model."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import Any

import pytest

from sage.errors import RateLimited, TransientFailure
from sage.ports import ChatModel, ChatRequest, ChatResponse
from sage.testing.models import Broken, Delayed, Hanging, ScriptedChatModel, ScriptEnded


def request(content: str = "How many days?") -> ChatRequest:
    return ChatRequest(({"role": "user", "content": content},), "m")


async def test_replies_in_order_and_keeps_what_was_asked() -> None:
    model: ChatModel = ScriptedChatModel(["one", ChatResponse("two", "other", {"input_tokens": 1, "output_tokens": 1})])
    assert [(await model.complete(request(text))).text for text in ("a", "b")] == ["one", "two"]
    assert isinstance(model, ScriptedChatModel)
    assert model.prompts == ["a", "b"]


async def test_raises_what_the_script_holds_and_goes_on() -> None:
    model = ScriptedChatModel([RateLimited("wait", retry_after=1), "then"])
    with pytest.raises(RateLimited):
        await model.complete(request())
    assert (await model.complete(request())).text == "then"
    assert len(model.requests) == 2


async def test_delays_with_the_clock_it_is_given() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    model = ScriptedChatModel([Delayed(90.0, "late"), Delayed(5.0, TimeoutError())], sleep=sleep)
    assert (await model.complete(request())).text == "late"
    with pytest.raises(TimeoutError):
        await model.complete(request())
    assert slept == [90.0, 5.0]


async def test_a_call_takes_no_longer_than_its_request_allows() -> None:
    model = ScriptedChatModel([Hanging(), Delayed(90.0, "late"), Delayed(0.0, TimeoutError("of the script")), "then"])
    short = dataclasses.replace(request(), timeout=0.01)
    for _ in range(2):
        with pytest.raises(TransientFailure, match=r"model m did not answer within 0\.01 s; raise `timeout`"):
            await model.complete(short)
    with pytest.raises(TimeoutError, match="of the script"):
        await model.complete(short)
    assert (await model.complete(short)).text == "then"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("20 days.", "a script is a list of replies or a function; found '20 days.'"),
        (None, "a script is a list of replies or a function; found None"),
        (["a", 5], "reply 2 is no text, response or error: 5"),
        ([ConnectionError], "reply 1 is the class ConnectionError; write ConnectionError(...)"),
        ([Delayed(1, Hanging)], "reply 1 is the class Hanging; write Hanging(...)"),  # type: ignore[arg-type]
    ],
)
def test_a_script_that_holds_no_replies_is_told_when_it_is_written(script: Any, told: str) -> None:
    with pytest.raises(TypeError, match=re.escape(told)):
        ScriptedChatModel(script)


async def test_streams_its_text_in_pieces() -> None:
    pieces: list[str] = []

    async def keep(delta: str) -> None:
        pieces.append(delta)

    await ScriptedChatModel(["one two  three"]).complete(request(), on_delta=keep)
    assert "".join(pieces) == "one two  three"
    assert len(pieces) > 1


async def test_a_call_too_many_says_what_was_asked() -> None:
    with pytest.raises(ScriptEnded, match=r"has 0 replies, and call 1 asked: 'Why\?'"):
        await ScriptedChatModel([]).complete(request("Why?"))


async def test_a_function_answers_without_an_end() -> None:
    model = ScriptedChatModel(lambda asked: asked.messages[-1]["content"].upper())
    assert [(await model.complete(request(text))).text for text in ("a", "b", "c")] == ["A", "B", "C"]


async def test_usage_counts_the_words_read_and_written() -> None:
    response = await ScriptedChatModel(["20 days"]).complete(request("How many days?"))
    assert response.usage == {"input_tokens": 3, "output_tokens": 2}


async def test_an_answer_that_breaks_off_has_streamed_its_first_words() -> None:
    heard: list[str] = []

    async def hear(delta: str) -> None:
        heard.append(delta)

    model = ScriptedChatModel([Broken("twenty days off", 2, ConnectionError("gone"))])
    with pytest.raises(ConnectionError):
        await model.complete(request(), on_delta=hear)
    assert heard == ["twenty", " days"]


async def test_a_call_that_hangs_waits_until_it_is_given_up() -> None:
    model = ScriptedChatModel([Hanging(), "then"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(model.complete(request()), 0.01)
    assert (await model.complete(request())).text == "then"
