"""A chat model behind any service that speaks the OpenAI protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from sage.errors import NotFound, Unauthorized, Unreachable
from sage.llm.chat.clients import ClientLease, lease
from sage.llm.chat.errors import SERVICE_ERRORS, BrokenOff, GarbageReply, classified, timed_out
from sage.model.documents import Usage
from sage.model.secrets import remember_secret, without_userinfo
from sage.ports import ChatRequest, ChatResponse

CHECK_TIMEOUT = 10.0
"""Seconds that a service may take to list its models when a step opens."""

OnDelta = Callable[[str], Awaitable[None]]


class OpenAIChatModel:
    """The ``ChatModel`` port over the chat completions endpoint.

    Answers are always streamed inside: the first token's time can be seen, and a canceled call closes
    its connection, so that the service stops generating.

    Args:
        base_url: where the protocol begins, for example ``http://localhost:8000/v1``.
        api_key: the service's key; never shown.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        remember_secret(api_key)
        self._lease: ClientLease | None = None

    def __repr__(self) -> str:
        return f"OpenAIChatModel({without_userinfo(self.base_url)!r})"

    async def complete(self, request: ChatRequest, *, on_delta: OnDelta | None = None) -> ChatResponse:
        """One answer; ``on_delta`` is awaited with each piece of text as it arrives.

        Raises:
            SageError: as ``sage.llm.chat.errors`` says; the service's address is in the message.
        """
        try:
            async with asyncio.timeout(request.timeout):
                return await self._complete(request, on_delta)
        except TimeoutError as error:
            raise timed_out(without_userinfo(self.base_url), request.model, request.timeout) from error
        except SERVICE_ERRORS as error:
            raise classified(error, address=without_userinfo(self.base_url), model=request.model) from error

    async def check(self, model: str) -> None:
        """Ask the service whether it is there, takes the key and knows ``model``, without a chat call.

        Services that list no models, and overloaded ones, pass: the first call will tell.

        Raises:
            Unreachable: nobody answers, or not within ``CHECK_TIMEOUT``.
            Unauthorized: the key is refused.
            NotFound: the service says itself that it has no such model.
        """
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                if model not in await self._listed():
                    await self._client().models.retrieve(model)
        except TimeoutError as error:
            raise Unreachable(
                f"the model service at {without_userinfo(self.base_url)} did not answer within {CHECK_TIMEOUT:g} s. "
                "Is it overloaded, or is base_url wrong?"
            ) from error
        except SERVICE_ERRORS as error:
            if isinstance(error, openai.NotFoundError) and error.code != "model_not_found":
                return  # this service has no such page; that says nothing of the model
            failure = classified(error, address=without_userinfo(self.base_url), model=model)
            if isinstance(failure, Unreachable | Unauthorized | NotFound):
                raise failure from error

    async def models(self) -> list[str]:
        """The names that the service lists; empty where it lists none.

        Raises:
            SageError: the service can't be asked.
        """
        try:
            return await self._listed()
        except SERVICE_ERRORS as error:
            raise classified(error, address=without_userinfo(self.base_url), model="*") from error

    async def _listed(self) -> list[str]:
        listed = await self._client().models.list(timeout=CHECK_TIMEOUT)
        return [entry.id for entry in getattr(listed, "data", None) or () if getattr(entry, "id", None)]

    async def close(self) -> None:
        """Give the shared client back; idempotent."""
        if self._lease is not None:
            await self._lease.release()
            self._lease = None

    def _client(self) -> openai.AsyncOpenAI:
        if self._lease is None:
            self._lease = lease(self.base_url, self._api_key)
        return self._lease.client

    async def _complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        raw = await self._client().chat.completions.with_raw_response.create(**_arguments(request))
        if "event-stream" not in raw.headers.get("content-type", ""):
            # Some services answer in one piece whatever was asked.
            return await _whole(await raw.http_response.aread(), request, on_delta)
        answer = _Collected()
        stream: openai.AsyncStream[ChatCompletionChunk] = raw.parse()
        async with stream:
            async for chunk in stream:
                delta = answer.add(chunk)
                if delta and on_delta is not None:
                    await on_delta(delta)
        return answer.response(request)


class _Collected:
    """What the chunks of one streamed answer add up to."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.id = self.model = ""
        self.finish_reason: str | None = None
        self.usage: Any = None

    def add(self, chunk: ChatCompletionChunk) -> str:
        """Take one chunk; returns its text."""
        self.id = chunk.id or self.id
        self.model = chunk.model or self.model
        self.usage = chunk.usage or self.usage
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        delta = (choice.delta.content if choice.delta else None) or ""
        self.pieces.append(delta)
        return delta

    def response(self, request: ChatRequest) -> ChatResponse:
        """The finished answer.

        Raises:
            BrokenOff: the stream ended before the answer did.
            GarbageReply: there was no answer in it at all.
        """
        if self.finish_reason is None:
            if self.pieces:
                raise BrokenOff(f"the stream ended after {len(self.pieces)} pieces")
            raise GarbageReply("an event stream without choices")
        return ChatResponse(
            text="".join(self.pieces),
            model=self.model or request.model,
            usage=_usage(self.usage),
            finish_reason=self.finish_reason,
            id=self.id,
        )


def _arguments(request: ChatRequest) -> dict[str, Any]:
    optional = {"temperature": request.temperature, "max_tokens": request.max_tokens, "seed": request.seed}
    arguments: dict[str, Any] = {
        "model": request.model,
        "messages": list(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in optional.items() if value is not None},
    }
    if request.idempotency_key is not None:
        arguments["extra_headers"] = {"Idempotency-Key": request.idempotency_key}
    if request.extra:
        arguments["extra_body"] = dict(request.extra)
    return arguments


async def _whole(body: bytes, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
    try:
        completion = ChatCompletion.model_validate_json(body)
    except ValueError as error:
        raise GarbageReply(f"{body[:80].decode(errors='replace')!r} is no chat completion") from error
    if not completion.choices:
        raise GarbageReply("a chat completion without choices")
    choice = completion.choices[0]
    text = choice.message.content or ""
    if text and on_delta is not None:
        await on_delta(text)
    return ChatResponse(
        text=text,
        model=completion.model or request.model,
        usage=_usage(completion.usage),
        finish_reason=choice.finish_reason or "stop",
        id=completion.id or "",
    )


def _usage(reported: Any) -> Usage:
    """Tokens as the service counted them; zeros where it didn't."""
    return Usage(
        input_tokens=getattr(reported, "prompt_tokens", None) or 0,
        output_tokens=getattr(reported, "completion_tokens", None) or 0,
    )
