"""Generation: what is asked, what is written, and what stands in for an answer that the passages don't bear out."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pydantic import ValidationError

from sage.errors import MissingVariable, NotFound, RateLimited, Unauthorized, Unreachable
from sage.llm.chat.service import open_chat_model
from sage.model.documents import Usage
from sage.operators import OpenAIGenerator
from sage.ports import ChatModel, ChatResponse
from sage.spec.context import OpenContext, Services
from sage.testing.models import ScriptedChatModel
from tests.support.llm_server import FakeOpenAI
from tests.support.step_contexts import ModelServices, context, open_context

MESSAGES = [{"role": "user", "content": "How many days?"}]
DOCUMENTS = [
    {"id": "leave.md#0", "text": "New staff get 20 days. Ask your lead.", "score": 0.9, "metadata": {}},
]
RECORD = {"query": "How many days do new staff get?", "documents": DOCUMENTS, "messages": MESSAGES}


async def generate(scripted: ChatModel, record: Any = None, **config: Any) -> dict[str, Any]:
    operator = OpenAIGenerator(OpenAIGenerator.Config(**config))
    await operator.open(open_context(scripted))
    try:
        return await operator.process(RECORD if record is None else record, context())
    finally:
        await operator.close()


async def test_writes_answer_usage_model_and_citation_and_leaves_the_rest() -> None:
    response = ChatResponse("  20 days.\n", "the-model", Usage(input_tokens=9, output_tokens=3))
    result = await generate(ScriptedChatModel([response]))
    assert result == {
        **RECORD,
        "answer": "20 days.",
        "usage": {"input_tokens": 9, "output_tokens": 3},
        "model": "the-model",
        "citations": [{"document_id": "leave.md#0", "quote": "New staff get 20 days."}],
    }


async def test_asks_as_configured() -> None:
    model = ScriptedChatModel(["20 days."])
    await generate(model, model="m", temperature=0.5, max_tokens=7, seed=3, timeout="2s", stop=["\n"])
    request = model.requests[0]
    assert (request.model, request.temperature, request.max_tokens, request.seed) == ("m", 0.5, 7, 3)
    assert request.timeout == 2
    assert request.extra == {"stop": ["\n"]}
    assert request.messages == tuple(MESSAGES)


async def test_the_same_record_has_the_same_idempotency_key_and_another_one_another() -> None:
    model = ScriptedChatModel(lambda request: "20 days.")
    operator = OpenAIGenerator()
    await operator.open(open_context(model))
    for record_id in ("a", "a", "b"):
        await operator.process(RECORD, context(record_id))
    first, again, other = (request.idempotency_key for request in model.requests)
    assert first == again != other


async def test_a_service_that_counts_no_tokens_gives_no_usage() -> None:
    result = await generate(ScriptedChatModel([ChatResponse("20", "m", Usage(input_tokens=0, output_tokens=0))]))
    assert "usage" not in result


async def test_without_documents_there_are_no_citations() -> None:
    assert "citations" not in await generate(ScriptedChatModel(["Hi"]), {"messages": MESSAGES})


class TestFallback:
    async def test_replaces_an_answer_that_the_passages_do_not_bear_out_and_says_so(self) -> None:
        result = await generate(ScriptedChatModel(["35 weeks in the Alps."]), fallback="extractive")
        assert result["answer"] == "New staff get 20 days."
        assert result["model"] == "extractive"
        assert result["citations"] == [{"document_id": "leave.md#0", "quote": "New staff get 20 days."}]
        assert result["usage"]["output_tokens"] == 5, "the model was asked, and that was paid for"

    async def test_leaves_an_answer_that_stands_in_the_passages(self) -> None:
        result = await generate(ScriptedChatModel(["20 days"]), fallback="extractive", model="m")
        assert (result["answer"], result["model"]) == ("20 days", "m")

    async def test_is_off_unless_asked_for(self) -> None:
        assert (await generate(ScriptedChatModel(["35 weeks in the Alps."])))["answer"] == "35 weeks in the Alps."


async def test_failures_of_the_model_are_the_steps() -> None:
    with pytest.raises(RateLimited):
        await generate(ScriptedChatModel([RateLimited("wait", retry_after=1)]))


async def test_a_record_without_messages_dies_by_name() -> None:
    with pytest.raises(KeyError) as caught:
        await generate(ScriptedChatModel([]), {"query": "Why?"})
    assert caught.value.args == ("messages",)
    assert "Is a promptor upstream?" in caught.value.__notes__


class RealServices(ModelServices):
    """Services that open real clients, with variables of the test's own."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def chat_model(self, step: str, *, model: str, base_url: str | None, api_key: str | None) -> ChatModel:
        return open_chat_model(model=model, base_url=base_url, api_key=api_key, environ=self.environ)


class TestOpening:
    async def opened(self, environ: dict[str, str], **config: Any) -> None:
        operator = OpenAIGenerator(OpenAIGenerator.Config(**config))
        try:
            await operator.open(OpenContext("qa", "generate", cast(Services, RealServices(environ))))
        finally:
            await operator.close()

    async def test_says_which_variable_is_missing_and_what_else_would_do(self) -> None:
        with pytest.raises(MissingVariable) as caught:
            await self.opened({}, model="gpt-x")
        assert str(caught.value) == "OPENAI_API_KEY is not set. Set it, or use model: local/smollm2. [SAGE301]"
        assert caught.value.exit_code == 3

    async def test_a_local_model_without_a_server_says_how_to_start_one(self) -> None:
        with pytest.raises(Unreachable, match="sage up"):
            await self.opened({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})

    async def test_a_refused_key_stops_the_step(self) -> None:
        with FakeOpenAI(mode="unauthorized") as service, pytest.raises(Unauthorized):
            await self.opened({}, model="m", base_url=service.base_url, api_key="k")

    async def test_an_unknown_model_stops_the_step(self) -> None:
        with FakeOpenAI() as service, pytest.raises(NotFound):
            await self.opened({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": service.base_url}, model="m")

    async def test_a_good_service_is_asked_for_no_answer(self) -> None:
        with FakeOpenAI() as service:
            await self.opened({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": service.base_url}, model="fake-model")
            assert service.calls == []
            assert set(service.keys) == {"Bearer k"}


def test_the_key_is_a_secret_in_the_schema_and_in_print() -> None:
    assert OpenAIGenerator.Config.model_json_schema()["properties"]["api_key"]["secret"] is True
    assert "sk-1" not in repr(OpenAIGenerator.Config(api_key="sk-1"))


@pytest.mark.parametrize("wrong", [{"base_url": "localhost:8000"}, {"timeout": 0}, {"temperature": 3}, {"modle": "x"}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenAIGenerator.Config(**wrong)
