"""The builder that an environment holds: streams add steps to it, and it gives the frozen topology."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, overload

from typing_extensions import Unpack

from sage.errors import InvalidTopology, NotInThisVersion
from sage.graph.caller import caller_origin, caller_place
from sage.graph.endpoints import collection_of
from sage.graph.targets import predicate_problem, state_problem, target_problem, timer_problem
from sage.graph.topology import Input, KeyedSettings, Origin, Step, StepKind, TopicSettings, Topology
from sage.graph.validate import validated
from sage.model.names import check_name
from sage.spec.component import Source
from sage.spec.config import normalise, normalise_config
from sage.spec.names import snake_case
from sage.spec.options import Guarantee, Options, StepOptions
from sage.spec.reference import reference_of
from sage.spec.registry import Registry
from sage.spec.settings import MemoryConfig, TopicSinkConfig, TopicSourceConfig, check_options
from sage.spec.shape import is_component

if TYPE_CHECKING:
    from sage.graph.stream import DataStream

T = TypeVar("T")
Format = Literal["json", "bytes", "str"]

_NUMBERED = frozenset({"union", "key_by"})
"""Kinds whose automatic name is the kind's, whatever they call."""


class StreamBuilder:
    """Collects the steps of one topology as a program describes it.

    Args:
        name: the topology's name.
        guarantee: ``at_least_once``, or ``exactly_once``.
        defaults: options for steps that don't set them.
        topics: how edge topics are made.
        memory: the memory that steps reach; may be set later.
        kafka: tuning properties for the topology's clients.
        registry: where components' names come from; the installed ones unless given.
        environ: where ``${VAR}`` in configurations is looked up; this process's environment unless given.

    Raises:
        InvalidTopology: the name or the guarantee is not one, or a default is no option.
    """

    def __init__(
        self,
        name: str,
        *,
        guarantee: Guarantee = "at_least_once",
        defaults: Options | Mapping[str, Any] | None = None,
        topics: TopicSettings | None = None,
        memory: Mapping[str, Any] | None = None,
        kafka: Mapping[str, Any] | None = None,
        registry: Registry | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        origin = caller_origin()
        where = None if origin is None else str(origin)
        self.name = check_name(name, what="topology", where=where)
        if guarantee not in get_args(Guarantee):
            choices = " or ".join(get_args(Guarantee))
            raise InvalidTopology(f"guarantee must be {choices}; found {guarantee!r}", where=where)
        self.guarantee: Guarantee = guarantee
        self.defaults = defaults if isinstance(defaults, Options) else _options(defaults or {}, where, named=False)[1]
        self.topics = topics or TopicSettings()
        self.memory: Mapping[str, Any] = dict(memory or {})
        self.kafka: Mapping[str, Any] = dict(kafka or {})
        self._registry = registry
        self._environ = environ
        self._steps: dict[str, Step] = {}

    # ------------------------------------------------------------------------------------- starts

    def from_source(
        self, source: type[Source[T]], config: Mapping[str, Any] | Any = None, **options: Unpack[StepOptions]
    ) -> DataStream[T]:
        """A stream of what ``source`` reads.

        Raises:
            InvalidTopology: it is no source class, or its options are not valid.
        """
        return self._stream(self.add("source", source, config=config, options=options))

    @overload
    def from_topic(
        self, topic: str, *, format: Literal["bytes"], timestamp: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[bytes]: ...
    @overload
    def from_topic(
        self, topic: str, *, format: Literal["str"], timestamp: None = None, **options: Unpack[StepOptions]
    ) -> DataStream[str]: ...
    @overload
    def from_topic(
        self,
        topic: str,
        *,
        format: Literal["json"] = "json",
        type: type[T],
        timestamp: None = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[T]: ...
    @overload
    def from_topic(
        self,
        topic: str,
        *,
        format: Literal["json"] = "json",
        type: None = None,
        timestamp: None = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[Any]: ...
    def from_topic(
        self,
        topic: str,
        *,
        format: Format = "json",
        type: type[Any] | None = None,
        timestamp: Any = None,
        **options: Unpack[StepOptions],
    ) -> DataStream[Any]:
        """A stream of a topic that another program writes, from its earliest record on.

        Args:
            topic: the topic; it must exist when the topology starts.
            format: how its values are read: JSON, UTF-8 text, or bytes as they are.
            type: what a type checker shall take the values for; they are plain JSON values. A step that wants
                a model of its own annotates its parameter with it.
            timestamp: the field with the event time; not in this version.
            options: the options of a step.

        Raises:
            NotInThisVersion: ``timestamp`` is given.
            InvalidTopology: the options are not valid.
        """
        if timestamp is not None:
            raise NotInThisVersion(
                "from_topic(timestamp=) is not in this version; records keep their Kafka timestamp",
                where=caller_place(),
            )
        config = {"topic": topic, "format": format}
        return self._stream(self.add("source", "topic", config=config, options=options, base="from_topic"))

    def from_collection(self, values: Iterable[T], **options: Unpack[StepOptions]) -> DataStream[T]:
        """A stream of the values of this program's own list (or any iterable, which is read at once).

        Raises:
            InvalidTopology: it is no iterable, or one text; the options are not valid.
        """
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise InvalidTopology(f"from_collection takes a list of values; found {values!r}", where=caller_place())
        return self._stream(self.add("source", collection_of(values), options=options, base="collection"))

    def _stream(self, name: str) -> DataStream[Any]:
        from sage.graph.stream import DataStream

        return DataStream(self, Input(name))

    # -------------------------------------------------------------------------------------- steps

    def add(
        self,
        kind: StepKind,
        target: Any,
        *,
        config: Any = None,
        options: Mapping[str, Any] | None = None,
        inputs: Sequence[Input] = (),
        base: str | None = None,
        branches: Mapping[str, Callable[..., Any] | str] | None = None,
        default_branch: str | None = None,
        keyed: KeyedSettings | None = None,
        max_hops: int | None = None,
    ) -> str:
        """Add a step and return its name; what the streams' methods do.

        Args:
            kind, target, config, inputs, branches, default_branch: as of ``Step``.
            options: the step's options, ``name`` among them.
            keyed: state, ttl and timers of a ``process`` step.
            max_hops: how often a record may come back, of a ``union`` that is a loop.
            base: what its automatic name is made of, where that isn't its target's name.

        Raises:
            InvalidTopology: at the caller's line: the name is taken, the target can't be called, an option or
                a configuration is not valid.
        """
        origin = caller_origin()
        explicit, checked = _options(options or {}, None if origin is None else str(origin), named=True)
        base = base or _base_name(kind, target)
        name = self._name(explicit, base, origin)
        origin = None if origin is None else replace(origin, path=f'step "{name}"')
        where = None if origin is None else str(origin)
        _refuse_code(kind, target, branches or {}, keyed or KeyedSettings(), where)
        step = Step(
            name=name,
            kind="operator" if kind == "map" and is_component(target) else kind,
            target=target,
            reference=self._reference(target),
            config=self._config(kind, target, config, where),
            options=checked,
            inputs=tuple(inputs),
            branches=dict(branches or {}),
            default_branch=default_branch,
            max_hops=max_hops,
            numbered=name not in {explicit, base},
            origin=origin,
        )
        self._steps[name] = step if keyed is None else _with_state(step, keyed)
        return name

    def feed_back(self, loop: str, source: Input) -> None:
        """Send a stream back to the beginning of a loop."""
        step = self._steps[loop]
        self._steps[loop] = replace(step, inputs=(*step.inputs, source))

    def build(self) -> Topology:
        """The frozen topology of what has been described so far.

        Raises:
            InvalidTopology: it can't run as it is; every problem is in ``problems``.
        """
        memory, problems = normalise(MemoryConfig, self.memory, environ=self._environ)
        if problems:
            raise InvalidTopology.of([problem.error(_inside(None, "memory", *problem.path)) for problem in problems])
        return validated(
            Topology(
                name=self.name,
                steps=tuple(self._steps.values()),
                guarantee=self.guarantee,
                defaults=self.defaults,
                topics=self.topics,
                memory=memory,
                kafka=dict(self.kafka),
            )
        )

    def _name(self, explicit: str | None, base: str, origin: Origin | None) -> str:
        where = None if origin is None else str(origin)
        if explicit is not None:
            check_name(explicit, where=where)
            if explicit in self._steps:
                raise InvalidTopology(
                    f"step name {explicit!r} is taken by {self._steps[explicit].where}; use another", where=where
                )
            return explicit
        check_name(base, where=where)
        name, number = base, 1
        while name in self._steps:
            number += 1
            name = f"{base}-{number}"
        return name

    def _reference(self, target: Any) -> str:
        if isinstance(target, str) or target is None:
            return ""
        if is_component(target):
            return (self._registry or Registry.installed()).name_of(target)
        return reference_of(target)

    def _config(self, kind: StepKind, target: Any, config: Any, where: str | None) -> dict[str, Any]:
        if is_component(target):
            found, problems = normalise_config(target, config, environ=self._environ)
        elif target == "topic" and kind in {"source", "sink"}:
            model = TopicSourceConfig if kind == "source" else TopicSinkConfig
            found, problems = normalise(model, config, environ=self._environ)
        elif config:
            raise InvalidTopology("a function has no configuration; write an Operator with a Config", where=where)
        else:
            return {}
        if problems:
            raise InvalidTopology.of([problem.error(_inside(where, "config", *problem.path)) for problem in problems])
        return found


def _inside(where: str | None, *path: str | int) -> str:
    """The place of a part of what was written at ``where``."""
    part = ".".join(map(str, path))
    return f"{where} {part}" if where and part else where or part


def _options(given: Mapping[str, Any], where: str | None, *, named: bool) -> tuple[str | None, Options]:
    name, options, problems = check_options(given, named=named)
    if problems:
        raise InvalidTopology.of([problem.error(_inside(where, *problem.path)) for problem in problems])
    return name, options


def _refuse_code(
    kind: StepKind, target: Any, branches: Mapping[str, Any], keyed: KeyedSettings, where: str | None
) -> None:
    """Raise for code, and for a state, that could only fail with the records."""
    problems = [target_problem(kind, target), state_problem(keyed.state), timer_problem(target, keyed.on_timer)]
    for branch, predicate in branches.items():
        problem = predicate_problem(predicate)
        problems.append(problem and f"branch {branch!r}: {problem}")
    found = next(filter(None, problems), None)
    if found is not None:
        raise InvalidTopology(found, where=where)


def _with_state(step: Step, keyed: KeyedSettings) -> Step:
    return replace(
        step, state=keyed.state, state_reference=reference_of(keyed.state) if keyed.state else "",
        ttl=keyed.ttl, on_timer=keyed.on_timer,
    )  # fmt: skip


def _base_name(kind: StepKind, target: Any) -> str:
    """The automatic name: the function's or class's in snake case, or the kind's where that says nothing."""
    if kind in _NUMBERED:
        return kind
    while hasattr(target, "func"):  # functools.partial
        target = target.func
    if not isinstance(target, type) and not hasattr(target, "__name__"):
        target = type(target)
    name = snake_case(getattr(target, "__name__", ""))
    return name if name.isascii() and name.replace("_", "").isalnum() else kind
