"""A chat model that follows a script, for tests without a service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sage.errors import TransientFailure
from sage.model.documents import Usage
from sage.ports import ChatRequest, ChatResponse
from sage.testing.deltas import give_deltas

Reply: TypeAlias = "str | ChatResponse | BaseException | Broken | Hanging"
"""What a call gets: a text, a whole response, an error that is raised, half an answer, or nothing ever."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """A reply that takes ``seconds`` of the model's ``sleep``."""

    seconds: float
    reply: Reply


@dataclass(frozen=True, slots=True)
class Broken:
    """A reply that breaks off: the first ``words`` of ``text`` are streamed, then ``error`` is raised."""

    text: str
    words: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Hanging:
    """No reply at all: the call waits until somebody gives it up."""


class ScriptEnded(AssertionError):  # noqa: N818 - the script ended; the test failed
    """A call came after the last reply of the script."""


class ScriptedChatModel:
    """The ``ChatModel`` port, answered from a script: one entry per call, in the order of the calls.

    ::

        model = ScriptedChatModel(
            ["20 days.", RateLimited("wait"), Delayed(2.0, "late"), Broken("20 days.", 1, ConnectionError()), Hanging()]
        )

    A function of the request stands for a script without an end. In a ``TopologyDriver`` delays pass in its virtual
    time, at once. As with a real service no call takes longer than its request's ``timeout``.

    Args:
        script: the replies, or a function that makes one for each request.
        sleep: what ``Delayed`` waits with; a driver with virtual time passes its own.

    Attributes:
        requests: every request, in order, failed ones included.
        closed: how often ``close`` was called.

    Raises:
        TypeError: the script holds something else than replies.
    """

    def __init__(
        self,
        script: Sequence[Reply | Delayed] | Callable[[ChatRequest], Reply | Delayed],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        _check(script)
        self._script = script
        self._sleep = sleep
        self.requests: list[ChatRequest] = []
        self.closed = 0

    async def complete(
        self, request: ChatRequest, *, on_delta: Callable[[str], Awaitable[None]] | None = None
    ) -> ChatResponse:
        """The script's next reply; its text goes to ``on_delta`` word by word first.

        Raises:
            ScriptEnded: the script has no reply left.
            TransientFailure: the reply does not come within the request's ``timeout``.
            BaseException: the one that the script holds.
        """
        reply, limit = self._next(request), asyncio.timeout(request.timeout)
        try:
            async with limit:
                return await self._answered(request, reply, on_delta)
        except TimeoutError as error:
            if not limit.expired():  # the script's own
                raise
            raise TransientFailure(
                f"model {request.model} did not answer within {request.timeout:g} s; raise `timeout` if it is slow"
            ) from error

    async def _answered(
        self, request: ChatRequest, reply: Reply | Delayed, on_delta: Callable[[str], Awaitable[None]] | None
    ) -> ChatResponse:
        if isinstance(reply, Delayed):
            await self._sleep(reply.seconds)
            reply = reply.reply
        if isinstance(reply, Hanging):
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nobody answers a call that hangs")
        if isinstance(reply, Broken):
            await give_deltas(reply.text, on_delta, reply.words)
            raise reply.error
        if isinstance(reply, BaseException):
            raise reply
        response = reply if isinstance(reply, ChatResponse) else _response(request, reply)
        await give_deltas(response.text, on_delta)
        return response

    async def close(self) -> None:
        """Counted in ``closed``; the script goes on where it was."""
        self.closed += 1

    @property
    def prompts(self) -> list[str]:
        """The last message of every request: what the model was asked."""
        return [request.messages[-1]["content"] for request in self.requests]

    def _next(self, request: ChatRequest) -> Reply | Delayed:
        place = len(self.requests)
        self.requests.append(request)
        if not isinstance(self._script, Sequence):
            return self._script(request)
        if place >= len(self._script):
            raise ScriptEnded(
                f"the script has {len(self._script)} replies, and call {place + 1} asked: "
                f"{request.messages[-1]['content'][:80]!r}"
            )
        return self._script[place]


def _check(script: object) -> None:
    """Raise for what would fail in the first call that gets it, far from where it was written."""
    if callable(script):
        return
    if not isinstance(script, Sequence) or isinstance(script, str | bytes):
        raise TypeError(f"a script is a list of replies or a function; found {script!r}")
    for number, written in enumerate(script, 1):
        reply = written.reply if isinstance(written, Delayed) else written
        if isinstance(reply, type):
            raise TypeError(f"reply {number} is the class {reply.__name__}; write {reply.__name__}(...)")
        if not isinstance(reply, str | ChatResponse | BaseException | Broken | Hanging):
            raise TypeError(f"reply {number} is no text, response or error: {reply!r}")


def _response(request: ChatRequest, text: str) -> ChatResponse:
    """A response whose usage counts words, so that tests of budgets have something to count."""
    read = sum(len(message["content"].split()) for message in request.messages)
    usage = Usage(input_tokens=read, output_tokens=len(text.split()))
    return ChatResponse(text=text, model=request.model, usage=usage)
