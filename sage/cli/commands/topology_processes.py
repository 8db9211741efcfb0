"""``sage topology run --processes N``: the process that starts the others, and speaks for them."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from sage.cli.commands.topology_report import show_report, verdict
from sage.cli.interruption import ending_signals, hear_once
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.operations.worker_processes import WorkerProcesses


def stream_in_several(environment: LocalEnvironment, count: int, arguments: Sequence[str], instance: str | None) -> int:
    """Run until Ctrl-C or SIGTERM, which drain all of them; the worst exit code."""
    from sage import app
    from sage.operations.worker_processes import WorkerProcesses

    app.refuse_several_workers(environment)
    _hold_broker(environment)
    workers = WorkerProcesses(
        _command(arguments), count, environ=_variables(), bounded=False, instance=_instance(instance),
        note=terminal().note,
    )  # fmt: skip
    terminal().note(f"{environment.topology.name} runs in {count} processes; Ctrl-C drains and ends")
    with passing_on(workers):
        return workers.run()


def share_in_several(
    environment: LocalEnvironment, count: int, arguments: Sequence[str], instance: str | None, *, allow_dead: int
) -> int:
    """Run until idle, show one report for all, and judge it; the worst exit code."""
    from sage import app
    from sage.operations.run_reports import added, read_report
    from sage.operations.worker_processes import EXIT_TIMEOUT, WorkerProcesses

    app.refuse_several_workers(environment)
    _hold_broker(environment)
    with tempfile.TemporaryDirectory(prefix="sage-run-") as folder:
        workers = WorkerProcesses(
            _command(arguments), count, environ=_variables(), bounded=True, instance=_instance(instance),
            reports=Path(folder), note=terminal().note,
        )  # fmt: skip
        with passing_on(workers):
            code = workers.run()
        found = [read_report(workers.report_of(number)) for number in range(1, count + 1)]
    reports = [report for report in found if report is not None]
    if workers.asked is not None or not reports:
        return code
    report = added(reports)
    show_report(environment, report, resumed="--from-beginning" not in arguments)
    if code in {0, EXIT_TIMEOUT}:
        return verdict(environment, report, allow_dead)
    return code


def _hold_broker(environment: LocalEnvironment) -> None:
    """Find the brokers, and start the folder's own where it is meant: once, and for as long as the others run."""
    environment.clients.admin().close()


def _command(arguments: Sequence[str]) -> list[str]:
    flags = terminal().flags
    common = [*(("--quiet",) if flags.quiet else ()), *(("--debug",) if flags.debug else ())]
    return ["-m", "sage", *arguments, *common]


def _variables() -> dict[str, str]:
    from sage import app

    return {**os.environ, app.EPOCH_VARIABLE: uuid.uuid4().hex[:12]}


def _instance(given: str | None) -> str:
    from sage import app

    return given or os.environ.get(app.INSTANCE_VARIABLE, "")


@contextmanager
def passing_on(workers: WorkerProcesses) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM reach the processes instead of ending this one."""

    def passed_on(number: int, frame: FrameType | None) -> None:
        del frame
        hear_once(number)
        workers.ask(number)

    before = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, *ending_signals())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
