"""The options that a stage runs with: its first step's over the topology's defaults over SAGE's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage.graph.topology import Step, Topology
from sage.plan.plan import Execution
from sage.spec.options import BatchPolicy, Options, RetryPolicy
from sage.spec.shape import Shape, calls_out, is_component, shape_of

SAGE_DEFAULTS = Options(partitions=1, ordering="key", retry=RetryPolicy(), on_error="dlq", blocking=False)
"""What a step does when nobody says otherwise. There is no default time-out on plain functions."""

ASYNC_CONCURRENCY = 16
"""Calls in flight per worker of a step that waits."""


def execution_of(step: Step) -> Execution:
    """How a step's code is run."""
    if step.kind in {"source", "sink"}:
        return "source" if step.kind == "source" else "sink"
    return "sync" if waits(step) is None else "async"


def waits(step: Step) -> str | None:
    """Why a step's calls are made concurrently instead of in the batch; ``None`` where they aren't."""
    if step.kind == "map_batches":
        return "takes micro-batches"
    shape = shape_of(step.target, step.kind)
    if step.kind == "process":
        return "async" if shape.is_async or shape_of(step.on_timer, "process").is_async else None
    if shape.has_batch and step.kind in {"operator", "map", "flatmap", "filter"}:
        return "takes micro-batches"
    if shape.is_async:
        return "async"
    if any(shape_of(predicate).is_async for predicate in step.branches.values()):
        return "async"
    return "blocking" if _blocking(step, shape) else None


def makes_calls(step: Step, execution: Execution, memory: Mapping[str, Any]) -> bool:
    """Whether a step's external calls are journaled: its class says so, its code names ``call``, or an option does."""
    if execution != "async" or step.kind == "map_batches":
        return False
    if step.options.journal is not None:
        return step.options.journal
    if is_component(step.target) and step.target.makes_calls(step.config, memory):
        return True
    return calls_out(step.target)


def waiting(step: Step) -> str:
    """The same as what is said of a step that waits: ``is async``, ``takes micro-batches``."""
    why = waits(step) or ""
    return why if why.startswith("takes") else f"is {why}"


def stage_options(step: Step, topology: Topology) -> Options:
    """Every option of the stage that begins with ``step``; ``timeout`` and ``batch`` may stay ``None``."""
    merged = step.options.over(topology.defaults)
    own = SAGE_DEFAULTS
    shape = shape_of(step.target, step.kind)
    found: dict[str, Any] = {"blocking": _blocking(step, shape)}
    if is_component(step.target) and step.target.default_timeout is not None:
        found["timeout"] = step.target.default_timeout
    if shape.has_batch:
        found["batch"] = BatchPolicy()
    return merged.over(Options(**found).over(own)).model_copy(update={"concurrency": concurrency_of(step, merged)})


def concurrency_of(step: Step, merged: Options) -> int:
    """Calls in flight per worker."""
    return merged.concurrency or (ASYNC_CONCURRENCY if execution_of(step) == "async" else 1)


def _blocking(step: Step, shape: Shape) -> bool:
    return shape.blocking if step.options.blocking is None else step.options.blocking
