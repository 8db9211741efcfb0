"""What ``sage topology eval`` prints: the measures, what became worse, the worst answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage.cli import text
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.operations.evaluation.comparing import Change, Regression
    from sage.operations.evaluation.scoring import Evaluation, Result


def _number(value: float) -> str:
    return f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _texts(values: list[str]) -> str:
    return " | ".join(values)


_METRICS = (
    Column("metric"),
    Column("mean", right=True, show=_number),
    Column("count", right=True),
    Column("missing", right=True),
    Column("dead", right=True),
)

_CHANGES = (
    Column("metric"),
    Column("before", right=True, show=_number),
    Column("mean", right=True, show=_number),
    Column("change", right=True, show=_signed),
    *_METRICS[2:],
)

_REGRESSIONS = (
    Column("line", right=True),
    Column("change", right=True, show=_signed),
    Column("before", right=True, show=_number),
    Column("now", right=True, show=_number),
    Column("query"),
    Column("answer"),
    Column("answer_before", "ANSWERED BEFORE"),
)

_RESULTS = (
    Column("line", right=True),
    Column("id", wide=True),
    Column("score", right=True, show=_number),
    Column("status", wide=True),
    Column("query"),
    Column("answer"),
    Column("expected", show=_texts),
)


def show(found: Evaluation, metric: str, worst: int, before: Evaluation | None) -> None:
    """Print an evaluation; ``metric`` says what is worst, and ``before`` what it is compared with."""
    from sage.operations.evaluation.comparing import compare

    shown = terminal()
    metric = metric if metric in found.metrics else found.metrics[0]
    change = None if before is None else compare(before, found, metric)
    if shown.is_structured:
        shown.data(_as_dict(found, metric, worst, change))
        return
    if change is not None:
        _show_change(found, metric, change)
    else:
        shown.rows(_metric_rows(found), _METRICS)
    _show_worst(found, metric, worst)
    shown.note(
        f"{len(found.results)} questions: {found.count('answered')} answered, {found.count('missing')} missing, "
        f"{found.count('dead')} dead, {text.milliseconds(found.seconds)}"
    )


def _show_change(found: Evaluation, metric: str, change: Change) -> None:
    shown = terminal()
    rows = {row["metric"]: row for row in _metric_rows(found)}
    means = [{**rows.pop(one.metric), "before": one.before, "change": one.change} for one in change.metrics]
    shown.rows([*means, *rows.values()], _CHANGES)
    shown.line()
    if change.regressions:
        shown.line(shown.bold(f"worse by {metric}:"))
        shown.rows([_regression(one, metric) for one in change.regressions], _REGRESSIONS)
    else:
        shown.line(f"no answer is worse by {metric}")
    shown.note(f"{len(change.regressions)} worse, {change.improved} better by {metric}")
    if change.only_before or change.only_now:
        shown.note(
            f"other questions than before: {change.only_now} are new, {change.only_before} are gone; "
            "BEFORE and CHANGE are of those that both have"
        )


def _show_worst(found: Evaluation, metric: str, count: int) -> None:
    shown = terminal()
    rows = [_row(result, metric) for result in found.worst(metric, count) if result.score(metric) < 1]
    if not rows:
        return
    shown.line()
    shown.line(shown.bold(f"worst by {metric}:"))
    shown.rows(rows, _RESULTS)


def _metric_rows(found: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "metric": name,
            "mean": found.mean(name),
            "count": found.measured(name),
            "missing": found.count("missing"),
            "dead": found.count("dead"),
        }
        for name in found.metrics
    ]


def _row(result: Result, metric: str) -> dict[str, Any]:
    return {
        "line": result.line,
        "id": result.id,
        "score": result.score(metric),
        "status": result.status,
        "query": result.query,
        "answer": result.answer if result.status == "answered" else f"({result.status}: {result.reason})",
        "expected": list(result.expected),
    }


def _regression(one: Regression, metric: str) -> dict[str, Any]:
    return {
        **_row(one.now, metric),
        "change": one.change,
        "before": one.before.score(metric),
        "now": one.now.score(metric),
        "answer_before": one.before.answer,
    }


def _as_dict(found: Evaluation, metric: str, worst: int, change: Change | None) -> Mapping[str, Any]:
    from sage.operations.evaluation.scoring import result_dict

    document: dict[str, Any] = {
        **found.as_dict(),
        "by": metric,
        "worst": [result_dict(result) for result in found.worst(metric, worst)],
    }
    if change is not None:
        document["comparison"] = {
            "metrics": [
                {"metric": one.metric, "before": one.before, "now": one.now, "change": one.change}
                for one in change.metrics
            ],
            "regressions": [
                {"change": one.change, "before": result_dict(one.before), "now": result_dict(one.now)}
                for one in change.regressions
            ],
            "improved": change.improved,
            "only_before": change.only_before,
            "only_now": change.only_now,
        }
    return document
