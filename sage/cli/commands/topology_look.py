"""``sage topology list|status|describe|history``: what runs on the workers, and what ran before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.commands.control import TopologyName, cluster_of, seconds_of
from sage.cli.options import AT_LEAST_ONE, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Column, Terminal, terminal
from sage.cli.text import day_and_time, milliseconds

if TYPE_CHECKING:
    from sage.operations.cluster import Cluster, StageRow, TopologyRow

Version = Annotated[int | None, Parameter(help="This version; else the one that runs.", validator=AT_LEAST_ONE)]

_EXIT_NOT_WELL = 1

_LEAST_INTERVAL = 0.1
"""Seconds: looks that follow each other at once would keep this machine and the brokers busy with nothing else."""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _joined(values: Any) -> str:
    return ", ".join(map(str, values)) or "-"


_LIST = (
    Column("name", "TOPOLOGY"),
    Column("version", right=True),
    Column("state"),
    Column("health"),
    Column("ready", "STAGES"),
    Column("workers", show=lambda workers: str(len(workers))),
    Column("changed_at", "CHANGED", show=day_and_time),
    Column("changed_by", "BY", wide=True),
    Column("reason", "WHAT", wide=True),
    Column("problem"),
)

_STATUS = (
    Column("stage"),
    Column("state"),
    Column("workers"),
    Column("rate", "RATE/S", right=True, show=_number),
    Column("lag", right=True),
    Column("eta", "ETA", right=True, show=lambda seconds: milliseconds(seconds) if seconds else "-"),
    Column("read", right=True),
    Column("written", wide=True, right=True),
    Column("retried", right=True),
    Column("skipped", wide=True, right=True),
    Column("dead", right=True),
    Column("steps", wide=True, show=_joined),
    Column("problem"),
)

_HISTORY = (
    Column("revision", right=True),
    Column("version", right=True),
    Column("state"),
    Column("changed_at", "WHEN", show=day_and_time),
    Column("changed_by", "BY"),
    Column("reason", "WHAT"),
    Column("stored", "CAN ROLL BACK", wide=True, show=lambda stored: "yes" if stored else "no"),
)


def list_topologies(
    *,
    deleted: Annotated[bool, Parameter(name=["--all", "-a"], help="Deleted ones too, whose data is kept.")] = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the topologies that are deployed, and how well each is."""
    from sage.errors import NotFound

    shown = terminal()
    try:
        with cluster_of(bootstrap_servers, data_dir, kafka_config) as cluster:
            rows = [_topology(row) for row in cluster.topologies(deleted=deleted)]
    except NotFound:
        rows = []  # no control topics: nothing was ever deployed
    shown.rows(rows, _LIST, empty="nothing is deployed; `sage topology deploy TARGET` does it")


