"""What one record becomes: the records to produce, and where to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sage.errors import RecordFailure
from sage.model.dead_letter_headers import REPLAYS
from sage.model.identity import SAGE_ID
from sage.model.record import Headers
from sage.ports import RawMessage
from sage.runtime.steps.codec import BYTES_MARK, encode

TRACEPARENT = "traceparent"
"""The header of the W3C trace context."""


class Output(NamedTuple):
    """One record to produce; its headers are the input's, with this id.

    ``marked`` says that the value is plain bytes and must not be read as JSON.
    """

    topic: str
    value: bytes | None
    key: bytes | None
    record_id: str
    marked: bool = False


class Target(NamedTuple):
    """A topic that takes outputs, and how its values are written."""

    topic: str
    format: str = "json"


class Targets:
    """The topics of a stage's outputs, by step and branch."""

    def __init__(self, topics: Mapping[tuple[str, str | None], tuple[Target, ...]]) -> None:
        self._topics = topics

    def main(self, step: str) -> tuple[Target, ...]:
        """Topics that take the step's output; none where nobody reads it."""
        return self._topics.get((step, None), ())

    def branch(self, step: str, branch: str) -> tuple[Target, ...]:
        """Topics of a branch.

        Raises:
            RecordFailure: the step has no such branch that anyone reads.
        """
        try:
            return self._topics[(step, branch)]
        except KeyError:
            known = sorted(name for owner, name in self._topics if owner == step and name) or ["none"]
            raise RecordFailure(f"no branch {branch!r} is read; branches of this step: {', '.join(known)}") from None


def add_outputs(out: list[Output], targets: tuple[Target, ...], value: Any, key: bytes | None, record_id: str) -> None:
    """Encode ``value`` and add it for each topic."""
    marked = type(value) is bytes
    out.extend(Output(topic, encode(value, written), key, record_id, marked) for topic, written in targets)


def headers_of(came: Headers | None, output: Output, trace: Sequence[tuple[str, bytes]] = ()) -> Headers:
    """The output's headers: the input's, in order, then ``sage.id`` (and the mark of plain bytes).

    The list that came is passed on as it is where nothing in it changes. ``trace`` replaces the W3C headers. How often
    a dead letter was replayed, which stands first, is about the record that failed, not about what came of it.
    """
    if came and not trace and not output.marked and came[0][0] != REPLAYS:
        name, value = came[-1]
        if name == SAGE_ID and value is not None and value.decode(errors="replace") == output.record_id:
            return came
    fresh = dict(trace)
    headers: list[tuple[str, bytes | None]] = [
        (name, fresh.pop(name, value)) for name, value in came or () if name not in (SAGE_ID, BYTES_MARK[0], REPLAYS)
    ]
    headers += fresh.items()
    headers.append((SAGE_ID, output.record_id.encode()))
    if output.marked:
        headers.append(BYTES_MARK)
    return headers


def needs_trace(headers: Headers | None) -> bool:
    """Whether a record enters SAGE here without W3C context, as one that another program wrote may."""
    return not any(name in (SAGE_ID, TRACEPARENT) for name, _ in headers or ())


def record_id_of(headers: Headers | None) -> str | None:
    """The ``sage.id`` in a record's headers. SAGE adds it last, so it is looked for from the end."""
    for name, value in reversed(headers or ()):
        if name == SAGE_ID and value is not None:
            return value.decode(errors="replace")
    return None


def timestamp_of(message: RawMessage) -> int | None:
    """The input's timestamp, which its outputs keep."""
    kind, milliseconds = message.timestamp()
    return milliseconds if kind else None
