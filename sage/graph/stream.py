"""The fluent API: streams, whose methods add steps to their environment's builder."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from pydantic import BaseModel
from typing_extensions import Unpack

from sage.errors import InvalidTopology, NotInThisVersion
from sage.graph.caller import caller_place
from sage.graph.endpoints import Print, collect_into
from sage.graph.topology import Input, KeyedSettings, StepKind
from sage.graph.validate import RESERVED_BRANCHES
from sage.model.duration import seconds
from sage.spec.component import Operator, Sink
from sage.spec.context import Context
from sage.spec.options import StepOptions
from sage.spec.suggest import hint

if TYPE_CHECKING:
    from sage.graph.builder import StreamBuilder

T = TypeVar("T")
R = TypeVar("R")

Config = Mapping[str, Any] | Any
"""A component's options: a mapping, or an instance of its ``Config``."""


class DataStream(Generic[T]):
    """The values that a step gives. Every method adds one step and returns its stream.

    All methods raise InvalidTopology at the caller's line where a target, a configuration or an option is not
    valid. Options are those of ``StepOptions``.
    """

    def __init__(self, builder: StreamBuilder, source: Input) -> None:
        self._builder = builder
        self._input = source

    @property
    def name(self) -> str:
        """The name of the step whose output this is."""
        return self._input.step

    # --------------------------------------------------------------------------------- one to one

    @overload
    def map(self, fn: type[Operator[T, R]], config: Config = None, **options: Unpack[StepOptions]) -> DataStream[R]: ...
    @overload
    def map(
        self, fn: Callable[[T], Awaitable[R]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def map(
        self, fn: Callable[[T, Context], Awaitable[R]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def map(self, fn: Callable[[T], R], config: None = None, **options: Unpack[StepOptions]) -> DataStream[R]: ...
    @overload
    def map(
        self, fn: Callable[[T, Context], R], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    def map(self, fn: Any, config: Config = None, **options: Unpack[StepOptions]) -> DataStream[Any]:
        """One output for each value: by a function, an async function, or an operator class.

        A ``None`` is Kafka's null, not "nothing". Key and headers stay the input's.
        """
        return self._then("map", fn, config=config, options=options)

    @overload
    def flatmap(
        self, fn: type[Operator[T, R]], config: Config = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def flatmap(
        self, fn: Callable[[T], Iterable[R]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def flatmap(
        self, fn: Callable[[T, Context], Iterable[R]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def flatmap(
        self, fn: Callable[[T], AsyncIterable[R]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def flatmap(
        self, fn: Callable[[T, Context], AsyncIterable[R]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def flatmap(
        self, fn: Callable[[T], Awaitable[Iterable[R]]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    @overload
    def flatmap(
        self, fn: Callable[[T, Context], Awaitable[Iterable[R]]], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[R]: ...
    def flatmap(self, fn: Any, config: Config = None, **options: Unpack[StepOptions]) -> DataStream[Any]:
        """Zero or more outputs for each value: ``fn`` is a generator, or returns an iterable."""
        return self._then("flatmap", fn, config=config, options=options)

    @overload
    def filter(
        self, fn: type[Operator[T, bool]], config: Config = None, **options: Unpack[StepOptions]
    ) -> DataStream[T]: ...
    @overload
    def filter(
        self, fn: Callable[[T], object], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[T]: ...
    @overload
    def filter(
        self, fn: Callable[[T, Context], object], config: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[T]: ...
    def filter(self, fn: Any, config: Config = None, **options: Unpack[StepOptions]) -> DataStream[T]:
        """The values for which ``fn`` gives something true; key, headers and value as they were."""
        return self._then("filter", fn, config=config, options=options)

    @overload
    def map_batches(
        self,
        fn: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_size: int,
        max_wait: float | str,
        **options: Unpack[StepOptions],
    ) -> DataStream[R]: ...
    @overload
    def map_batches(
        self,
        fn: Callable[[list[T]], Sequence[R]],
        *,
        max_size: int,
        max_wait: float | str,
        **options: Unpack[StepOptions],
    ) -> DataStream[R]: ...
    def map_batches(
        self, fn: Any, *, max_size: int, max_wait: float | str, **options: Unpack[StepOptions]
    ) -> DataStream[Any]:
        """One output for each value, made for several at once: a list to a list of the same length.

        Args:
            fn: the function, sync or async.
            max_size: values per call at most.
            max_wait: how long the first value waits for others, in seconds or as ``"5ms"``.
            options: the options of a step; ``batch`` is what the two arguments make.
        """
        if "batch" in options:
            raise InvalidTopology("map_batches takes max_size and max_wait, not batch", where=caller_place())
        options["batch"] = {"max_size": max_size, "max_wait": max_wait}
        return self._then("map_batches", fn, options=options)

    # ------------------------------------------------------------------------------- keys, routes

    def key_by(
        self, fn: Callable[[T], Any] | Callable[[T, Context], Any] | str, **options: Unpack[StepOptions]
    ) -> KeyedStream[T]:
        """The same values under the key that ``fn``, or the field of that name, gives.

        ``0``, ``""`` and ``False`` are keys; ``None`` is no key. Equal keys share a partition.
        """
        name = self._builder.add("key_by", fn, options=options, inputs=[self._input])
        return KeyedStream(self._builder, Input(name))

    def route(
        self,
        branches: Mapping[str, Callable[[T], object] | Callable[[T, Context], object] | str],
        default: str | None = "other",
        **options: Unpack[StepOptions],
    ) -> Branches[T]:
        """Each value to the first branch whose predicate takes it, else to ``default``; with ``None`` it dies.

        ``branches.name`` is the stream of one branch, ``branches["error"]`` that of the records that failed.
        """
        if not isinstance(branches, Mapping) or not branches:
            raise InvalidTopology(
                f"route takes a mapping of branches to predicates; found {branches!r}", where=caller_place()
            )
        name = self._builder.add(
            "route",
            None,
            base="route",
            options=options,
            inputs=[self._input],
            branches=branches,
            default_branch=default,
        )
        return Branches(self._builder, name, [*branches, *([] if default is None else [default])])

    def branch(self, name: str) -> DataStream[Any]:
        """What this step's code gives to ``ctx.emit(name, value)``, beside its output."""
        return DataStream(self._builder, Input(self._input.step, name))

    def union(self, *streams: DataStream[T], **options: Unpack[StepOptions]) -> DataStream[T]:
        """The values of this stream and the others, in the order in which they come."""
        for stream in streams:
            self._same_environment(stream)
        inputs = [self._input, *(stream._input for stream in streams)]
        name = self._builder.add("union", None, options=options, inputs=inputs)
        return DataStream(self._builder, Input(name))

    def loop(self, *, max_hops: int = 16, **options: Unpack[StepOptions]) -> Loop[T]:
        """The same values, and those that ``close`` sends back here: for agents that go around until they are done.

        Args:
            max_hops: how often a record may come back; one that does more often goes to the dead letters.
            options: the options of a step.
        """
        if not isinstance(max_hops, int) or isinstance(max_hops, bool) or max_hops < 1:
            raise InvalidTopology(f"max_hops must be a number of at least 1; found {max_hops!r}", where=caller_place())
        name = self._builder.add("union", None, options=options, inputs=[self._input], base="loop", max_hops=max_hops)
        return Loop(self._builder, Input(name))

    def join(
        self, other: DataStream[Any], within: float | str, how: str = "inner", **options: Unpack[StepOptions]
    ) -> Any:
        """Pairs of values of two streams.

        Raises:
            NotInThisVersion: always, for now.
        """
        _not_yet("join()", "join in one step that keeps what it has seen outside, or wait for keyed state")

    def lookup(self, table_topic: str, **options: Unpack[StepOptions]) -> Any:
        """Values joined to the newest row of a table topic.

        Raises:
            NotInThisVersion: always, for now.
        """
        _not_yet("lookup()", "look the row up inside map()")

    # --------------------------------------------------------------------------------------- ends

    def sink(self, sink: type[Sink[T]], config: Config = None, **options: Unpack[StepOptions]) -> None:
        """Give the values to a sink."""
        self._then("sink", sink, config=config, options=options)

    def to(self, topic: str, **options: Unpack[StepOptions]) -> None:
        """Write the values to exactly that topic, which is made when it is missing."""
        self._then("sink", "topic", config={"topic": topic}, options=options, base="to")

    def print(self, **options: Unpack[StepOptions]) -> None:
        """Write each value on a line of the standard output."""
        self._then("sink", Print, options=options, base="print")

    def collect(self, **options: Unpack[StepOptions]) -> list[T]:
        """A list that fills with the values while the topology runs, each record once."""
        values: list[T] = []
        self._then("sink", collect_into(values), options=options, base="collect")
        return values

    # ------------------------------------------------------------------------------------- inside

    if not TYPE_CHECKING:  # type checkers shall go on to refuse what isn't there

        def __getattr__(self, name: str) -> NoReturn:
            if name in {"process", "window"}:
                raise AttributeError(f"{name}() comes right after key_by(): .key_by(...).{name}(...)")
            verbs = [verb for verb in dir(type(self)) if not verb.startswith("_")]
            near = "" if name.startswith("_") else f"; {hint(name, verbs, what='it has')}"
            raise AttributeError(f"a {type(self).__name__} has no {name}{near}")

    def _then(
        self, kind: StepKind, target: Any, *, options: StepOptions, config: Config = None, base: str | None = None
    ) -> DataStream[Any]:
        name = self._builder.add(kind, target, config=config, options=options, inputs=[self._input], base=base)
        return DataStream(self._builder, Input(name))

    def _same_environment(self, other: object) -> None:
        if not isinstance(other, DataStream):
            raise InvalidTopology(f"takes streams; found {other!r}", where=caller_place())
        if other._builder is not self._builder:
            raise InvalidTopology(f"stream {other.name} belongs to another environment", where=caller_place())


class KeyedStream(DataStream[T]):
    """A stream whose records have a key of the program's choosing."""

    @overload
    def process(
        self,
        fn: type[Operator[T, R]],
        config: Config = None,
        *,
        state: type[BaseModel] | None = None,
        ttl: float | str | None = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        fn: Callable[[T, Context], AsyncIterable[R]],
        config: None = None,
        *,
        state: type[BaseModel] | None = None,
        ttl: float | str | None = None,
        on_timer: Callable[[str, Context], Any] | None = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        fn: Callable[[T, Context], Awaitable[Iterable[R]]],
        config: None = None,
        *,
        state: type[BaseModel] | None = None,
        ttl: float | str | None = None,
        on_timer: Callable[[str, Context], Any] | None = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        fn: Callable[[T, Context], Iterable[R]],
        config: None = None,
        *,
        state: type[BaseModel] | None = None,
        ttl: float | str | None = None,
        on_timer: Callable[[str, Context], Any] | None = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[R]: ...
    def process(
        self,
        fn: Any,
        config: Config = None,
        *,
        state: type[BaseModel] | None = None,
        ttl: float | str | None = None,
        on_timer: Any = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[Any]:
        """Zero or more outputs for each value, with state and timers of the record's key.

        Args:
            fn: a generator of (value, ctx), or an operator class; ``ctx.state`` and ``ctx.timer`` are its key's.
            config: the operator's options.
            state: a pydantic model of one key's state; without, it is a mapping of JSON values.
            ttl: how long after its last change a key is forgotten, in seconds or as ``"1h"``.
            on_timer: with a function: a generator of (name, ctx), called when a timer is due. An operator has a
                method of that name.
            options: the options of a step; ``name`` is needed, since the state hangs on it.
        """
        if options.get("name") is None:
            raise InvalidTopology("a step with state needs a name of its own: write name=...", where=caller_place())
        name = self._builder.add(
            "process", fn, config=config, options=options, inputs=[self._input],
            keyed=KeyedSettings(state, _ttl(ttl), on_timer),
        )  # fmt: skip
        return DataStream(self._builder, Input(name))

    def window(self, window: Any, grace: float | str = 0, **options: Unpack[StepOptions]) -> Any:
        """Values grouped by key and time.

        Raises:
            NotInThisVersion: always, for now.
        """
        _not_yet("window()", "aggregate in the program that reads the results")


class Loop(DataStream[T]):
    """A stream that records can be sent back to."""

    def close(self, *streams: DataStream[Any]) -> None:
        """Send these back to where the loop begins."""
        for stream in streams:
            self._same_environment(stream)
            self._builder.feed_back(self._input.step, stream._input)


class Branches(Generic[T]):
    """The branches of a ``route``: ``branches.spam`` and ``branches["spam"]`` are streams."""

    def __init__(self, builder: StreamBuilder, step: str, names: Sequence[str]) -> None:
        self._builder = builder
        self._step = step
        self._names = tuple(names)

    def __getitem__(self, name: str) -> DataStream[T]:
        if name not in self._names and name not in RESERVED_BRANCHES:
            raise InvalidTopology(
                f"route {self._step} has no branch {name!r}; {hint(name, self._names, what='branches')}",
                where=caller_place(),
            )
        return DataStream(self._builder, Input(self._step, name))

    def __getattr__(self, name: str) -> DataStream[T]:
        if name.startswith("__"):  # what Python itself asks for, as copy does
            raise AttributeError(name)
        return self[name]


def _ttl(written: float | str | None) -> float | None:
    try:
        return None if written is None else seconds(written)
    except ValueError as error:
        raise InvalidTopology(f"ttl: {error}", where=caller_place()) from error


def _not_yet(what: str, instead: str) -> NoReturn:
    raise NotInThisVersion(f"{what} is not in this version; {instead}", where=caller_place())
