# ruff: noqa: D102 - the properties of the two protocols are those of the report, named there
"""What ``sage topology run`` says of a run beside its numbers: that nothing was new, and why records died."""

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


class StepNumbers(Protocol):
    """One step of a run's report, as far as it is shown."""

    @property
    def read(self) -> int: ...


class RunNumbers(Protocol):
    """A run's report, as far as it is shown."""

    @property
    def topology(self) -> str: ...
    @property
    def steps(self) -> Mapping[str, StepNumbers]: ...
    @property
    def dead_letters(self) -> int: ...


def nothing_new(topology: Topology, report: RunNumbers) -> str | None:
    """What to say of a run whose sources gave nothing; ``None`` where one did, or where there is none."""
    sources = [step.name for step in topology.steps if step.kind == "source" and not step.is_topic]
    given = [report.steps[name].read for name in sources if name in report.steps]
    if not sources or any(given):
        return None
    return "nothing new to read; --from-beginning reads all again"


def as_dict(report: Any) -> dict[str, Any]:
    """The report as plain JSON."""
    return {**asdict(report), "dead": report.dead}


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
    # A plain text has no fields: operators take it as a query, but nobody wrote one.
    return sorted(value) if isinstance(value, Mapping) else []
