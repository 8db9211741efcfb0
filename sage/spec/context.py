"""What a component knows of the record it holds and of the world around it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, TypeVar

from sage.errors import NotInThisVersion
from sage.model.json import Json
from sage.model.keys import decode_key
from sage.model.record import Headers
from sage.ports import ChatModel, Embedder, RawMessage

if TYPE_CHECKING:
    from sage.memory.manager import MemoryManager

P = ParamSpec("P")
R = TypeVar("R")


class Services(Protocol):
    """What a component can ask of the process it runs in. Wired by ``sage.app``; scripted by ``sage.testing``."""

    @property
    def memory(self) -> MemoryManager:
        """The memory set by ``set_memory`` or the topology's ``memory:``. Connects on first use."""
        ...

    def embedder(self, name: str | None = None) -> Embedder:
        """The embedder of that name, or the memory's default. Loaded once per process."""
        ...

    def chat_model(self, step: str, *, model: str, base_url: str | None, api_key: str | None) -> ChatModel:
        """A client for that model; ``local/...`` names go to this folder's own model server."""
        ...


@dataclass(frozen=True, slots=True)
class OpenContext:
    """Given to ``open``: who is being opened, and what it can reach."""

    topology: str
    step: str
    services: Services
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("sage.step"))
    concurrency: int = 1


@dataclass(slots=True)
class StepScope:
    """What all records of one step share."""

    topology: str
    step: str
    services: Services
    logger: logging.Logger


class Context:
    """What a step can ask about the record in hand.

    On the synchronous path one object is used again for every record: do not keep it.
    """

    __slots__ = ("_emitted", "_message", "_record_id", "_scope")

    def __init__(self, scope: StepScope) -> None:
        self._scope = scope
        self._message: RawMessage | None = None
        self._record_id = ""
        self._emitted: list[tuple[str, Any]] | None = None

    def bind(self, message: RawMessage, record_id: str) -> Context:
        """Point at another record; the runtime's own."""
        self._message = message
        self._record_id = record_id
        self._emitted = None
        return self

    @property
    def _current(self) -> RawMessage:
        if self._message is None:
            raise RuntimeError("this context has no record; it is only valid inside process()")
        return self._message

    @property
    def key(self) -> str | bytes | None:
        """The record's key: text where it is UTF-8, else bytes; ``None`` is no key."""
        return decode_key(self._current.key())

    @property
    def headers(self) -> Headers:
        """The record's headers, in order."""
        return self._current.headers() or ()

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, as Kafka has it."""
        return self._current.timestamp()[1]

    @property
    def topic(self) -> str:
        """The topic the stage read the record from."""
        return self._current.topic()

    @property
    def partition(self) -> int:
        """The partition the stage read the record from."""
        return self._current.partition()

    @property
    def offset(self) -> int:
        """The offset the stage read the record at."""
        return self._current.offset()

    @property
    def record_id(self) -> str:
        """The record's identity (``sage.id``), the same after every restart and replay."""
        return self._record_id

    @property
    def topology(self) -> str:
        """The topology's name."""
        return self._scope.topology

    @property
    def step(self) -> str:
        """The step's name."""
        return self._scope.step

    @property
    def memory(self) -> MemoryManager:
        """The topology's memory."""
        return self._scope.services.memory

    @property
    def logger(self) -> logging.Logger:
        """A logger that carries topology and step."""
        return self._scope.logger

    @property
    def state(self) -> MutableMapping[str, Json]:
        """The state of this key.

        Raises:
            NotInThisVersion: keyed state is not there yet.
        """
        _not_yet("ctx.state (keyed state)")

    @property
    def timer(self) -> NoReturn:
        """Timers of this key.

        Raises:
            NotInThisVersion: keyed state is not there yet.
        """
        _not_yet("ctx.timer (keyed state)")

    def emit(self, name: str, value: Any) -> None:
        """Give ``value`` to the branch ``name`` of this step, beside its output."""
        if self._emitted is None:
            self._emitted = []
        self._emitted.append((name, value))

    def take_emitted(self) -> list[tuple[str, Any]] | None:
        """What ``emit`` was given for the record in hand; the runtime's own."""
        emitted, self._emitted = self._emitted, None
        return emitted

    async def stream(self, delta: str) -> None:
        """Send tokens to a waiting client. Without one, as in every run without a gateway, they go nowhere."""

    async def call(self, name: str, fn: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """A journaled external call.

        Raises:
            NotInThisVersion: the journal is not there yet.
        """
        _not_yet("ctx.call (the journal of external calls)")


def _not_yet(what: str) -> NoReturn:
    raise NotInThisVersion(
        f"{what} is not in this version; call the function directly, and expect it to be repeated after a crash"
    )
