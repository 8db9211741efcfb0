"""Whether a step's code waits, and so how its calls are made."""

from __future__ import annotations

from sage.graph.topology import Step
from sage.spec.shape import shape_of

_BATCHED = frozenset({"operator", "map", "flatmap", "filter"})
"""Kinds whose operators are given several values at once, where they take them. State is one key's."""


def waits(step: Step) -> str | None:
    """Why a step's calls are made concurrently instead of in the batch; ``None`` where they aren't."""
    shape = shape_of(step.target, step.kind)
    if step.kind == "map_batches" or (shape.has_batch and step.kind in _BATCHED):
        return "takes micro-batches"
    shapes = (shape, shape_of(step.on_timer, "process"), *map(shape_of, step.branches.values()))
    if any(each.is_async for each in shapes):
        return "async"
    return "blocking" if blocks(step) else None


def blocks(step: Step) -> bool:
    """Whether a step's code is run in threads: its option says so, else its class."""
    return shape_of(step.target, step.kind).blocking if step.options.blocking is None else step.options.blocking