def status(
    name: TopologyName,
    /,
    *,
    watch: Annotated[bool, Parameter(name=["--watch", "-w"], help="Go on showing it; Ctrl-C ends it.")] = False,
    interval: Annotated[str, Parameter(help="Between two looks with --watch (1s, 500ms).", show_default=True)] = "2s",
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Show each stage: state, workers (as desired/wanted), rate, lag, time until it is gone, retries, dead records.

    Exits 1 where it is not well. With --watch and -o json: one line for each look.
    """
    every = seconds_of(interval, "topology status", "--interval", least=_LEAST_INTERVAL)
    with cluster_of(bootstrap_servers, data_dir, kafka_config, name) as cluster:
        if not watch:
            return _show(cluster, name)
        while True:
            _look_again(cluster, name)
            _pause(every)


def describe(
    name: TopologyName,
    /,
    *,
    version: Version = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a deployed topology: version, who deployed it and when, code, stages, topics, partitions."""
    with cluster_of(bootstrap_servers, data_dir, kafka_config, name) as cluster:
        pointer = cluster.log.current(name)
        deployment = cluster.log.deployment(name, pointer.version if version is None else version)
        stages = cluster.stages(name) if deployment.version == pointer.version else []
    shown = terminal()
    if shown.is_structured:
        shown.data({**asdict(deployment), "desired": asdict(pointer), "stages": [asdict(row) for row in stages]})
        return
    shown.details(
        {
            "name": name,
            "version": deployment.version,
            "state": pointer.state if stages else f"version {pointer.version} is the one that is {pointer.state}",
            "deployed": f"{day_and_time(deployment.created_at)} by {deployment.created_by or '-'}",
            "message": deployment.message,
            "guarantee": deployment.plan.get("guarantee"),
            "hash": deployment.plan["hash"],
            "scale": dict(pointer.scale),
            "leaving": [f"{each.stage} of version {each.version}" for each in pointer.leaving],
            "caller": deployment.caller,
            "code": {key: digest for key, digest in deployment.code.items() if not key.startswith("step:")},
        }
    )
    shown.line()
    shown.rows(
        [_stage(stage) for stage in deployment.plan["stages"]],
        (
            Column("stage"), Column("steps", show=_joined), Column("execution", "RUNS AS"),
            Column("reads", show=_joined), Column("writes", show=_joined), Column("group"),
        ),
    )  # fmt: skip
    places = [
        {"stage": row.stage, "partition": place, "worker": worker}
        for row in stages
        for place, worker in sorted(row.partitions.items())
    ]
    if places:
        shown.line()
        shown.rows(places, (Column("stage"), Column("partition"), Column("worker")))


def history(
    name: TopologyName,
    /,
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show what was done to a topology, newest first: versions, rollbacks, scaling, pauses, and by whom."""
    with cluster_of(bootstrap_servers, data_dir, kafka_config, name) as cluster:
        changes = cluster.log.changes(name)
        if not changes:
            cluster.log.current(name)  # says that there is none
        stored = set(cluster.log.versions(name))
    rows = [
        {
            "revision": each.revision, "version": each.version, "state": each.state, "changed_at": each.changed_at,
            "changed_by": each.changed_by, "reason": each.reason, "stored": each.version in stored,
        }
        for each in reversed(changes)
    ]  # fmt: skip
    terminal().rows(rows, _HISTORY)


def _show(cluster: Cluster, name: str) -> int:
    shown = terminal()
    row, stages = cluster.topology(name), cluster.stages(name)
    if shown.is_structured:
        shown.data(_as_dict(row, stages))
    else:
        styles = {"ok": shown.good, "failing": shown.bad, "stalled": shown.bad}
        health = f", {styles.get(row.health, shown.warning)(row.health)}" if row.health else ""
        workers = f"{len(row.workers)} worker{'' if len(row.workers) == 1 else 's'}"
        shown.line(f"{shown.bold(name)} v{row.version} {row.state}{health}; {workers}")
        shown.rows([_stage_cells(one) for one in stages], _STATUS, empty="its first version is being checked")
        if row.problem:
            shown.note(row.problem)
    return _EXIT_NOT_WELL if row.health in {"failing", "stalled"} else 0


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _look_again(cluster: Cluster, name: str) -> None:
    """One look of many: brokers that are away for a while do not end it."""
    from sage.errors import TransientFailure, Unreachable

    shown = terminal()
    try:
        cluster.refresh()
        if shown.is_structured:
            shown.record(_as_dict(cluster.topology(name), cluster.stages(name)))
        else:
            _redraw(shown)
            _show(cluster, name)
    except (Unreachable, TransientFailure) as error:
        shown.note(f"looking again: {error}")


def _redraw(shown: Terminal) -> None:
    if shown.out.isatty():
        shown.out.write("\x1b[H\x1b[2J")
    else:
        shown.line()


def _topology(row: TopologyRow) -> dict[str, Any]:
    fields = asdict(row)
    if not terminal().is_structured:
        fields["ready"] = f"{row.ready}/{row.stages}"
    return fields


def _stage_cells(row: StageRow) -> dict[str, Any]:
    restored = "" if row.restored is None else f" {row.restored:.0%}"
    return {**asdict(row), "state": row.state + restored, "workers": f"{row.ready}/{row.wanted}"}


def _as_dict(row: TopologyRow, stages: list[StageRow]) -> dict[str, Any]:
    return {**asdict(row), "stages": [asdict(one) for one in stages], "stage_count": row.stages}


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": stage["name"],
        "steps": stage["steps"],
        "execution": stage["execution"],
        "reads": [one["topic"] for one in stage["inputs"]],
        "writes": [one["topic"] for one in stage["outputs"]],
        "group": stage["group"],
    }
