"""What ``sage topology run --until-idle`` prints at its end, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage.cli.terminal import terminal
from sage.errors import DeadlineExceeded

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.runtime.runs.report import RunReport


def show_report(environment: LocalEnvironment, report: RunReport, *, resumed: bool) -> None:
    """The report, and what to do where nothing was new."""
    from sage.operations.runs import as_dict, nothing_new

    shown = terminal()
    if shown.is_structured:
        shown.record(as_dict(report))  # a terminal sink may have written records before it
    else:
        shown.note(str(report))
    hint = nothing_new(environment.topology, report) if resumed and report.complete else None
    if hint is not None:
        shown.note(hint)


def verdict(environment: LocalEnvironment, report: RunReport, allow_dead: int) -> int:
    """0, or the error that the report means, raised."""
    from sage.operations.dead_letters import list_letters
    from sage.operations.runs import explain_deaths

    name = environment.topology.name
    if not report.complete:
        waiting = f"; waiting for {report.waiting_for}" if report.waiting_for else ""
        raise DeadlineExceeded(
            f"not idle after {report.seconds:.1f} s{waiting}; run it again to go on, or give it a longer --timeout",
            where=name,
        )
    if report.dead_letters > allow_dead:
        letters = list_letters(environment.clients, name, limit=report.dead_letters)
        raise explain_deaths(report, letters)
    return 0
