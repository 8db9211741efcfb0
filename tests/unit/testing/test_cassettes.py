"""Real answers are recorded once and played back; secrets stay out of the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage.errors import NotFound, RateLimited, SageError
from sage.ports import ChatModel, ChatRequest, ChatResponse
from sage.testing.cassettes import CassetteChatModel
from sage.testing.models import ScriptedChatModel

SECRET = "sk-very-secret-1"
ENVIRON = {"OPENAI_API_KEY": SECRET, "HOME": "/home/me", "MAX_TOKENS": "123456789"}


def ask(text: str = "How many days?", *, seed: int | None = None, timeout: float = 60.0) -> ChatRequest:
    return ChatRequest(({"role": "user", "content": text},), "m", temperature=0.0, seed=seed, timeout=timeout)


async def record(path: Path, *replies: str | ChatResponse | BaseException) -> CassetteChatModel:
    """Ask as many times as there are replies."""
    cassette = CassetteChatModel(path, "once", ScriptedChatModel(list(replies)), environ=ENVIRON)
    for _ in replies:
        await cassette.complete(ask())
    await cassette.close()
    return cassette


async def test_what_was_recorded_is_played_back_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "leave.json"
    real = ChatResponse("20 days.", "m-2026", {"input_tokens": 3, "output_tokens": 2}, "stop", "id-1")
    recorded = await record(path, real)
    assert recorded.is_recording
    again: ChatModel = CassetteChatModel(path)
    assert await again.complete(ask(timeout=5.0)) == real
    assert list(path.parent.iterdir()) == [path]


async def test_the_same_request_gets_its_answers_in_order_and_the_last_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    await record(path, "one", "two")
    again = CassetteChatModel(path, "once", ScriptedChatModel([]))
    assert [(await again.complete(ask())).text for _ in range(3)] == ["one", "two", "two"]
    assert len(again.requests) == 3


@pytest.mark.parametrize(
    "other", [ask("How many hours?"), ask(seed=1), ChatRequest(({"role": "user", "content": "How many days?"},), "m2")]
)
async def test_another_request_is_not_answered_and_says_how_to_record_it(tmp_path: Path, other: ChatRequest) -> None:
    path = tmp_path / "c.json"
    await record(path, "one")
    with pytest.raises(NotFound, match=r"holds no answer to this request: 'How many.*--sage-record=all"):
        await CassetteChatModel(path, "none").complete(other)
    with pytest.raises(NotFound, match="there is no cassette"):
        await CassetteChatModel(tmp_path / "none.json", "none").complete(other)


async def test_all_records_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    await record(path, "old", "older")
    cassette = CassetteChatModel(path, "all", ScriptedChatModel(["new"]))
    assert (await cassette.complete(ask())).text == "new"
    await cassette.close()
    again = CassetteChatModel(path)
    assert [(await again.complete(ask())).text for _ in range(2)] == ["new", "new"]


async def test_an_error_of_the_model_is_raised_and_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    cassette = CassetteChatModel(path, "once", ScriptedChatModel([RateLimited("wait"), "then"]))
    with pytest.raises(RateLimited):
        await cassette.complete(ask())
    assert not path.exists()
    assert (await cassette.complete(ask())).text == "then"
    assert len(json.loads(path.read_text())["interactions"]) == 1
    await cassette.close()


async def test_secrets_are_never_stored_and_the_answer_is_found_without_them(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    request = ChatRequest(
        ({"role": "user", "content": f"my key is {SECRET}"},),
        "m",
        extra={"extra_headers": {"Authorization": "Bearer abc"}, "api_key": "k", "max_completion_tokens": 5},
    )
    model = ScriptedChatModel([f"do not tell {SECRET}"])
    cassette = CassetteChatModel(path, "once", model, environ=ENVIRON)
    assert (await cassette.complete(request)).text == f"do not tell {SECRET}"
    await cassette.close()
    text = path.read_text()
    assert SECRET not in text
    assert "Bearer abc" not in text
    stored = json.loads(text)["interactions"][0]["request"]["extra"]
    assert stored == {"extra_headers": {"Authorization": "***"}, "api_key": "***", "max_completion_tokens": 5}
    assert model.requests == [request]  # the model itself was asked with all of it
    elsewhere = CassetteChatModel(path, environ={"OPENAI_API_KEY": SECRET})
    assert (await elsewhere.complete(request)).text == "do not tell ***"


async def test_the_words_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    await record(path, "twenty days off")
    heard: list[str] = []

    async def hear(delta: str) -> None:
        heard.append(delta)

    await CassetteChatModel(path).complete(ask(), on_delta=hear)
    assert heard == ["twenty", " days", " off"]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "interactions": []}', '{"version": 1}'])
def test_another_file_is_no_cassette(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(SageError, match=r"not a cassette of this version.*record it anew"):
        CassetteChatModel(path)


async def test_closing_closes_the_model_that_was_called(tmp_path: Path) -> None:
    model = ScriptedChatModel(["one"])
    cassette = CassetteChatModel(tmp_path / "c.json", "all", model)
    await cassette.complete(ask())
    await cassette.close()
    await cassette.close()
    assert model.closed == 1
