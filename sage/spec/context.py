"""What a component knows of the record it holds and of the world around it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from sage.errors import StageStopped
from sage.model.keys import decode_key
from sage.model.record import Headers
from sage.ports import ChatModel, Embedder, RawMessage
from sage.spec.detached import detached

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


class Calls(Protocol):
    """The journaled calls of the record in hand; the runtime's journal, or a test's."""

    async def call(self, name: str, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """The function's result, or the one that an earlier try of this record was given."""
        ...

    def idempotency_key(self, name: str) -> str:
        """The same for this record, step and call in every try, whatever the arguments."""
        ...


class Timers(Protocol):
    """Timers of the key in hand. They are state: kept, restored and moved with it."""

    def set(self, name: str = "timer", *, after: float | str | None = None, at: int | None = None) -> None:
        """Be called back ``after`` a duration, or ``at`` a time in milliseconds; replaces one of the same name."""
        ...

    def cancel(self, name: str = "timer") -> None:
        """Forget it; one that is not set is no error."""
        ...

    @property
    def due(self) -> Mapping[str, int]:
        """Timers that are set: name to time in milliseconds."""
        ...


class KeyedAccess(Protocol):
    """State and timers of the key in hand, in a ``process`` step."""

    state: Any
    """A mapping of JSON values, or an instance of the step's ``state=Model``."""

    @property
    def timers(self) -> Timers:
        """This key's timers."""
        ...

    def clear(self) -> None:
        """Drop the key's state; its timers stay."""
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
    read_branches: frozenset[str] = frozenset()
    """Branches of the step that somebody reads."""


class Context:
    """What a step can ask about the record in hand.

    On the synchronous path one object is used again for every record: do not keep it.
    """

    __slots__ = ("_calls", "_emitted", "_keyed", "_message", "_record_id", "_scope", "diverted")

    def __init__(self, scope: StepScope) -> None:
        self._scope = scope
        self._message: RawMessage | None = None
        self._record_id = ""
        self._emitted: list[tuple[str, Any]] | None = None
        self.diverted = False
        self._calls: Calls | None = None
        self._keyed: KeyedAccess | None = None

    def attach(self, *, calls: Calls | None = None, keyed: KeyedAccess | None = None) -> Context:
        """Give it a journal and keyed state; the runtime's own."""
        self._calls = calls
        self._keyed = keyed
        return self

    def bind(self, message: RawMessage, record_id: str) -> Context:
        """Point at another record; the runtime's own."""
        self._message = message
        self._record_id = record_id
        self._emitted = None
        self.diverted = False
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
    def state(self) -> Any:
        """The state of this key: a mapping of JSON values, or an instance of the step's ``state=Model``.

        It may be changed in place or replaced; what it is when the step returns is kept, if the step succeeds.

        Raises:
            StageStopped: the step is not a ``process`` step.
        """
        keyed = self._keyed
        return keyed.state if keyed is not None else self._keyed_access("ctx.state").state

    @state.setter
    def state(self, value: Any) -> None:
        self._keyed_access("ctx.state").state = value

    @property
    def timer(self) -> Timers:
        """Timers of this key.

        Raises:
            StageStopped: the step is not a ``process`` step.
        """
        return self._keyed_access("ctx.timer").timers

    def clear_state(self) -> None:
        """Drop this key's state.

        Raises:
            StageStopped: the step is not a ``process`` step.
        """
        self._keyed_access("ctx.clear_state").clear()

    def _keyed_access(self, what: str) -> KeyedAccess:
        if self._keyed is None:
            raise StageStopped(
                f"{what} is there in process steps only; write .key_by(...).process(...) instead",
                where=f'{self.topology} step "{self.step}"',
            )
        return self._keyed

    def emit(self, name: str, value: Any) -> None:
        """Give ``value``, as it is now, to the branch ``name`` of this step, beside its output."""
        if self._emitted is None:
            self._emitted = []
        self._emitted.append((name, detached(value)))

    def divert(self, name: str, value: Any) -> bool:
        """Give ``value`` to the branch ``name`` in place of the step's output, if somebody reads that branch."""
        if name not in self._scope.read_branches:
            return False
        self.emit(name, value)
        self.diverted = True
        return True

    @property
    def has_emitted(self) -> bool:
        """Whether ``emit`` was given anything for the record in hand; the runtime's own."""
        return self._emitted is not None

    def take_emitted(self) -> list[tuple[str, Any]] | None:
        """What ``emit`` was given for the record in hand; the runtime's own."""
        emitted, self._emitted = self._emitted, None
        return emitted

    async def stream(self, delta: str) -> None:
        """Send tokens to a waiting client. Without one, as in every run without a gateway, they go nowhere."""

    async def call(self, name: str, fn: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """A journaled external call: after a crash its delivered result is used again.

        The result is kept in the step's journal before it is used, and decoded by the return annotation of ``fn``. A
        call in flight at the crash is made again, with the same idempotency key.

        Args:
            name: tells this call from others of the step; with the arguments and the record it is the result's key.
            fn: the async function.
            args: its arguments, which must have a JSON form.
            kwargs: its arguments by name.

        Raises:
            StageStopped: the step has no journal.
            TypeError: ``name`` is no text, or ``fn`` is not async.
        """
        if not isinstance(name, str) or not callable(fn):
            raise TypeError(f"ctx.call takes a name, an async function and its arguments; found {name!r}, {fn!r}")
        return cast("R", await self._journaled("ctx.call").call(name, fn, *args, **kwargs))

    @property
    def is_journaled(self) -> bool:
        """Whether the step has a journal, so that ``call`` may be used."""
        return self._calls is not None

    def idempotency_key(self, name: str) -> str:
        """A text for a service's ``Idempotency-Key``: the same in every try of this record's call ``name``."""
        return self._journaled("ctx.idempotency_key").idempotency_key(name)

    def _journaled(self, what: str) -> Calls:
        if self._calls is None:
            raise StageStopped(
                f"{what} needs a journal: it is there in async code that takes the context; where the planner does "
                "not see the call, say journal=True on the step",
                where=f'{self.topology} step "{self.step}"',
            )
        return self._calls
