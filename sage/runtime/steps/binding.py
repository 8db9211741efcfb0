"""A step of the graph, made callable."""

from __future__ import annotations

import enum
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sage.errors import NotInThisVersion, SageError, StageStopped
from sage.graph.topology import Step
from sage.runtime.runs.counters import StepCounters
from sage.spec.cel import CelPredicate
from sage.spec.component import Component, Sink, Source
from sage.spec.config import make_component
from sage.spec.context import OpenContext, Services, StepScope
from sage.spec.options import Options
from sage.spec.shape import Shape, callable_of, is_component, shape_of


class Mode(enum.Enum):
    """What a step's result means."""

    MAP = "map"
    FLATMAP = "flatmap"
    FILTER = "filter"
    KEY_BY = "key_by"
    ROUTE = "route"
    SINK = "sink"
    COPY = "copy"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Call:
    """A callable and whether it takes the context."""

    function: Callable[..., Any]
    takes_ctx: bool

    @classmethod
    def of(cls, target: Any, shape: Shape) -> Call:
        """A call as the target's shape asks for it."""
        function = callable_of(target)
        if shape.takes_ctx and shape.ctx_keyword is not None:
            return cls(_with_keyword(function, shape.ctx_keyword), True)
        return cls(function, shape.takes_ctx)

    def __call__(self, value: Any, ctx: Any) -> Any:
        """Call it with the context where it wants one."""
        return self.function(value, ctx) if self.takes_ctx else self.function(value)


def _with_keyword(function: Callable[..., Any], keyword: str) -> Callable[..., Any]:
    return lambda value, ctx: function(value, **{keyword: ctx})


@dataclass(slots=True)
class BoundStep:
    """One step, ready to run: opened once per actor.

    ``code`` names the class or function, for dead letters. ``batch`` takes (values, contexts), or only values for
    a ``map_batches`` function, as ``batch_takes_ctx`` says. ``predicates`` are a route's branches in order.
    ``on_timer`` (of (name, ctx)), ``state`` and ``ttl`` are a ``process`` step's.
    """

    name: str
    mode: Mode
    scope: StepScope
    options: Options
    code: str = ""
    call: Call | None = None
    is_async: bool = False
    blocking: bool = False
    batch: Callable[..., Any] | None = None
    batch_takes_ctx: bool = True
    input_type: Any = None
    component: Component | None = None
    predicates: tuple[tuple[str, Call], ...] = ()
    default_branch: str | None = None
    on_timer: Call | None = None
    state: Any = None
    ttl: float | None = None
    counters: StepCounters = field(default_factory=StepCounters)

    @property
    def timeout(self) -> float | None:
        """Seconds one call may take: the step's option, else the component's default."""
        if self.options.timeout is not None:
            return self.options.timeout
        return self.component.default_timeout if self.component is not None else None

    async def open(self, concurrency: int) -> None:
        """Open the component.

        Raises:
            SageError: it can't be opened; names the step.
        """
        if self.component is None:
            return
        scope = self.scope
        ctx = OpenContext(scope.topology, scope.step, scope.services, scope.logger, concurrency)
        try:
            await _if_awaitable(self.component.open(ctx))
        except SageError:
            raise
        except Exception as error:
            raise StageStopped(
                f"opening {self.code} failed: {type(error).__name__}: {error}",
                where=f'{scope.topology} step "{scope.step}"',
            ) from error

    async def close(self) -> None:
        """Close the component."""
        if self.component is not None:
            await _if_awaitable(self.component.close())


async def _if_awaitable(result: Awaitable[None] | None) -> None:
    """Components may open and close without ``async``, too."""
    if inspect.isawaitable(result):
        await result


_MODES = {"map": Mode.MAP, "flatmap": Mode.FLATMAP, "filter": Mode.FILTER, "sink": Mode.SINK, "map_batches": Mode.MAP}


