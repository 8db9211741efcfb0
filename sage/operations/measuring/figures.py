"""What was measured, and how it is found in what was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

FIRST_SHARE = 0.02
"""Of the records: while they pass, processes warm up and groups settle; they count in no figure."""


class Look(NamedTuple):
    """What was there at one moment: monotonic seconds, records that had come out, processor seconds of the workers."""

    at: float
    done: int
    processor: float


class Rate(NamedTuple):
    """How fast records passed between 2 % and all of them.

    ``processor`` is microseconds a record of all workers' processes together.
    """

    per_second: float
    processor: float
    seconds: float


def rate_of(looks: Sequence[Look], records: int) -> Rate | None:
    """The rate in which ``records`` went in, by what came out of them; ``None`` where it all came between two looks.

    What comes out may be more or less than went in: the share of it that is there is the share that is done.
    """
    total = looks[-1].done if looks else 0
    first = next((look for look in looks if look.done >= max(1, math.ceil(total * FIRST_SHARE))), None)
    last = next((look for look in looks if look.done == total), None)
    if total == 0 or first is None or last is None or first.done == total or last.at <= first.at:
        return None
    passed, seconds = (last.done - first.done) / total * records, last.at - first.at
    return Rate(passed / seconds, (last.processor - first.processor) / passed * 1e6, seconds)


class Latency(NamedTuple):
    """Milliseconds from before a record is written to after what came of it is read."""

    p50: float
    p95: float
    p99: float


def latency_of(seconds: Sequence[float]) -> Latency | None:
    """The quantiles; ``None`` of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    p50, p95, p99 = (ordered[math.ceil(q * len(ordered)) - 1] * 1e3 for q in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99)


@dataclass(frozen=True, slots=True)
class Figures:
    """One measured run.

    Attributes:
        topology: its name; graph: a digest of its steps and how they hang together; plan: the compiled plan's hash,
            which its code and options go into.
        input: where the records came from; input_digest: of them.
        records: that went in; rate: asked for, a second, or ``None`` for as fast as possible.
        processes, guarantee: how it ran.
        machine: kind of processor, cores, Python, SAGE and broker.
        records_per_second, seconds: between 2 % and all of them, and how long that took.
        latency: at a rate only: else records wait in the input for their turn, which says nothing of the topology.
        processor_us: a record, of all processes; memory_mib: the most that they held together.
        outputs: records that came out; ``None`` under exactly_once, where markers can't be told from them.
        dead: dead letters.
    """

    topology: str
    graph: str
    plan: str
    input: str
    input_digest: str
    records: int
    rate: float | None
    processes: int
    guarantee: str
    machine: dict[str, Any]
    records_per_second: float | None
    seconds: float | None
    latency: Latency | None
    processor_us: float | None
    memory_mib: float | None
    outputs: int | None
    dead: int

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        latency = None if self.latency is None else {name: round(ms, 3) for name, ms in self.latency._asdict().items()}
        return {**asdict(self), "latency": latency}
