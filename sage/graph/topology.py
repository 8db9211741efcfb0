"""The frozen graph that the fluent API and the YAML reader both give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sage.spec.options import Guarantee, Options

StepKind = Literal[
    "source",
    "operator",
    "map",
    "flatmap",
    "filter",
    "map_batches",
    "process",
    "key_by",
    "route",
    "window",
    "join",
    "union",
    "sink",
]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a step was written: ``rag.yaml:9:3 steps.retrieve`` or ``qa.py:12``."""

    file: str
    line: int
    column: int | None = None
    path: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + ("" if self.column is None else f":{self.column}")
        return f"{place} {self.path}".strip()


@dataclass(frozen=True, slots=True)
class Input:
    """An upstream step, or one of its branches."""

    step: str
    branch: str | None = None

    def __str__(self) -> str:
        return self.step if self.branch is None else f"{self.step}.{self.branch}"


@dataclass(frozen=True, slots=True)
class KeyedSettings:
    """What a ``process`` step has beside its code; as of ``Step``."""

    state: Any = None
    ttl: float | None = None
    on_timer: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the graph.

    Attributes:
        name: unique; the step's identity.
        kind: how it is used.
        target: the component class, the function, or for ``topic`` sources and sinks the text ``"topic"``;
            for ``key_by`` a function or a field name; for ``union`` nothing.
        reference: the text that names the target in YAML: a registered name, ``package.module:function``,
            or empty for what can't be named (a lambda, a function of ``__main__``).
        config: the component's options as plain JSON, secrets as ``${VAR}``; validated.
        options: the step's own options.
        inputs: upstream steps, in order.
        branches: for ``route``: branch name -> predicate (function or CEL text), in order.
        default_branch: for ``route``: where a record goes that no predicate takes.
        state: for ``process``: the pydantic model of one key's state; ``None`` is a mapping of JSON values.
        state_reference: the text that names it in YAML; empty for what can't be named.
        ttl: for ``process``: seconds after a key's last change until its state is dropped; ``None`` keeps it.
        on_timer: for ``process`` with a function: what is called when a timer is due.
        max_hops: how often a record may come through this step; what makes a cycle through it legal.
        numbered: its name was made up by counting, so that one written before it would take the name.
        origin: where it was written.
        places: where its parts were written, by their path in the step: ``from``, ``config.api_key``.
    """

    name: str
    kind: StepKind
    target: Any = None
    reference: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    inputs: tuple[Input, ...] = ()
    branches: Mapping[str, Any] = field(default_factory=dict)
    default_branch: str | None = None
    state: Any = None
    state_reference: str = ""
    ttl: float | None = None
    on_timer: Any = None
    max_hops: int | None = None
    numbered: bool = field(default=False, compare=False)
    origin: Origin | None = field(default=None, compare=False)
    places: Mapping[str, Origin] = field(default_factory=dict, compare=False)

    @property
    def is_topic(self) -> bool:
        """Whether this is a topic source or sink: the planner's own, no actor of its own."""
        return isinstance(self.target, str) and self.target == "topic" and self.kind in {"source", "sink"}

    @property
    def where(self) -> str:
        """The step's place for messages."""
        return str(self.origin) if self.origin is not None else f"step {self.name!r}"

    def where_of(self, path: str) -> str:
        """The place of a part of the step, such as ``config.api_key``; the nearest enclosing one that is known."""
        while path:
            if path in self.places:
                return str(self.places[path])
            path = path.rpartition(".")[0]
        return self.where


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """How edge topics are made. ``retention`` in seconds, ``None`` keeps for ever."""

    replication_factor: int = 1
    retention: float | None = None


@dataclass(frozen=True)
class Topology:
    """A named, validated graph of steps in topological order."""

    name: str
    steps: tuple[Step, ...]
    guarantee: Guarantee = "at_least_once"
    defaults: Options = field(default_factory=Options)
    topics: TopicSettings = field(default_factory=TopicSettings)
    memory: Mapping[str, Any] = field(default_factory=dict)
    kafka: Mapping[str, Any] = field(default_factory=dict)
    moved: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """Steps by name."""
        return {step.name: step for step in self.steps}

    def consumers(self, name: str) -> tuple[Step, ...]:
        """The steps that read ``name`` or a branch of it."""
        return tuple(step for step in self.steps if any(i.step == name for i in step.inputs))