def bind_copy(name: str, topology: str, services: Services, *, converts: bool = False) -> BoundStep:
    """The only step of a stage that copies a topic to another: its bytes, or its values where they ``convert``."""
    scope = StepScope(topology, name, services, logging.getLogger(f"sage.step.{topology}.{name}"))
    if converts:
        return BoundStep(name, Mode.MAP, scope, Options(), "copy", call=Call(lambda value: value, False))
    return BoundStep(name, Mode.COPY, scope, Options(), "copy")


def bind(step: Step, options: Options, *, topology: str, services: Services, environ: Mapping[str, str]) -> BoundStep:
    """Make ``step`` callable: its component built with its configuration, secrets resolved from ``environ``.

    Raises:
        InvalidTopology: the configuration does not fit.
        MissingVariable: a secret's variable is not set here.
        NotInThisVersion: a window or a join.
    """
    scope = StepScope(topology, step.name, services, logging.getLogger(f"sage.step.{topology}.{step.name}"))
    if step.kind == "key_by":
        return BoundStep(
            step.name, Mode.KEY_BY, scope, options, _code(step.target), call=_key_call(step.target),
            blocking=bool(options.blocking),
        )  # fmt: skip
    if step.kind == "route":
        predicates = tuple((name, _predicate(step, name, target)) for name, target in step.branches.items())
        return BoundStep(
            step.name, Mode.ROUTE, scope, options, "route", predicates=predicates, default_branch=step.default_branch,
            blocking=bool(options.blocking),
        )  # fmt: skip
    if step.kind in ("window", "join", "union"):
        raise NotInThisVersion(f"{step.kind} steps are not in this version", where=step.where)
    return _bind_work(step, options, scope, environ)


def _bind_work(step: Step, options: Options, scope: StepScope, environ: Mapping[str, str]) -> BoundStep:
    shape = shape_of(step.target, step.kind)
    mode = _MODES.get(step.kind) or (Mode.FLATMAP if shape.is_generator else Mode.MAP)
    bound = BoundStep(step.name, mode, scope, options, _code(step.target), input_type=shape.input_type)
    bound.is_async = shape.is_async
    bound.blocking = options.blocking if options.blocking is not None else shape.blocking
    if step.kind == "process":
        bound.mode, bound.state, bound.ttl = Mode.PROCESS, step.state, step.ttl
        if step.on_timer is not None:
            bound.on_timer = Call.of(step.on_timer, shape_of(step.on_timer, "process"))
    if is_component(step.target):
        _attach_component(
            bound, make_component(step.target, step.config, environ=environ, where=step.where, places=step.places)
        )
    elif step.kind == "map_batches":
        bound.batch, bound.batch_takes_ctx = callable_of(step.target), shape.takes_ctx
    else:
        bound.call = Call.of(step.target, shape)
    return bound


def _code(target: Any) -> str:
    """``package.module.Class`` or ``package.module.function``; a field name as it is."""
    if isinstance(target, str):
        return target
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    module = getattr(target, "__module__", None) or getattr(target, "__objclass__", type(target)).__module__
    return f"{module}.{name}"


def _attach_component(bound: BoundStep, component: Component) -> None:
    bound.component = component
    if isinstance(component, Sink | Source):
        return
    bound.call = Call(component.process, True)  # type: ignore[attr-defined]  # an Operator, by the graph's validation
    bound.batch = getattr(component, "process_batch", None)
    if bound.mode is Mode.PROCESS:
        bound.on_timer = Call(component.on_timer, True)  # type: ignore[attr-defined]  # as above


def _predicate(step: Step, branch: str, target: Any) -> Call:
    if isinstance(target, str):
        return Call(CelPredicate(target, branch=branch, where=step.where_of(f"route.{branch}")), True)
    return _function_call(target)


def _function_call(target: Any) -> Call:
    return Call.of(target, shape_of(target, "filter"))


def _key_call(target: Any) -> Call:
    if callable(target):
        return _function_call(target)

    def field_of(value: Any) -> Any:
        try:
            return value[target]
        except TypeError:
            return getattr(value, target)

    return Call(field_of, False)
