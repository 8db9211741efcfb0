# ruff: noqa: D102 - the properties of the two protocols are those of the report, named there
"""What ``sage topology run`` says of a run: its numbers, and why records died."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from sage.errors import RecordFailure
from sage.graph.topology import Topology
from sage.operations.dead_letters import Letter

_WRITERS = {
    "documents": "a retriever",
    "messages": "a promptor",
    "answer": "a generator",
    "query": "a source of questions",
}
"""Which kind of step writes a field of the question-answering record: what to look for when one is missing."""


_CODE = re.compile(r"\s*\[SAGE\d+\]")

_WORTH_SAYING = 0.001
"""Seconds: quicker steps are left out of the line."""


class StepNumbers(Protocol):
    """One step of a run's report, as far as it is shown."""

    @property
    def read(self) -> int: ...
    @property
    def p50(self) -> float | None: ...


class RunNumbers(Protocol):
    """A run's report, as far as it is shown."""

    @property
    def topology(self) -> str: ...
    @property
    def steps(self) -> Mapping[str, StepNumbers]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def complete(self) -> bool: ...
    @property
    def read(self) -> int: ...
    @property
    def retried(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def dead_letters(self) -> int: ...


def summary(topology: Topology, report: RunNumbers) -> str:
    """``5 in, 5 out, 0 retried, 0 dead, 4.1 s.  retrieve p50 18 ms, generate p50 640 ms``."""
    counts = [f"{report.read} in", f"{delivered(topology, report)} out", f"{report.retried} retried"]
    if report.skipped:
        counts.append(f"{report.skipped} skipped")
    counts += [f"{report.dead_letters} dead", f"{report.seconds:.1f} s"]
    slow = [
        f"{name} p50 {_time(step.p50)}"
        for name, step in report.steps.items()
        if step.p50 is not None and step.p50 >= _WORTH_SAYING
    ]
    return ", ".join(counts) + "." + (f"  {', '.join(slow)}" if slow else "")


def delivered(topology: Topology, report: RunNumbers) -> int:
    """Records that the sinks took, or that went to the topics nobody of this topology reads."""
    total = 0
    for step in topology.steps:
        numbers = report.steps.get(step.name)
        if step.kind == "sink" and numbers is not None:
            total += numbers.read
    return total


def as_dict(topology: Topology, report: Any) -> dict[str, Any]:
    """The report as plain JSON."""
    return {**asdict(report), "read": report.read, "delivered": delivered(topology, report), "dead": report.dead}


def explain_deaths(report: RunNumbers, letters: Sequence[Letter]) -> RecordFailure:
    """The error for a run in which records died: the step, how many, the last reason, and where to look."""
    counts = Counter(letter.step for letter in letters)
    hint = f"`sage dlq show {report.topology}`."
    if not counts:
        return RecordFailure(f"{report.dead_letters} records dead. {hint}", where=report.topology)
    step, dead = counts.most_common(1)[0]
    letter = next(one for one in reversed(letters) if one.step == step)
    numbers = report.steps.get(step)
    read = f" of {numbers.read}" if numbers is not None and numbers.read >= dead else ""
    records = "records" if read or dead > 1 else "record"
    return RecordFailure(f"{dead}{read} {records} dead: {_reason(letter)} {hint}", where=f'step "{step}"')


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _reason(letter: Letter) -> str:
    """``KeyError 'documents' (the record has: id, query). Is a retriever upstream?``."""
    if letter.error != "KeyError":
        # The message may be one of ours, with a code of its own: the line has one code, at its end.
        return f"{_CODE.sub('', letter.reason).rstrip('.')}."
    fields = _fields(letter.record["value"])
    found = f" (the record has: {', '.join(fields)})" if fields else ""
    writer = _WRITERS.get(letter.message.strip("'\""))
    advice = f" Is {writer} upstream?" if writer else ""
    return f"KeyError {letter.message}{found}.{advice}"


def _fields(value: Any) -> list[str]:
    if isinstance(value, str):
        # A plain text counts as a record with a query alone.
        return ["query"]
    return sorted(value) if isinstance(value, Mapping) else []
