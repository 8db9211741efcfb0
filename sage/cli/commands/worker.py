"""``sage worker``: the processes that host what is deployed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.commands.control import deployer_of, seconds_of
from sage.cli.flags import UsageError
from sage.cli.interruption import ending_signals, hear_once
from sage.cli.options import AT_LEAST_ONE, DEFAULT_DATA_DIR, PORT_RANGE, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Column, terminal
from sage.cli.text import day_and_time

if TYPE_CHECKING:
    from sage.cluster.cluster_view import SeenWorker
    from sage.cluster.worker.identity import Identity
    from sage.wiring.worker import WorkerProcess

WorkerName = Annotated[str, Parameter(name="WORKER", help="The worker's id, as `sage worker list` shows it.")]
Id = Annotated[
    str | None,
    Parameter(
        help="This worker's name: unique in the cluster, the same after a restart, which then moves no partition."
    ),
]
Labels = Annotated[
    list[str] | None, Parameter(name="--label", help="key=value: steps may ask for it. May be repeated.")
]
Processes = Annotated[
    int, Parameter(name=["--processes", "-p"], help="Worker processes to run.", validator=AT_LEAST_ONE)
]
AllowCode = Annotated[
    list[str] | None,
    Parameter(help="A module whose code, and what is below it, topologies may name. May be repeated."),
]
AllowEnv = Annotated[
    list[str] | None, Parameter(help="A variable that secrets of topologies may refer to. May be repeated.")
]
HealthPort = Annotated[
    int | None,
    Parameter(
        help="Serve /healthz, /readyz and /metrics here; 0 takes a free port. Metrics beyond this machine need "
        "SAGE_METRICS_TOKEN.",
        validator=PORT_RANGE,
    ),
]
HealthHost = Annotated[str, Parameter(help="The address to serve them on.", show_default=True)]
DrainTimeout = Annotated[str, Parameter(help="How long finishing may take after SIGTERM or Ctrl-C.", show_default=True)]


def run(
    *,
    id: Id = None,
    label: Labels = None,
    processes: Processes = 1,
    allow_code: AllowCode = None,
    allow_env: AllowEnv = None,
    health_port: HealthPort = None,
    health_host: HealthHost = "127.0.0.1",
    drain_timeout: DrainTimeout = "25s",
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Host what is deployed on these brokers, until SIGTERM or Ctrl-C, which drain and end.

    Topologies may use what is installed as an entry point; other code and variables only as far as --allow-code and
    --allow-env say. Without --id the worker has a new name each time.
    """
    from sage import app
    from sage.cluster.worker.checks import Policy
    from sage.operations.worker_processes import end_with_parent
    from sage.wiring.worker import WorkerOptions, WorkerProcess

    end_with_parent()
    labels = _labels(label or ())
    seconds = seconds_of(drain_timeout, "worker run", "--drain-timeout")
    identity = _identity(id, labels)
    if processes > 1:
        return _several(processes, id or identity.worker, sys.argv[1:])
    found = app.brokers(bootstrap_servers, data_dir, kafka_config)
    options = WorkerOptions(
        Policy(tuple(allow_code or ()), tuple(allow_env or ())), data_dir, health_host, _port(health_port), seconds
    )
    process = WorkerProcess(identity, found, options)
    _listen(process)
    shown = terminal()
    at = f"; health on {health_host}:{process.health.port}" if process.health is not None else ""
    shown.note(f"worker {identity.worker} on {found.address}{at}; Ctrl-C drains and ends")
    process.run()
    shown.note(f"worker {identity.worker} has left")
    return 0


