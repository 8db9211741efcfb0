"""``sage bench``: how fast a topology is, and whether it became slower."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli import text
from sage.cli.commands.control import seconds_of
from sage.cli.commands.isolated_runs import Keep, Source, environment_of, removed_after, topology_of
from sage.cli.commands.topology import Target
from sage.cli.flags import UsageError
from sage.cli.options import (
    AT_LEAST_ONE,
    COUNT,
    DEFAULT_DATA_DIR,
    RATE,
    BootstrapServers,
    DataDir,
    KafkaConfig,
    writable,
)
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.graph.topology import Topology
    from sage.operations.isolation import Isolated
    from sage.operations.measuring.figures import Figures
    from sage.operations.measuring.running import Load
    from sage.operations.measuring.sample import Sample

_FEW, _SHORT = 1_000, 2.0
"""Records and seconds: of fewer a rate says little."""

Records = Annotated[
    int | None,
    Parameter(help="So many go in, repeated where there are fewer; else each of them once.", validator=AT_LEAST_ONE),
]
PerSecond = Annotated[
    float | None,
    Parameter(help="So many go in a second, and latency is measured; else as fast as it can.", validator=RATE),
]
Processes = Annotated[
    int, Parameter(name=["--processes", "-p"], help="Worker processes that share the work.", validator=AT_LEAST_ONE)
]


def run(
    target: Target,
    /,
    *,
    records: Records = None,
    given: Annotated[
        Path | None, Parameter(name="--input", help="Records, one JSON value a line; else what the source has now.")
    ] = None,
    rate: PerSecond = None,
    processes: Processes = 1,
    save: Annotated[
        Path | None, Parameter(help="A file for the figures, for `sage bench compare`.", validator=writable)
    ] = None,
    source: Source = None,
    timeout: Annotated[str | None, Parameter(help="Give up after this long (30, 500ms, 2m) and exit 5.")] = None,
    keep: Keep = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Put a topology under load and measure it from outside: records a second, latency, processor time, memory.

    It runs in processes and under a name of its own, on the brokers that are configured: what is deployed is left
    alone, sources and sinks are bypassed, and collections are only read. Models and services are really called. The
    first 2 % of the records count in no figure.
    """
    from sage import app
    from sage.operations.isolation import isolated, run_name
    from sage.operations.measuring.running import Load

    limit = None if timeout is None else seconds_of(timeout, "bench run")
    found = app.load_target(target, environ=os.environ)
    topology = topology_of(found)
    isolated_run = isolated(topology, run_name(topology.name, "bench"), source=source)
    places: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers, "kafka_config": kafka_config, "data_dir": data_dir,
    }  # fmt: skip
    with environment_of(found, isolated_run, **places) as environment:
        if processes > 1:
            app.refuse_several_workers(environment)
        sample = _sample(environment, isolated_run, given, records, data_dir)
        load = Load(records or len(sample.records), rate, processes)
        figures = _measured(environment, topology, isolated_run, sample, load, target, limit, keep, places)
    if save is not None:
        from sage.operations.measuring.saved import save as write

        write(save, figures)
    _show(figures)


def compare(
    first: Annotated[Path, Parameter(name="BEFORE", help="Figures that `sage bench run --save` wrote.")],
    second: Annotated[Path, Parameter(name="NOW", help="Those that are judged.")],
    /,
    *,
    max_slowdown: Annotated[
        float,
        Parameter(help="The share by which rate, latency (p50, p95) and processor time may be worse.", validator=COUNT),
    ] = 0.1,
    force: Annotated[bool, Parameter(help="Compare what was measured with other topologies or inputs too.")] = False,
) -> int:
    """Compare two measured runs. Exits 1 when the second is slower than allowed, or has more dead letters.

    Code and options of the steps may differ between them; steps, input and load must be the same.
    """
    from sage.operations.measuring.saved import compare as ratios_of
    from sage.operations.measuring.saved import differences, load, other_machine

    before, now = load(first), load(second)
    shown = terminal()
    reasons = differences(before, now)
    if reasons and not force:
        raise UsageError(f"bench compare: not measured alike: {'; '.join(reasons)}; compare them anyway with --force")
    for reason in [*reasons, *other_machine(before, now)]:
        shown.note(f"not alike: {reason}")
    ratios = ratios_of(before, now, max_slowdown)
    rows = [
        {
            "measure": one.measure, "before": one.first, "now": one.second,
            "ratio": None if one.ratio is None else round(one.ratio, 3), "worse": one.is_worse,
        }
        for one in ratios
    ]  # fmt: skip
    shown.rows(rows, _RATIOS)
    return _verdict([one.measure for one in ratios if one.is_worse], max_slowdown, before.topology)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.2f}"


