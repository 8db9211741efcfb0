"""What was to be reached, beside what was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """``path`` is where its figure stands, keys from the outside in; ``least`` or else ``most`` is the bound."""

    what: str
    path: tuple[str, ...]
    bound: float
    is_least: bool = True
    unit: str = ""

    def is_met(self, value: float) -> bool:
        """Whether ``value`` is within the bound."""
        return value >= self.bound if self.is_least else value <= self.bound


GOALS = (
    Goal("one map, beside the bare loop", ("ratios", "sage/bare", "median"), 0.75),
    Goal("one map exactly-once, beside the bare loop", ("ratios", "sage-exactly-once/bare", "median"), 0.65),
    Goal("three fused maps, beside the bare loop", ("ratios", "sage-three-maps/bare", "median"), 0.60),
    Goal("one map, beside quixstreams", ("ratios", "sage/quix", "median"), 3.0),
    Goal("one map, beside faust", ("ratios", "sage/faust", "median"), 50.0),
    Goal("keyed count, beside quixstreams", ("ratios", "sage-count/quix-count", "median"), 3.0),
    Goal("calls of 100 ms, of the ideal 10,000/s", ("async", "sage-async", "of_ideal"), 0.95),
    Goal("one hop, p50", ("hop_ms", "sage", "p50"), 3.0, is_least=False, unit=" ms"),
    Goal("one hop, p99", ("hop_ms", "sage", "p99"), 15.0, is_least=False, unit=" ms"),
    Goal("takeover, at least once", ("takeover_s", "at_least_once"), 8.0, is_least=False, unit=" s"),
    Goal("takeover, exactly-once", ("takeover_s", "exactly_once"), 8.0, is_least=False, unit=" s"),
    Goal("memory in the last quarter, beside the second", ("memory", "growth"), 1.05, is_least=False),
    Goal("sage --help", ("help_ms",), 200.0, is_least=False, unit=" ms"),
)


def value_of(goal: Goal, figures: Mapping[str, Any]) -> float | None:
    """The goal's figure; ``None`` where it was not measured."""
    value: Any = figures
    for key in goal.path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def verdicts(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal that was measured, with its figure."""
    return [
        {"what": goal.what, "value": value, "bound": goal.bound, "met": goal.is_met(value)}
        for goal in GOALS
        if (value := value_of(goal, figures)) is not None
    ]
