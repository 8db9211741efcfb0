"""Spans of model calls and searches, for operators to open around their own calls.

They are children of the step's span through OpenTelemetry's current context, so an operator needs no tracer in hand::

    with chat("local/smollm2", provider="openai", temperature=0.0) as span:
        response = await client.complete(...)
        span.answered(response)

Where the record is not traced they cost one look at the context and make nothing. What was asked and answered is
recorded only where ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import INVALID_SPAN, SpanKind, get_current_span, use_span

from sage.model.documents import Document, Message
from sage.tracing import names

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan

    from sage.ports import ChatResponse


class GenerativeSpan:
    """The span of one call; every method is safe where nothing is traced."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def first_chunk(self, seconds: float) -> None:
        """The first part of a streamed answer came after ``seconds``."""
        self._span.set_attribute(names.TIME_TO_FIRST_CHUNK, seconds)

    def asked(self, messages: Sequence[Message]) -> None:
        """Record the prompt, where contents are captured."""
        if self._span.is_recording() and captures_content():
            self._span.set_attribute(names.INPUT_MESSAGES, _json([_message(each) for each in messages]))

    def answered(self, response: ChatResponse) -> None:
        """Record what the service said of its answer, and the answer where contents are captured."""
        if not self._span.is_recording():
            return
        self._span.set_attributes(
            {
                names.RESPONSE_MODEL: response.model,
                names.FINISH_REASONS: [response.finish_reason],
                names.INPUT_TOKENS: response.usage["input_tokens"],
                names.OUTPUT_TOKENS: response.usage["output_tokens"],
            }
        )
        if response.id:
            self._span.set_attribute(names.RESPONSE_ID, response.id)
        if captures_content():
            answer = _message({"role": "assistant", "content": response.text})
            self._span.set_attribute(names.OUTPUT_MESSAGES, _json([answer | {"finish_reason": response.finish_reason}]))

    def found(self, query: str, documents: Sequence[Document]) -> None:
        """Record a search's query and hits, where contents are captured."""
        if self._span.is_recording() and captures_content():
            self._span.set_attribute(names.RETRIEVAL_QUERY, query)
            hits = [{"id": each["id"], "score": each["score"]} for each in documents]
            self._span.set_attribute(names.RETRIEVAL_DOCUMENTS, _json(hits))


def captures_content() -> bool:
    """Whether prompts and answers may be recorded."""
    return os.environ.get(names.CAPTURE_CONTENT, "").strip().lower() in {"true", "1", "span_only", "span_and_event"}


@contextmanager
def chat(
    model: str,
    *,
    provider: str,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    stream: bool = False,
    server: str | None = None,
    port: int | None = None,
) -> Iterator[GenerativeSpan]:
    """``chat MODEL``, CLIENT, around one chat completion; an exception marks it as failed and goes on."""
    attributes = {
        names.GEN_AI_OPERATION: "chat",
        names.GEN_AI_PROVIDER: provider,
        names.REQUEST_MODEL: model,
        names.REQUEST_TEMPERATURE: temperature,
        names.REQUEST_MAX_TOKENS: max_tokens,
        names.REQUEST_SEED: seed,
        names.REQUEST_STREAM: True if stream else None,
        names.SERVER_ADDRESS: server,
        names.SERVER_PORT: port,
    }
    with _call(names.chat_span(model), attributes) as span:
        yield span


@contextmanager
def embeddings(model: str, *, provider: str, dimension: int) -> Iterator[GenerativeSpan]:
    """``embeddings MODEL``, CLIENT, around one call of an embedder; linked to all records of the micro-batch."""
    attributes = {
        names.GEN_AI_OPERATION: "embeddings",
        names.GEN_AI_PROVIDER: provider,
        names.REQUEST_MODEL: model,
        names.EMBEDDING_DIMENSION: dimension,
    }
    with _call(names.embeddings_span(model), attributes) as span:
        yield span


@contextmanager
def retrieval(data_source: str, *, top_k: int) -> Iterator[GenerativeSpan]:
    """``retrieval DATA_SOURCE``, CLIENT, around one search of a collection."""
    attributes = {
        names.GEN_AI_OPERATION: "retrieval",
        names.DATA_SOURCE: data_source,
        names.RETRIEVAL_TOP_K: top_k,
    }
    with _call(names.retrieval_span(data_source), attributes) as span:
        yield span


_NOWHERE = GenerativeSpan(INVALID_SPAN)


@contextmanager
def _call(name: str, attributes: Mapping[str, Any]) -> Iterator[GenerativeSpan]:
    if not get_current_span().is_recording():
        yield _NOWHERE
        return
    from sage.tracing.span import current_tracer, links_to_other_records, record_failure

    tracer = current_tracer()
    if tracer is None:
        yield _NOWHERE
        return
    known = {key: value for key, value in attributes.items() if value is not None}
    span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=known, links=links_to_other_records())
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield GenerativeSpan(span)
        except BaseException as error:
            record_failure(span, error)
            raise


def _message(message: Message) -> dict[str, Any]:
    """The conventions' shape of a message: parts of text."""
    return {"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]}


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()
