"""What an answer is worth, by the measures of the ``evaluator`` operator, and what all of them are worth together."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from sage.graph.topology import Topology
from sage.operations.evaluation.dataset import Dataset, Example
from sage.operators.evaluator import Evaluator, Metric
from sage.spec.context import Context, StepScope

METRICS: Final[tuple[str, ...]] = get_args(Metric)
"""The measures that every answer gets; a topology's own steps may write others into ``metrics``."""

Status = Literal["answered", "missing", "dead"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one question.

    Attributes:
        line, id, query, expected: as of its ``Example``.
        status: ``answered``; ``missing``: no output, or one without an answer; ``dead``: in the dead letters.
        answer: what was said.
        metrics: by name; empty where there is no answer.
        reason: why it has none.
    """

    line: int
    id: str
    query: str
    expected: tuple[str, ...]
    status: Status
    answer: str | None = None
    metrics: Mapping[str, float] | None = None
    reason: str = ""

    def score(self, metric: str) -> float:
        """Its worth by a measure: 0 without an answer, and where the answer was not measured by it."""
        return (self.metrics or {}).get(metric, 0.0)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A data set's results.

    Attributes:
        topology: the name of what was evaluated; version: the deployed one, 0 for a file.
        dataset, digest: of the data set.
        seconds: that the run took.
        results: one for each question, in the file's order.
    """

    topology: str
    version: int
    dataset: str
    digest: str
    seconds: float
    results: tuple[Result, ...]

    def count(self, status: Status) -> int:
        """How many questions ended so."""
        return sum(result.status == status for result in self.results)

    @property
    def metrics(self) -> list[str]:
        """The measures: the evaluator's, then those that only the topology writes."""
        own = {name for result in self.results for name in result.metrics or ()}
        return [*METRICS, *sorted(own - set(METRICS))]

    def mean(self, metric: str) -> float:
        """The mean over all questions: one without an answer counts as 0, and is never left out."""
        return sum(result.score(metric) for result in self.results) / len(self.results)

    def measured(self, metric: str) -> int:
        """How many answers were measured by it."""
        return sum(metric in (result.metrics or {}) for result in self.results)

    def worst(self, metric: str, count: int) -> list[Result]:
        """The ``count`` questions that are worth least by a measure; equal ones in the file's order."""
        return sorted(self.results, key=lambda result: (result.score(metric), result.line))[:count]

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, without the results."""
        return {
            "topology": self.topology,
            "version": self.version,
            "dataset": self.dataset,
            "digest": self.digest,
            "seconds": round(self.seconds, 3),
            "records": len(self.results),
            "answered": self.count("answered"),
            "missing": self.count("missing"),
            "dead": self.count("dead"),
            "metrics": {
                name: {"mean": round(self.mean(name), 4), "count": self.measured(name)} for name in self.metrics
            },
        }


def result_dict(result: Result) -> dict[str, Any]:
    """A result as plain JSON."""
    return {**asdict(result), "expected": list(result.expected), "metrics": dict(result.metrics or {})}


class Scorer:
    """Measures outputs as an ``evaluator`` step would: there is one implementation of the measures."""

    def __init__(self, topology: str) -> None:
        services: Any = None  # the evaluator asks for none
        self._context = Context(StepScope(topology, "evaluate", services, logging.getLogger("sage.step")))
        self._evaluator = Evaluator(Evaluator.Config())

    def score(self, example: Example, output: Mapping[str, Any]) -> Mapping[str, float]:
        """The measures of an output that has an ``answer``; those that it brings along stay.

        The expected answers are the data set's: a step on the way may have dropped them.
        """
        record = {**output, "expected": list(example.expected), "metrics": _numbers(output.get("metrics"))}
        measured: Mapping[str, float] = self._evaluator.process(record, self._context)["metrics"]
        return measured


def _numbers(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def results_of(
    dataset: Dataset, scorer: Scorer, outputs: Mapping[int, Sequence[Any]], deaths: Mapping[int, str]
) -> tuple[Result, ...]:
    """The results of all questions.

    Args:
        dataset: they are from it.
        scorer: measures them.
        outputs: by line, the values that came of a question; the first with an answer counts.
        deaths: by line, why a question died.
    """
    return tuple(_result(example, scorer, outputs.get(example.line, ()), deaths) for example in dataset.examples)


def _result(example: Example, scorer: Scorer, outputs: Sequence[Any], deaths: Mapping[int, str]) -> Result:
    def made(status: Status, **more: Any) -> Result:
        return Result(example.line, example.id, example.query, example.expected, status, **more)

    for output in outputs:
        if isinstance(output, Mapping) and output.get("answer") is not None:
            return made("answered", answer=str(output["answer"]), metrics=scorer.score(example, output))
    if example.line in deaths:
        return made("dead", reason=deaths[example.line])
    if not outputs:
        return made("missing", reason="nothing came out for it")
    first = outputs[0]
    fields = f"it has {', '.join(first)}" if isinstance(first, Mapping) else f"it is a {type(first).__name__}"
    return made("missing", reason=f"the output has no answer: {fields}")


def may_write_metrics(topology: Topology) -> bool:
    """Whether a step may write measures of its own: any code that is not one of SAGE's operators."""
    return any(
        step.kind not in {"source", "sink", "union", "route", "key_by"}
        and not getattr(step.target, "__module__", "").startswith("sage.operators")
        for step in topology.steps
    )
