"""Whether a target can be what its step makes of it."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

from sage.graph.topology import StepKind
from sage.spec.component import Component, Operator, Sink, Source
from sage.spec.shape import call_problem, is_component, shape_of

_ONE_RESULT = frozenset({"map", "filter", "key_by"})
"""Kinds that take one result of their code. A map's operator may still be a generator: it is then a flatmap."""

_TAKES_OPERATOR = frozenset({"operator", "map", "flatmap", "filter", "process"})
_ROLES: tuple[tuple[type[Component], str, str], ...] = (
    (Source, "a source", "from_source"),
    (Sink, "a sink", "sink"),
    (Operator, "an operator", "map"),
)


def target_problem(kind: StepKind, target: Any) -> str | None:
    """Why ``target`` can't be used in a step of this kind; ``None`` if it can."""
    if kind in {"union", "route"}:
        return None
    if isinstance(target, str):
        return None if kind in {"source", "sink", "key_by"} else f"{target!r} is a text, not a function or an Operator"
    if isinstance(target, Component):
        name = type(target).__name__
        return f"takes the class {name} and its options, not an instance: {_method(type(target))}({name}, {{...}})"
    if is_component(target):
        return _component_problem(kind, target)
    if kind in {"source", "sink"}:
        wanted = "Source" if kind == "source" else "Sink"
        return f"{_shown(target)} is not a {wanted} class"
    problem = call_problem(target) or _generator_problem(kind, target)
    return None if problem is None else f"{_shown(target)} {problem}" if callable(target) else problem


def predicate_problem(predicate: Any) -> str | None:
    """Why a route can't ask ``predicate``; ``None`` if it can, and for CEL, which is compiled elsewhere."""
    return target_problem("key_by", predicate)


def state_problem(state: Any) -> str | None:
    """Why ``state`` can't be the model of one key's state; ``None`` if it can."""
    if state is None or (isinstance(state, type) and issubclass(state, BaseModel)):
        return None
    found = state.__name__ if isinstance(state, type) else repr(state)
    return f"state must be a pydantic model (without it, state is a mapping); found {found}"


def timer_problem(target: Any, on_timer: Any) -> str | None:
    """Why ``on_timer`` can't be called for the timers of a step of ``target``; ``None`` if it can."""
    if on_timer is None:
        return None
    if is_component(target):
        return f"on_timer is for functions; write it as a method of {target.__name__}"
    if isinstance(on_timer, str) or is_component(on_timer):
        return f"on_timer must be a function of (name, ctx); found {on_timer!r}"
    problem = call_problem(on_timer)
    if problem is None:
        return None
    return f"on_timer: {_shown(on_timer)} {problem}" if callable(on_timer) else f"on_timer: {problem}"


def _generator_problem(kind: StepKind, target: Any) -> str | None:
    """What is told of code that yields where one result is taken: it would be the generator itself."""
    if kind not in _ONE_RESULT or not shape_of(target, kind).is_generator:
        return None
    if kind == "map":
        return "is a generator, and map makes one value of each; use it with flatmap()"
    return "is a generator, which would count as true or as the key; return the result instead of yielding it"


def _component_problem(kind: StepKind, target: type[Component]) -> str | None:
    for base, role, method in _ROLES:
        if not issubclass(target, base):
            continue
        fits = kind in _TAKES_OPERATOR if base is Operator else kind == method.removeprefix("from_")
        if not fits:
            return f"{target.__name__} is {role}; use it with {method}()"
        if base is not Operator:
            return _read_problem(target) if base is Source else _write_problem(target)
        generates = _generator_problem(kind, target) if kind == "filter" else None
        return _process_problem(target) or (generates and f"{target.__name__} {generates}")
    return f"{target.__name__} is a Component, but no Operator, Source or Sink"


def _process_problem(target: type[Component]) -> str | None:
    process = getattr(target, "process", None)
    if process is None or process is Operator.process:
        if callable(getattr(target, "process_batch", None)):
            return None
        return f"{target.__name__} has no process(); write process(self, value, ctx)"
    if not _binds(process, None, None, None):
        return f"{target.__name__}.process can't be called with (value, ctx); write process(self, value, ctx)"
    return None


def _read_problem(target: type[Component]) -> str | None:
    read: Any = getattr(target, "read", None)
    if inspect.isgeneratorfunction(read) or inspect.iscoroutinefunction(read):
        given = "generator" if inspect.isgeneratorfunction(read) else "coroutine"
        return f"{target.__name__}.read gives a {given}; write it with async def and yield"
    if not _binds(read, None, "0", None, bounded=True):
        return f"{target.__name__}.read can't be called as it is; write read(self, task, position, *, bounded)"
    return None


def _write_problem(target: type[Component]) -> str | None:
    write: Any = getattr(target, "write", None)
    if inspect.isgeneratorfunction(write) or inspect.isasyncgenfunction(write):
        return f"{target.__name__}.write is a generator, whose code nothing runs; write it without yield"
    if not _binds(write, None, []):
        return f"{target.__name__}.write can't be called as it is; write async def write(self, records)"
    return None


def _binds(code: Any, *given: Any, **named: Any) -> bool:
    """Whether it can be called with these, as far as can be seen."""
    try:
        inspect.signature(code).bind(*given, **named)
    except TypeError:
        return False
    except ValueError:  # C code without a signature: seen when it runs
        return True
    return True


def _method(target: type[Component]) -> str:
    return next((f".{method}" for base, _, method in _ROLES if issubclass(target, base)), "")


def _shown(target: Any) -> str:
    name = getattr(target, "__qualname__", None) or type(target).__name__
    return "the lambda" if name.endswith("<lambda>") else str(name)
