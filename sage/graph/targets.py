"""Whether a target can be what its step makes of it."""

from __future__ import annotations

import inspect
from typing import Any

from sage.graph.topology import StepKind
from sage.spec.component import Component, Operator, Sink, Source
from sage.spec.shape import call_problem, is_component

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
    problem = call_problem(target)
    return None if problem is None else f"{_shown(target)} {problem}" if callable(target) else problem


def _component_problem(kind: StepKind, target: type[Component]) -> str | None:
    for base, role, method in _ROLES:
        if not issubclass(target, base):
            continue
        fits = kind in _TAKES_OPERATOR if base is Operator else kind == method.removeprefix("from_")
        if not fits:
            return f"{target.__name__} is {role}; use it with {method}()"
        return _process_problem(target) if base is Operator else None
    return f"{target.__name__} is a Component, but no Operator, Source or Sink"


def _process_problem(target: type[Component]) -> str | None:
    process = getattr(target, "process", None)
    if process is None or process is Operator.process:
        if callable(getattr(target, "process_batch", None)):
            return None
        return f"{target.__name__} has no process(); write process(self, value, ctx)"
    try:
        inspect.signature(process).bind(None, None, None)
    except TypeError:
        return f"{target.__name__}.process can't be called with (value, ctx); write process(self, value, ctx)"
    except ValueError:  # C code without a signature: seen when it runs
        return None
    return None


def _method(target: type[Component]) -> str:
    return next((f".{method}" for base, _, method in _ROLES if issubclass(target, base)), "")


def _shown(target: Any) -> str:
    name = getattr(target, "__qualname__", None) or type(target).__name__
    return "the lambda" if name.endswith("<lambda>") else str(name)
