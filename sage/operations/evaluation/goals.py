"""What an evaluation has to reach: ``--min f1=0.6``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sage.errors import SageError, UnknownName
from sage.graph.topology import Topology
from sage.operations.evaluation.scoring import METRICS, Evaluation, may_write_metrics
from sage.spec.suggest import hint

_EXIT_USAGE = 2


def parse_goals(texts: Sequence[str]) -> dict[str, float]:
    """``["f1=0.6"]`` as numbers by measure.

    Raises:
        ValueError: one is nothing like that, or a measure is named twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, separator, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not separator or not math.isfinite(value):
            raise ValueError(f"wants METRIC=NUMBER such as f1=0.6; found {text!r}")
        if name in found:
            raise ValueError(f"{name} is named twice")
        found[name] = value
    return found


def refuse_unknown(topology: Topology, names: Sequence[str]) -> None:
    """Raise for a measure that nobody writes, before anything is run and paid for.

    Raises:
        UnknownName: that is so (exit code 2). A topology with code of its own may write any.
    """
    if may_write_metrics(topology):
        return
    for name in names:
        if name not in METRICS:
            raise _unknown(name, METRICS)


def shortfalls(found: Evaluation, goals: Mapping[str, float]) -> list[str]:
    """What was not reached, and by how much; empty where all was.

    Raises:
        UnknownName: no answer was measured by a goal's measure (exit code 2).
    """
    missed = []
    for name, goal in goals.items():
        if name not in found.metrics:
            raise _unknown(name, found.metrics)
        mean = found.mean(name)
        if mean < goal:
            missed.append(f"{name} is {mean:.4f}, {goal - mean:.4f} short of {goal:g}")
    return missed


def missed(found: Evaluation, reasons: Sequence[str]) -> SageError:
    """The error for what was not reached."""
    return SageError("; ".join(reasons), where=found.topology)


def _unknown(name: str, known: Sequence[str]) -> UnknownName:
    return UnknownName(f"nothing is measured by {name!r}; {hint(name, known, what='measures')}", exit_code=_EXIT_USAGE)
