"""``sage topology run``: this process works on one topology."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.commands.topology import Target
from sage.cli.flags import UsageError
from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import terminal
from sage.errors import DeadlineExceeded

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.runtime.report import RunReport

_DRAIN_SECONDS = 25.0


def run(
    target: Target,
    /,
    *,
    until_idle: Annotated[bool, Parameter(help="Process what is there now, print a report, and end.")] = False,
    timeout: Annotated[
        str | None, Parameter(help="With --until-idle: give up after this long (30, 500ms, 2m) and exit 5.")
    ] = None,
    from_beginning: Annotated[bool, Parameter(help="Sources start afresh instead of where they were.")] = False,
    allow_dead: Annotated[int, Parameter(help="So many dead records are not a failure.")] = 0,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Run a topology in this process. Started twice, the processes share its partitions; Ctrl-C drains and ends.

    With --until-idle it exits 1 when a record died, 5 when the time was over.
    """
    from sage import app
    from sage.graph.topology import Topology
    from sage.operations.topologies import check

    limit = _limit(timeout, until_idle=until_idle)
    found = app.load_target(target, environ=os.environ)
    # Before anything is started or made: what is missing here would only be told step by step.
    check(found if isinstance(found, Topology) else found.topology, os.environ, secrets=True)
    environment = app.environment_for(
        found,
        bootstrap_servers=bootstrap_servers,
        data_dir=data_dir,
        resume=not from_beginning,
        kafka_config=kafka_config,
    )
    with environment:
        if not until_idle:
            return _stream(environment)
        report = _once(environment, limit)
        if report is None:
            return 0
        _show(environment, report, resumed=not from_beginning)
        return _verdict(environment, report, allow_dead)


def _stream(environment: LocalEnvironment) -> int:
    shown = terminal()
    environment.submit()
    shown.note(f"{environment.topology.name} runs; Ctrl-C drains and ends")
    with draining(environment):
        environment.run_streaming(block=True)
    return 0


def _once(environment: LocalEnvironment, limit: float | None) -> RunReport | None:
    """The run's report; ``None`` where SIGTERM ended it."""
    with draining(environment):
        return environment.run_once(timeout=limit)
    return None


@contextmanager
def draining(environment: LocalEnvironment) -> Iterator[None]:
    """On Ctrl-C and SIGTERM finish what is in hand and commit it; a second signal ends at once.

    SIGTERM then ends the block without an error; Ctrl-C goes on as a KeyboardInterrupt.
    """
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as interruption:
        terminal().note("draining; press Ctrl-C again to end at once")
        environment.stop(timeout=_DRAIN_SECONDS)
        if isinstance(interruption, KeyboardInterrupt):
            raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _show(environment: LocalEnvironment, report: RunReport, *, resumed: bool) -> None:
    from sage.operations.runs import as_dict, nothing_new

    shown = terminal()
    if shown.is_structured:
        shown.json_line(as_dict(report))
    else:
        shown.note(str(report))
    hint = nothing_new(environment.topology, report) if resumed and report.complete else None
    if hint is not None:
        shown.note(hint)


def _verdict(environment: LocalEnvironment, report: RunReport, allow_dead: int) -> int:
    """0, or the error that the report means."""
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


def _limit(timeout: str | None, *, until_idle: bool) -> float | None:
    from sage.model.duration import seconds

    if timeout is None:
        return None
    if not until_idle:
        raise UsageError("topology run: --timeout goes with --until-idle")
    try:
        return seconds(float(timeout) if timeout.replace(".", "", 1).isdigit() else timeout)
    except ValueError as error:
        raise UsageError(f"topology run: --timeout: {error}") from error
