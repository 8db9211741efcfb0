"""An answer from a chat model: SAGE's own local one, or any service that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from sage.llm.chat.service import DEFAULT_MODEL
from sage.llm.text.grounding import citations, is_grounded
from sage.model.documents import Document
from sage.model.duration import Duration
from sage.operators.extractive_reader import extractive_answer
from sage.operators.record import as_record, required
from sage.ports import ChatModel, ChatRequest, ChatResponse, Checkable
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext

OnDelta = Callable[[str], Awaitable[None]]


class OpenAIGenerator(Operator[str | Mapping[str, Any], dict[str, Any]]):
    """Send ``messages`` to a chat model; write ``answer``, ``usage``, ``model`` and ``citations``.

    Where the record has ``documents``, ``citations`` are the sentences of them that the answer stands on. With
    ``fallback: extractive`` an answer that they don't bear out is replaced by their best sentence, and ``model``
    then says ``extractive``.
    """

    class Config(BaseModel):
        """Which model, where, and how it writes."""

        model_config = ConfigDict(extra="forbid")

        model: str = Field(default=DEFAULT_MODEL, description="local/smollm2, or a name that the service knows.")
        base_url: str | None = Field(
            default=None,
            description="Where the OpenAI protocol begins, as http://host:8000/v1. Unset: OPENAI_BASE_URL, or this "
            "folder's own server for local/ models.",
        )
        api_key: SecretStr | None = Field(
            default=None,
            description="The service's key; unset: OPENAI_API_KEY. Local models need none.",
            json_schema_extra={"secret": True, "instead": f"use model: {DEFAULT_MODEL}"},
        )
        temperature: float | None = Field(
            default=0.0, ge=0, le=2, description="0 always picks the likeliest word; null leaves it to the service."
        )
        max_tokens: int | None = Field(default=None, ge=1, description="The answer's length at most, in tokens.")
        timeout: Duration = Field(default=60.0, gt=0, description="Seconds for the whole answer.")
        seed: int | None = Field(default=None, description="Makes sampling repeatable where the service can.")
        stop: list[str] = Field(default=[], description="Texts that end the answer when the model writes them.")
        fallback: Literal["extractive"] | None = Field(
            default=None,
            description="What answers where the passages don't bear the model out: their best sentence, or nothing.",
        )
        min_support: float = Field(
            default=0.8,
            ge=0,
            le=1,
            description="With a fallback: the share of the answer's words one passage must have.",
        )

        @field_validator("base_url")
        @classmethod
        def _is_http(cls, address: str | None) -> str | None:
            if address is not None and not address.startswith(("http://", "https://")):
                raise ValueError(f"{address!r} must begin with http:// or https://")
            return address or None

    journaled = True
    _model: ChatModel | None = None

    async def open(self, ctx: OpenContext) -> None:
        """Connect to the service, and ask it whether it takes the key and knows the model.

        Raises:
            MissingVariable: no key is set.
            Unreachable, Unauthorized, NotFound: the service can't be used; no record is touched.
        """
        key = self.config.api_key.get_secret_value() if self.config.api_key else None
        # A local model's server may have to be fetched and started first; other steps go on meanwhile.
        self._model = await asyncio.to_thread(
            ctx.services.chat_model,
            ctx.step,
            model=self.config.model,
            base_url=self.config.base_url,
            api_key=key or None,
        )
        if isinstance(self._model, Checkable):
            await self._model.check(self.config.model)

    async def close(self) -> None:
        """Give the connection back."""
        if self._model is not None:
            await self._model.close()
            self._model = None

    async def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with its answer.

        Raises:
            KeyError: the record has no ``messages``.
            SageError: as the ``ChatModel`` port says.
        """
        record = as_record(value)
        messages = required(record, "messages", hint="Is a promptor upstream?")
        assert self._model is not None, "process() before open()"
        # Journaled: after a crash the answer that was paid for is used again, and nothing is streamed.
        request = self._request(messages, ctx)
        response = await ctx.call("chat", self._complete, request, self.config.base_url, on_delta=ctx.stream)
        return {**record, **self._answer(record, response)}

    async def _complete(self, request: ChatRequest, base_url: str | None, on_delta: OnDelta) -> ChatResponse:
        """Ask the model; the service's address is part of what a journaled answer belongs to."""
        del base_url
        assert self._model is not None, "process() before open()"
        return await self._model.complete(request, on_delta=on_delta)

    def _request(self, messages: Any, ctx: Context) -> ChatRequest:
        config = self.config
        return ChatRequest(
            messages=tuple(messages),
            model=config.model,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            seed=config.seed,
            timeout=config.timeout,
            idempotency_key=ctx.idempotency_key("chat"),
            extra={"stop": config.stop} if config.stop else {},
        )

    def _answer(self, record: Mapping[str, Any], response: ChatResponse) -> dict[str, Any]:
        answer = response.text.strip()
        fields: dict[str, Any] = {"answer": answer, "model": response.model}
        if response.usage["input_tokens"] or response.usage["output_tokens"]:
            fields["usage"] = dict(response.usage)  # a service that counts nothing says nothing of tokens
        query, documents = record.get("query"), record.get("documents")
        if not isinstance(query, str) or not documents:
            return fields
        if self._needs_fallback(query, answer, documents):
            return {**fields, **extractive_answer(query, documents)}
        return {**fields, "citations": citations(query, answer, documents)}

    def _needs_fallback(self, query: str, answer: str, documents: list[Document]) -> bool:
        return self.config.fallback is not None and not is_grounded(
            query, answer, documents, threshold=self.config.min_support
        )
