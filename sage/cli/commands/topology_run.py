"""``sage topology run``: this process works on one topology."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.commands.control import seconds_of
from sage.cli.commands.topology import Target
from sage.cli.commands.topology_processes import share_in_several, stream_in_several
from sage.cli.commands.topology_report import show_report, verdict
from sage.cli.flags import UsageError
from sage.cli.interruption import ending_signals, hear_once, remember
from sage.cli.options import AT_LEAST_ONE, COUNT, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.graph.topology import Topology
    from sage.runtime.runs.report import RunReport

_EXIT_TIMEOUT = 5

InstanceId = Annotated[
    str | None,
    Parameter(
        help="This process's name in its groups, the same after a restart, which then moves no partition; "
        "else SAGE_INSTANCE_ID. With --processes each gets its number."
    ),
]


def run(
    target: Target,
    /,
    *,
    until_idle: Annotated[bool, Parameter(help="Process what is there now, print a report, and end.")] = False,
    timeout: Annotated[
        str | None, Parameter(help="With --until-idle: give up after this long (30, 500ms, 2m) and exit 5.")
    ] = None,
    from_beginning: Annotated[bool, Parameter(help="Sources start afresh instead of where they were.")] = False,
    allow_dead: Annotated[int, Parameter(help="So many dead records are not a failure.", validator=COUNT)] = 0,
    strict_edges: Annotated[
        bool, Parameter(help="Hand values from step to step as their topic would, also where none lies between.")
    ] = False,
    processes: Annotated[
        int,
        Parameter(name=["--processes", "-p"], help="Worker processes that share the work.", validator=AT_LEAST_ONE),
    ] = 1,
    instance_id: InstanceId = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Run a topology. Started twice, the processes share its partitions; Ctrl-C drains and ends.

    It exits 1 when a stage that had records to read stood still to the end. With --until-idle it exits 1 when a record
    died, 5 when the time was over. With --processes the exit code is the worst of theirs, and a process that is killed
    is started again, unless --until-idle is given.
    """
    from sage import app
    from sage.operations.worker_processes import end_with_parent

    end_with_parent()
    limit = _limit(timeout, until_idle=until_idle)
    environment = app.environment_for(
        _checked(target), bootstrap_servers=bootstrap_servers, data_dir=data_dir, resume=not from_beginning,
        kafka_config=kafka_config, instance=instance_id, strict_edges=strict_edges,
    )  # fmt: skip
    with environment:
        if processes > 1:
            arguments = _child_arguments(
                target, bootstrap_servers, kafka_config, data_dir, until_idle=until_idle, timeout=timeout,
                from_beginning=from_beginning, strict_edges=strict_edges,
            )  # fmt: skip
            if not until_idle:
                return stream_in_several(environment, processes, arguments, instance_id)
            return share_in_several(environment, processes, arguments, instance_id, allow_dead=allow_dead)
        return _bounded(environment, limit, from_beginning, allow_dead) if until_idle else _stream(environment)


def _checked(target: str) -> Topology | LocalEnvironment:
    """What ``target`` names, before anything is started or made: what is missing would else be told step by step."""
    from sage import app
    from sage.graph.topology import Topology
    from sage.operations.topologies import check

    found = app.load_target(target, environ=os.environ)
    check(found if isinstance(found, Topology) else found.topology, os.environ, secrets=True)
    return found


def _bounded(environment: LocalEnvironment, limit: float | None, from_beginning: bool, allow_dead: int) -> int:
    """Run until idle: alone, or as one of several that leaves its report for the one that started it."""
    from sage.operations.run_reports import REPORT_VARIABLE

    if REPORT_VARIABLE in os.environ:
        return _share(environment, limit, Path(os.environ[REPORT_VARIABLE]))
    report = _once(environment, limit)
    if report is None:
        return _end(environment)
    show_report(environment, report, resumed=not from_beginning)
    return verdict(environment, report, allow_dead)


def _child_arguments(
    target: str, bootstrap_servers: str | None, kafka_config: Path | None, data_dir: Path, *, until_idle: bool,
    timeout: str | None, from_beginning: bool, strict_edges: bool,
) -> list[str]:  # fmt: skip
    """What one of several processes is started with: the same, but for their number."""
    options = [
        *(("--bootstrap-servers", bootstrap_servers) if bootstrap_servers else ()),
        *(("--kafka-config", str(kafka_config)) if kafka_config else ()),
        *(("--until-idle",) if until_idle else ()),
        *(("--timeout", timeout) if timeout else ()),
        *(("--from-beginning",) if from_beginning else ()),
        *(("--strict-edges",) if strict_edges else ()),
    ]
    return ["topology", "run", target, "--data-dir", str(data_dir), *options]


def _stream(environment: LocalEnvironment) -> int:
    shown = terminal()
    environment.submit()
    shown.note(f"{environment.topology.name} runs; Ctrl-C drains and ends")
    with draining(environment):
        environment.run_streaming(block=False)
        environment.wait()
    return _end(environment)


def _end(environment: LocalEnvironment) -> int:
    """The exit code of one that was asked to end. Raises what kept it from ending well."""
    if environment.failure is not None:
        raise environment.failure
    if stalled := environment.stalled:
        from sage.errors import StageStopped

        raise StageStopped("; ".join(stalled), where=environment.topology.name)
    return 0


def _once(environment: LocalEnvironment, limit: float | None) -> RunReport | None:
    """The run's report; ``None`` where SIGTERM ended it."""
    with draining(environment):
        return environment.run_once(timeout=limit)
    return None


def _share(environment: LocalEnvironment, limit: float | None, path: Path) -> int:
    """As one of several processes: leave a report for the one that started them, which shows and judges it."""
    from sage.operations.run_reports import write_report

    report = _once(environment, limit)
    if report is None:  # another one found the run complete, and this one was asked to end
        so_far = environment.report()
        if so_far is not None:
            write_report(path, replace(so_far, complete=False))
        return _end(environment)
    write_report(path, report)
    return 0 if report.complete else _EXIT_TIMEOUT


@contextmanager
def draining(environment: LocalEnvironment) -> Iterator[None]:
    """On Ctrl-C and SIGTERM (or SIGHUP) finish what is in hand and commit it; a second signal ends at once.

    One SIGTERM ends the block without an error; Ctrl-C, and a second signal, go on as a KeyboardInterrupt.
    """
    before = {number: signal.signal(number, _raise_terminated) for number in ending_signals()}
    try:
        yield
    except KeyboardInterrupt as interruption:
        _drain(environment)
        if not isinstance(interruption, _Terminated):
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drain(environment: LocalEnvironment) -> None:
    try:
        terminal().note("draining; press Ctrl-C again to end at once")
        environment.stop()
    except KeyboardInterrupt:
        logging.disable()  # whatever is torn down under the stages' feet is no news to who asked for it
        environment.abandon()  # it may have come before the stop had begun
        terminal().note("not drained: what was not committed is read again")
        raise KeyboardInterrupt from None


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    remember()
    hear_once(number)
    raise _Terminated


def _limit(timeout: str | None, *, until_idle: bool) -> float | None:
    if timeout is None:
        return None
    if not until_idle:
        raise UsageError("topology run: --timeout goes with --until-idle")
    return seconds_of(timeout, "topology run")
