"""What a run did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sage.graph.topology import Topology
from sage.plan.plan import Plan
from sage.runtime.runs.counters import Numbers, StepCounters

_WORTH_SAYING = 0.001
"""Seconds: quicker steps are left out of the line."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step's numbers in this process. Times are seconds per record; ``None`` where none was measured."""

    name: str
    read: int
    written: int
    retried: int = 0
    skipped: int = 0
    dead: int = 0
    p50: float | None = None
    p95: float | None = None
    last_error: str = ""

    @classmethod
    def of(cls, name: str, counters: StepCounters) -> StepReport:
        """A snapshot of a step's counters."""
        times = counters.durations
        return cls(
            name, counters.read, counters.written, counters.retried, counters.skipped, counters.dead,
            times.quantile(0.5), times.quantile(0.95), counters.last_error,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunReport:
    """What ``run_once`` gives back: the numbers of that run alone.

    Attributes:
        topology: its name.
        steps: by name, in the order of the topology.
        seconds: from the call to the last commit.
        read: records that entered: given by all sources, or read from topics that others write.
        complete: false where the time-out came first.
        waiting_for: what was not finished then.
        dead_letters: by how much the dead-letter topic grew, whoever wrote there.
        delivered: records that the sinks took, or that were written to the topics of topic sinks.

    ``str()`` of it is one line: ``5 in, 5 out, 0 retried, 0 dead, 4.1 s.  retrieve p50 18 ms, generate p50 640 ms``.
    """

    topology: str
    steps: Mapping[str, StepReport]
    seconds: float
    complete: bool = True
    waiting_for: str = ""
    dead_letters: int = 0
    delivered: int = 0
    read: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dead(self) -> int:
        """Records that became dead letters in this process."""
        return sum(step.dead for step in self.steps.values())

    @property
    def retried(self) -> int:
        """Tries after the first."""
        return sum(step.retried for step in self.steps.values())

    @property
    def skipped(self) -> int:
        """Records given up by ``on_error: skip``."""
        return sum(step.skipped for step in self.steps.values())

    def __str__(self) -> str:
        counts = [f"{self.read} in", f"{self.delivered} out", f"{self.retried} retried"]
        if self.skipped:
            counts.append(f"{self.skipped} skipped")
        counts += [f"{self.dead_letters} dead", f"{self.seconds:.1f} s"]
        if not self.complete:
            counts.append("not complete")
        slow = [
            f"{name} p50 {_time(step.p50)}"
            for name, step in self.steps.items()
            if step.p50 is not None and step.p50 >= _WORTH_SAYING
        ]
        return ", ".join(counts) + "." + (f"  {', '.join(slow)}" if slow else "")


def with_steps(report: RunReport, plan: Plan, numbers: Mapping[str, Numbers]) -> RunReport:
    """The report, with steps of other processes."""
    order = {step.name: index for index, step in enumerate(plan.topology.steps)}
    known = {name: StepReport(name, *counts) for name, counts in numbers.items() if name in order} | dict(report.steps)
    steps = {name: known[name] for name in sorted(known, key=lambda name: order.get(name, -1))}
    return replace(report, steps=steps, delivered=delivered(plan.topology, steps), read=entered(plan, steps))


def delivered(topology: Topology, steps: Mapping[str, StepReport]) -> int:
    """Records that left ``topology``, by the numbers of its ``steps``."""
    total = 0
    for step in topology.steps:
        if step.kind != "sink":
            continue
        if step.is_topic:  # no actor of its own: what is written before it is in its topic
            total += sum(steps[one.step].written for one in step.inputs if one.step in steps)
        elif step.name in steps:
            total += steps[step.name].read
    return total


def entered(plan: Plan, steps: Mapping[str, StepReport]) -> int:
    """Records that came into ``plan``, by its ``steps``' numbers; a topic that several stages read counts once."""
    total = sum(steps[stage.name].read for stage in plan.stages if stage.execution == "source" and stage.name in steps)
    written = {output.topic for stage in plan.stages for output in stage.outputs}
    counted: set[str] = set()
    readers = [(stage, {i.topic for i in stage.inputs} - written) for stage in plan.stages]
    for stage, outside in sorted(readers, key=lambda reader: -len(reader[1])):
        if stage.name in steps and outside and not outside & counted:
            counted |= outside
            inside = sum(steps[i.upstream].written for i in stage.inputs if i.topic in written and i.upstream in steps)
            total += max(0, steps[stage.name].read - inside)
    return total


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