def list_workers(
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show the cluster's workers; those that died are shown until they are forgotten."""
    found = _seen(bootstrap_servers, kafka_config, data_dir)
    terminal().rows(
        [_row(seen) for seen in found.values()], _COLUMNS, empty="no worker is online; start one: sage worker run"
    )


def describe(
    worker: WorkerName,
    /,
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a worker: what it hosts, and what keeps it from hosting more."""
    seen = _one(_seen(bootstrap_servers, kafka_config, data_dir), worker)
    stages: list[dict[str, Any]] = [
        {
            "topology": name, "stage": stage.stage, "version": stage.version, "state": stage.state,
            "partitions": list(stage.partitions), "read": stage.read, "dead": stage.dead, "restarts": stage.restarts,
            "problem": stage.problem,
        }
        for name, said in sorted(seen.topologies.items())
        for stage in said.stages
    ]  # fmt: skip
    problems: list[dict[str, Any]] = [
        {"topology": name, "version": check.version, "kind": check.kind, "problems": list(check.problems)}
        for name, said in sorted(seen.topologies.items())
        for check in said.checks
        if check.problems
    ]
    shown = terminal()
    if shown.is_structured:
        shown.data({**_row(seen), "stages": stages, "problems": problems})
        return
    row = _row(seen)
    readable = {column.key: column.show(row[column.key]) for column in _COLUMNS if column.show is not None}
    shown.details({**row, **readable, "started_at": day_and_time(row["started_at"])})
    shown.line()
    shown.rows(stages, _STAGES, empty="it hosts nothing")
    for each in problems:
        for line in each["problems"]:
            shown.line(f"{each['topology']} v{each['version']} {each['kind']}: {line}")


def drain(
    worker: WorkerName,
    /,
    *,
    undo: Annotated[bool, Parameter(help="Have it take work on again.")] = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have a worker give all it hosts to others and take nothing new on; it stays online."""
    _one(_seen(bootstrap_servers, kafka_config, data_dir), worker)
    deployer_of(bootstrap_servers, data_dir, kafka_config).drain_worker(worker, drain=not undo)
    shown = terminal()
    if shown.is_structured:
        shown.data({"worker": worker, "drain": not undo})
    else:
        shown.line(f"worker {worker} takes work on again" if undo else f"worker {worker} drains")


# ------------------------------------------------------------------------------------------ run


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UsageError(f"worker run: --label {text}: write key=value")
        labels[name] = value
    return labels


def _identity(given: str | None, labels: dict[str, str]) -> Identity:
    from sage.cluster.worker.identity import Identity, check_worker_id
    from sage.wiring.static_members import INSTANCE_VARIABLE

    name = given or os.environ.get(INSTANCE_VARIABLE)
    if name:
        return Identity(check_worker_id(name), is_named=True, labels=labels)
    return Identity.unnamed(labels)


def _port(given: int | None) -> int | None:
    """Each of several processes has a port of its own: the one that was given, and those after it."""
    from sage.operations.worker_processes import LIFELINE_VARIABLE
    from sage.wiring.static_members import INSTANCE_VARIABLE

    number = os.environ.get(INSTANCE_VARIABLE, "").rpartition("-")[2]
    if not given or LIFELINE_VARIABLE not in os.environ or not number.isdecimal():
        return given
    return given + int(number) - 1


def _several(count: int, name: str, arguments: Sequence[str]) -> int:
    from sage.cli.commands.topology_processes import passing_on
    from sage.operations.worker_processes import WorkerProcesses

    workers = WorkerProcesses(
        ["-m", "sage", *_without(arguments, {"--processes", "-p", "--id"})], count, environ=dict(os.environ),
        bounded=False, instance=name, note=terminal().note,
    )  # fmt: skip
    with passing_on(workers):
        return workers.run()


def _without(arguments: Sequence[str], options: set[str]) -> list[str]:
    """``arguments`` without these options and their values: ``-p 4``, ``-p4``, ``--processes=4``."""
    short = tuple(option for option in options if not option.startswith("--"))
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in options:
            next(words, None)
        elif word.partition("=")[0] not in options and not (word.startswith(short) and not word.startswith("--")):
            kept.append(word)
    return kept


def _listen(process: WorkerProcess) -> None:
    """SIGTERM, SIGHUP and Ctrl-C drain; a second signal ends at once.

    The handler only writes to a pipe: whatever takes a lock may be what it has interrupted.
    """
    heard, tell = os.pipe()

    def asked(number: int, frame: FrameType | None) -> None:
        del frame
        os.write(tell, b".")
        signal.signal(number, signal.SIG_DFL)
        hear_once(number)

    def obey() -> None:
        os.read(heard, 1)
        process.leave()

    threading.Thread(target=obey, name="sage-signals", daemon=True).start()

    for number in (*ending_signals(), signal.SIGINT):
        signal.signal(number, asked)
    # The logs topic has what happens; the terminal has what is wrong.
    logger = logging.getLogger("sage")
    for handler in logger.handlers:
        handler.setLevel(logger.level)
    logger.setLevel(min(logger.level, logging.INFO))


# ------------------------------------------------------------------------------------------ looking


def _seen(bootstrap_servers: str | None, kafka_config: Path | None, data_dir: Path) -> dict[str, SeenWorker]:
    from sage import app
    from sage.cluster.cluster_view import ClusterView
    from sage.errors import NotFound

    found = app.brokers(bootstrap_servers, data_dir, kafka_config)
    try:
        view = ClusterView(found.clients(), found.control_topics)
    except NotFound:
        return {}
    try:
        view.read_fresh()
        return view.workers
    finally:
        view.close()


def _one(found: dict[str, SeenWorker], worker: str) -> SeenWorker:
    from sage.errors import NotFound
    from sage.spec.suggest import hint

    if worker not in found:
        raise NotFound(f"no worker {worker!r}; {hint(worker, found, what='workers')}")
    return found[worker]


def _row(seen: SeenWorker) -> dict[str, Any]:
    status = seen.status
    state = "dead" if not seen.is_live else "leaving" if status.leaving else "online"
    return {
        "worker": status.worker, "state": state, "host": status.host, "pid": status.pid, "sage": status.sage,
        "topologies": len(status.topologies), "stages": sum(len(said.stages) for said in seen.topologies.values()),
        "cpu": status.cpu, "memory": status.memory, "labels": dict(status.labels), "age": round(seen.age, 1),
        "started_at": status.started_at,
    }  # fmt: skip


_COLUMNS = (
    Column("worker"),
    Column("state"),
    Column("host"),
    Column("topologies", right=True),
    Column("stages", right=True),
    Column("cpu", right=True),
    Column("memory", right=True, show=lambda value: f"{value / 1e6:.0f} MB"),
    Column("labels", show=lambda value: ",".join(f"{name}={text}" for name, text in value.items()) or "-"),
    Column("age", "SEEN", right=True, show=lambda value: f"{value:.0f} s ago"),
    Column("pid", wide=True, right=True),
    Column("sage", wide=True),
)

_STAGES = (
    Column("topology"),
    Column("stage"),
    Column("version", right=True),
    Column("state"),
    Column("partitions", right=True, show=lambda value: str(len(value))),
    Column("read", right=True),
    Column("dead", right=True),
    Column("restarts", right=True),
    Column("problem"),
)
