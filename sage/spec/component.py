"""The three kinds of component: operators, sources and sinks.

One component, one file. The nested ``Config`` is a pydantic model; its fields are the component's options
in Python and YAML, its JSON Schema is the documentation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from sage.model.json import Json
from sage.model.record import Record

if TYPE_CHECKING:
    from sage.spec.context import Context, OpenContext

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)
V = TypeVar("V")


class EmptyConfig(BaseModel):
    """The configuration of a component without options."""

    model_config = ConfigDict(extra="forbid")


class Component:
    """What operators, sources and sinks share: a configuration, ``open`` and ``close``.

    Class variables:
        Config: the pydantic model of the options.
        blocking: true for sync code that waits (network, disk): it runs in threads.
        local: true for a component that belongs to the caller's process (its terminal, its files).
        journaled: true where it makes external calls through ``ctx.call``.
        branches: branches that it gives values to by itself, where somebody reads them.
        default_timeout: seconds per call unless the step says otherwise; ``None`` is no limit.
    """

    Config: ClassVar[type[BaseModel]] = EmptyConfig
    blocking: ClassVar[bool] = False
    local: ClassVar[bool] = False
    journaled: ClassVar[bool] = False
    branches: ClassVar[tuple[str, ...]] = ()
    default_timeout: ClassVar[float | None] = None

    def __init__(self, config: BaseModel | None = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @classmethod
    def makes_calls(cls, config: Mapping[str, Any], memory: Mapping[str, Any]) -> bool:
        """Whether a step of this configuration has calls to journal; asked when the topology is planned.

        Args:
            config: the step's options, validated, as plain JSON.
            memory: the topology's memory settings.
        """
        del config, memory
        return cls.journaled

    async def open(self, ctx: OpenContext) -> None:
        """Called once per actor, before the first record. Check here what must be there; raise a SageError."""

    async def close(self) -> None:
        """Called once per actor, after the last record, also when ``open`` failed half-way."""


class Operator(Component, Generic[I_contra, O_co]):
    """One step's work on one value.

    Implement ``process`` as ``def`` or ``async def``; in a ``flatmap`` or ``process`` step it is a generator
    or returns an iterable. Implement ``process_batch`` too where a batch is cheaper, as with models: it must
    give one result per value, in order.
    """

    def process(self, value: Any, ctx: Context) -> Any:
        """The output for one value; ``None`` is Kafka's null."""
        raise NotImplementedError(f"{type(self).__name__} has no process()")

    def on_timer(self, name: str, ctx: Context) -> Any:
        """In a ``process`` step: a timer set by ``ctx.timer`` is due; gives values as ``process`` does."""
        raise NotImplementedError(f"{type(self).__name__} sets timers and has no on_timer()")


class Source(Component, Generic[O_co]):
    """Where records enter. Each task is read by one worker at a time, and its position is kept."""

    def tasks(self) -> Sequence[str]:
        """Names of parts that can be read in parallel; stable, since positions hang on them."""
        return ("0",)

    def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        """Yield (value or Record, position after it), starting after ``position``.

        ``bounded``: end when what is there now has been given. A source that can't must raise
        ``UnboundedSource``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no read()")


class UnboundedSource(Exception):  # noqa: N818 - an answer of a source, turned into a SageError by the runtime
    """This source never ends, so a bounded run can't be asked of it."""


class Sink(Component, Generic[I_contra]):
    """Where records leave. A batch that raised is written again, so write by ``record.id`` idempotently."""

    def write(self, records: Sequence[Record[Any]]) -> Awaitable[None]:
        """Take these records for good; they count as done when this returns."""
        raise NotImplementedError(f"{type(self).__name__} has no write()")
