"""How near an answer is to the expected one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sage.llm.text import scores
from sage.operators.record import as_record, missing, required
from sage.spec.component import Operator
from sage.spec.context import Context

Metric = Literal["f1", "exact_match", "rouge_l", "bleu"]

_SCORES: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "f1": scores.f1,
    "exact_match": scores.exact_match,
    "rouge_l": scores.rouge_l,
    "bleu": scores.bleu,
}


class Evaluator(Operator[Mapping[str, Any], dict[str, Any]]):
    """Write ``metrics`` from ``answer`` and ``expected`` (or ``references``); the best expected answer counts.

    English and Chinese alike: every Chinese character counts as a word. Metrics that the record has stay.
    """

    class Config(BaseModel):
        """What is measured."""

        model_config = ConfigDict(extra="forbid")

        metrics: list[Metric] = Field(
            default=["f1", "exact_match", "rouge_l", "bleu"], min_length=1, description="The measures to write, 0 to 1."
        )

    def process(self, value: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """The record with its ``metrics``, each between 0 and 1.

        Raises:
            KeyError: the record has no ``answer``, or neither ``expected`` nor ``references``.
        """
        record = as_record(value)
        answer = str(required(record, "answer", hint="Is a generator upstream?"))
        expected = record.get("expected", record.get("references"))
        if expected is None:
            missing(record, "expected", hint="Does the data set hold the expected answers?")
        texts = [expected] if isinstance(expected, str) else [str(text) for text in expected]
        measured = {name: round(_SCORES[name](answer, texts), 4) for name in self.config.metrics}
        return {**record, "metrics": {**record.get("metrics", {}), **measured}}
