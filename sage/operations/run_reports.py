"""The reports of several worker processes that ran one topology together: written, read and added up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sage.errors import SageError
from sage.runtime.runs.report import RunReport, StepReport

REPORT_VARIABLE = "SAGE_RUN_REPORT"
"""Where a worker process of several leaves its report for the one that started it."""


def write_report(path: Path, report: RunReport) -> None:
    """Write a report whole, or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(report)), encoding="utf-8")
    unfinished.replace(path)


def read_report(path: Path) -> RunReport | None:
    """The report in a file; ``None`` where its process did not come to write it.

    Raises:
        SageError: the file holds something else.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        steps = {name: StepReport(**step) for name, step in fields.pop("steps").items()}
        return RunReport(steps=steps, **fields)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SageError(f"not a report of a run: {error}", where=str(path)) from error


def added(reports: Sequence[RunReport]) -> RunReport:
    """One report for processes that shared a run; at least one is needed.

    Records are added. Times of a step are those of the process in which it was slowest, the whole time is the
    longest. All saw the same dead-letter topic grow, so the largest growth counts. The run is complete when one
    process found it so: each looks at what is committed, whoever did it.
    """
    names = list(dict.fromkeys(name for report in reports for name in report.steps))
    unfinished = [report.waiting_for for report in reports if not report.complete]
    is_complete = len(unfinished) < len(reports)
    return RunReport(
        reports[0].topology,
        {name: _step([report.steps[name] for report in reports if name in report.steps]) for name in names},
        max(report.seconds for report in reports),
        complete=is_complete,
        waiting_for="" if is_complete else next(filter(None, unfinished), ""),
        dead_letters=max(report.dead_letters for report in reports),
        delivered=sum(report.delivered for report in reports),
        read=sum(report.read for report in reports),
    )


def _step(steps: Sequence[StepReport]) -> StepReport:
    return StepReport(
        steps[0].name,
        read=sum(step.read for step in steps),
        written=sum(step.written for step in steps),
        retried=sum(step.retried for step in steps),
        skipped=sum(step.skipped for step in steps),
        dead=sum(step.dead for step in steps),
        p50=max((step.p50 for step in steps if step.p50 is not None), default=None),
        p95=max((step.p95 for step in steps if step.p95 is not None), default=None),
        last_error=next((step.last_error for step in steps if step.last_error), ""),
    )
