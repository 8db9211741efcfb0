"""Two evaluations side by side: what became worse comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sage.operations.evaluation.scoring import Evaluation, Result

Known = tuple[str, int]
"""What a question is known by: its id, and how many of that id came before it."""


@dataclass(frozen=True, slots=True)
class MetricChange:
    """The mean of one measure over the questions of both evaluations, before and now."""

    metric: str
    before: float
    now: float

    @property
    def change(self) -> float:
        """How much more it is now."""
        return self.now - self.before


@dataclass(frozen=True, slots=True)
class Regression:
    """A question that was answered better before."""

    before: Result
    now: Result
    change: float


@dataclass(frozen=True, slots=True)
class Change:
    """How two evaluations differ.

    Attributes:
        metrics: the measures of both, the greatest loss first; none where no question is in both.
        regressions: questions of both that are worth less by the chosen measure, the greatest loss first.
        improved: how many are worth more.
        only_before, only_now: how many are in one data set alone.
    """

    metrics: tuple[MetricChange, ...]
    regressions: tuple[Regression, ...]
    improved: int
    only_before: int
    only_now: int


def compare(before: Evaluation, now: Evaluation, metric: str) -> Change:
    """Compare two evaluations, question by question, by their ids (or texts, where they have none)."""
    earlier, later = _by_id(before.results), _by_id(now.results)
    both = [name for name in later if name in earlier]
    pairs = [
        Regression(earlier[one], later[one], later[one].score(metric) - earlier[one].score(metric)) for one in both
    ]
    names = [name for name in now.metrics if name in before.metrics] if both else []
    means = [MetricChange(name, _mean(name, earlier, both), _mean(name, later, both)) for name in names]
    return Change(
        tuple(sorted(means, key=lambda one: one.change)),
        tuple(sorted((pair for pair in pairs if pair.change < 0), key=lambda pair: pair.change)),
        sum(pair.change > 0 for pair in pairs),
        len(earlier) - len(both),
        len(later) - len(both),
    )


def _mean(metric: str, results: Mapping[Known, Result], chosen: Sequence[Known]) -> float:
    return sum(results[one].score(metric) for one in chosen) / len(chosen)


def _by_id(results: Iterable[Result]) -> dict[Known, Result]:
    """Results by what they are known by; the second of one id is another one than the first."""
    seen: Counter[str] = Counter()
    found: dict[Known, Result] = {}
    for result in results:
        found[result.id, seen[result.id]] = result
        seen[result.id] += 1
    return found