_RATIOS = (
    Column("measure"),
    Column("before", right=True, show=_number),
    Column("now", right=True, show=_number),
    Column("ratio", "NOW/BEFORE", right=True, show=lambda ratio: f"{ratio:.2f}"),
    Column("worse", "VERDICT", show=lambda is_worse: "worse" if is_worse else "-"),
)


def _verdict(worse: list[str], max_slowdown: float, topology: str) -> int:
    from sage.errors import SageError

    if worse:
        raise SageError(f"worse than --max-slowdown {max_slowdown:g} allows: {', '.join(worse)}", where=topology)
    return 0


def _sample(
    environment: LocalEnvironment, run: Isolated, given: Path | None, records: int | None, data_dir: Path
) -> Sample:
    from sage.operations.measuring.sample import MOST, sample_file, sample_source, sample_topic

    terminal().progress("reading the records")
    if given is not None:
        return sample_file(given, run.input_format)
    most = min(records or MOST, MOST)
    if run.original.is_topic:
        return sample_topic(environment.clients, run.original.config["topic"], most)
    return sample_source(run.original, run.topology, data_dir, os.environ, most)


def _measured(
    environment: LocalEnvironment, topology: Topology, run: Isolated, sample: Sample, load: Load, target: str,
    limit: float | None, keep: bool, places: Mapping[str, Any],
) -> Figures:  # fmt: skip
    from sage.operations.measuring.running import Bench
    from sage.operations.measuring.worker import arguments

    shown = terminal()
    shown.note(
        f"{topology.name}: {load.records:,} records of {sample.origin}, "
        f"{'as fast as it can' if load.rate is None else f'{load.rate:g} a second'}, "
        f"{load.processes} process{'' if load.processes == 1 else 'es'}"
    )
    bench = Bench(
        topology, run, environment.plan(), sample, load,
        arguments(target, run.name, run.entry, **places), dict(os.environ), limit,
        progress=lambda done, total: shown.bar("records", done, total), note=shown.note,
    )  # fmt: skip
    clients = environment.clients
    with removed_after(environment, run.name, places["data_dir"], keep=keep):
        return bench.measure(clients)


def _show(found: Figures) -> None:
    shown = terminal()
    if shown.is_structured:
        shown.data(found.as_dict())
    else:
        shown.details(_fields(found, wide=shown.flags.output == "wide"))
    if found.records_per_second is None:
        shown.note("too few records, or too fast, to measure a rate; repeat them with --records")
    elif found.records < _FEW or (found.seconds or 0) < _SHORT:
        shown.note("so few records say little of a rate; repeat them with --records")
    if found.rate is None:
        shown.note("latency is measured at a --rate: without one, records wait in the input for their turn")
    if found.dead:
        shown.note(f"{found.dead} records died; `sage bench run --keep` leaves their letters")


def _fields(found: Figures, *, wide: bool) -> dict[str, Any]:
    latency = found.latency
    fields: dict[str, Any] = {
        "records a second": None if found.records_per_second is None else _rate(found.records_per_second),
        "latency": None
        if latency is None
        else ", ".join(f"{name} {_time(ms / 1e3)}" for name, ms in latency._asdict().items()),
        "processor time": None if found.processor_us is None else f"{_time(found.processor_us / 1e6)} a record",
        "memory": None if found.memory_mib is None else f"{found.memory_mib:,.0f} MiB at most",
        "records": f"{found.records:,} in, {'-' if found.outputs is None else f'{found.outputs:,}'} out, "
        f"{found.dead:,} dead",
        "measured over": None if found.seconds is None else text.milliseconds(found.seconds),
    }  # fmt: skip
    if wide:
        fields |= {
            "input": found.input, "guarantee": found.guarantee, "processes": found.processes,
            "plan": found.plan, "machine": found.machine,
        }  # fmt: skip
    return fields


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _time(seconds: float) -> str:
    """Three digits, in the unit that fits."""
    if seconds >= 1:
        return text.milliseconds(seconds)
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
