"""Other code for some steps of a topology, as a test wants it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sage.errors import InvalidTopology, UnknownName
from sage.graph.targets import target_problem
from sage.graph.topology import Step, Topology
from sage.model.record import Record
from sage.ports import ChatModel
from sage.spec.component import Sink
from sage.spec.shape import is_component
from sage.spec.suggest import hint

Override = ChatModel | Callable[..., Any]
"""A chat model for a step that calls one, or a function in place of the step's own."""

_WITHOUT_CODE = frozenset({"source", "route", "union", "window", "join"})


def apply_overrides(topology: Topology, overrides: Mapping[str, Override]) -> tuple[Topology, dict[str, ChatModel]]:
    """The topology with functions replaced, and the chat models by step.

    Raises:
        UnknownName: there is no such step.
        InvalidTopology: the step has no function to replace, or can't use this one.
    """
    chat_models: dict[str, ChatModel] = {}
    steps = {step.name: step for step in topology.steps}
    for name, override in overrides.items():
        step = step_named(topology, name)
        if callable(getattr(override, "complete", None)):
            chat_models[name] = override  # type: ignore[assignment]  # it has the port's verb
            _refuse_without_models(step)
        else:
            steps[name] = _replaced(step, override)
    return replace(topology, steps=tuple(steps.values())), chat_models


def step_named(topology: Topology, name: str) -> Step:
    """The step of that name.

    Raises:
        UnknownName: there is none.
    """
    try:
        return topology.by_name[name]
    except KeyError:
        near = hint(name, list(topology.by_name), what="steps")
        raise UnknownName(f"no step {name!r}; {near}", where=f"topology {topology.name!r}") from None


def _refuse_without_models(step: Step) -> None:
    """Raise for a chat model that nothing would ever ask: only components can."""
    if not is_component(step.target):
        code = getattr(step.target, "__name__", step.kind)
        raise InvalidTopology(f"override: {code} calls no chat model; override the step that does", where=step.where)


def _replaced(step: Step, target: Any) -> Step:
    if step.kind in _WITHOUT_CODE:
        instead = "use send() in its place" if step.kind == "source" else "override the steps around it"
        raise InvalidTopology(f"a {step.kind} can't be overridden; {instead}", where=step.where)
    if step.kind == "sink" and not isinstance(target, type):
        target = _sink_of(target)
    problem = target_problem(step.kind, target)
    if problem is not None:
        raise InvalidTopology(f"override: {problem}", where=step.where)
    return replace(step, target=target, reference="", config={})


def _sink_of(function: Callable[[Any], Any]) -> type[Sink[Any]]:
    class FunctionSink(Sink[Any]):
        """Gives each value to the function."""

        async def write(self, records: Sequence[Record[Any]]) -> None:
            """Call it for each, in order."""
            for record in records:
                result = function(record.value)
                if inspect.isawaitable(result):
                    await result

    return FunctionSink
