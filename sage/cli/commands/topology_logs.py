"""``sage topology logs``: what the workers logged, read from Kafka."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from sage.cli.commands.control import seconds_of
from sage.cli.options import COUNT, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Terminal, terminal

if TYPE_CHECKING:
    from sage.cluster.log_records import LogRecord


def logs(
    name: Annotated[str, Parameter(name="NAME", help="The topology's name; else lines of all, and of workers.")] = "",
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="Wait for more; Ctrl-C ends it.")] = False,
    count: Annotated[int, Parameter(name=["--lines", "-n"], help="How many of the last lines.", validator=COUNT)] = 100,
    since: Annotated[str | None, Parameter(help="Only lines of the last so long (10m, 2h), all of them.")] = None,
    step: Annotated[str, Parameter(help="Of this step alone.")] = "",
    worker: Annotated[str, Parameter(help="Of this worker alone.")] = "",
    level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="This and worse.")] = "debug",
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print what workers logged about a topology, from all machines, by time. `-o json` is one line each, with traces.

    Lines are kept for a day.
    """
    from sage import app
    from sage.operations.cluster_logs import LogFilter, read_logs

    ago = seconds_of(since, "topology logs", "--since") if since is not None else None
    found = app.brokers(bootstrap_servers, data_dir, kafka_config)
    shown = terminal()
    lines = read_logs(
        found.clients(), found.control_topics, LogFilter(name, step, worker, level),
        count=None if since is not None else count, since=ago, forever=follow,
    )  # fmt: skip
    printed = 0
    for line in lines:
        printed += 1
        if shown.is_structured:
            shown.record(asdict(line))
        else:
            _print(shown, line, with_topology=not name)
    if not printed:
        shown.note("no such lines; workers keep them for a day")


def _print(shown: Terminal, line: LogRecord, *, with_topology: bool) -> None:
    styles = {"warning": shown.warning, "error": shown.bad, "critical": shown.bad}
    level = styles.get(line.level, shown.dim)(f"{line.level:<7}")
    time = datetime.fromtimestamp(line.time / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]
    place = ".".join(filter(None, (line.topology if with_topology else "", line.step)))
    where = f"{line.worker} {place}".rstrip()
    shown.line(f"{shown.dim(time)} {level} {where}: {line.message}")
    if line.trace and shown.flags.output == "wide":
        for text in line.trace.splitlines():
            shown.line(f"    {text}")
