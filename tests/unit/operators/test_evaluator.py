"""Metrics of an answer."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sage.operators import Evaluator
from tests.support.step_contexts import context


@pytest.mark.parametrize("field", ["expected", "references"])
def test_measures_against_the_best_expected_answer(field: str) -> None:
    result = Evaluator().process({"answer": "20 days", field: ["a lot", "20 days a year"]}, context())
    assert result["metrics"]["f1"] == pytest.approx(2 * 2 / 5, abs=1e-4)
    assert result["metrics"]["exact_match"] == 0
    assert set(result["metrics"]) == {"f1", "exact_match", "rouge_l", "bleu"}


def test_chinese_answers_are_compared_by_characters() -> None:
    assert Evaluator().process({"answer": "12天。", "expected": "12天"}, context())["metrics"]["exact_match"] == 1


def test_keeps_other_metrics_and_writes_only_those_asked_for() -> None:
    operator = Evaluator(Evaluator.Config(metrics=["f1"]))
    result = operator.process({"answer": "x", "expected": ["x"], "metrics": {"cost": 2}}, context())
    assert result["metrics"] == {"cost": 2, "f1": 1.0}


def test_a_record_without_answer_or_expectation_dies_by_name() -> None:
    with pytest.raises(KeyError, match="answer"):
        Evaluator().process({"expected": ["x"]}, context())
    with pytest.raises(KeyError, match="expected"):
        Evaluator().process({"answer": "x"}, context())


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(ValidationError):
        Evaluator.Config(metrics=["accuracy"])
