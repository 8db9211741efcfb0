"""The options that a stage runs with: its first step's over the topology's defaults over SAGE's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage.graph.topology import Step, Topology
from sage.graph.waits import blocks, waits
from sage.plan.plan import Execution
from sage.spec.options import BatchPolicy, Options, RetryPolicy
from sage.spec.shape import calls_out, is_component, shape_of

SAGE_DEFAULTS = Options(partitions=1, ordering="key", retry=RetryPolicy(), on_error="dlq", blocking=False)
"""What a step does when nobody says otherwise. There is no default time-out on plain functions."""

ASYNC_CONCURRENCY = 16
"""Calls in flight per worker of a step that waits."""


def execution_of(step: Step) -> Execution:
    """How a step's code is run."""
    if step.kind in {"source", "sink"}:
        return "source" if step.kind == "source" else "sink"
    return "sync" if waits(step) is None else "async"


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
    found: dict[str, Any] = {"blocking": blocks(step)}
    if is_component(step.target) and step.target.default_timeout is not None:
        found["timeout"] = step.target.default_timeout
    if shape.has_batch and step.kind != "process":
        found["batch"] = BatchPolicy()
    fixed: dict[str, Any] = {"concurrency": concurrency_of(step, merged)}
    if step.kind == "process" and merged.ordering == "none":  # by the defaults; state has its records one by one
        fixed["ordering"] = "key"
    return merged.over(Options(**found).over(own)).model_copy(update=fixed)


def concurrency_of(step: Step, merged: Options) -> int:
    """Calls in flight per worker."""
    return merged.concurrency or (ASYNC_CONCURRENCY if execution_of(step) == "async" else 1)
