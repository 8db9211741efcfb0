"""Records as a stage's steps see them: where they first came from, and how often they went around."""

from __future__ import annotations

from sage.model import retry_headers as names
from sage.model.hops import HOPS
from sage.model.record import Headers
from sage.plan.plan import Stage
from sage.ports import RawMessage


class Retried:
    """A record read from a retry topic, seen as it was first read: its place, its headers.

    Attributes:
        due: milliseconds since the epoch before which it is not tried again; 0 is at once.
        attempts: tries so far.
        tells_its_place: whether it says where it was first read; what others write there may not.
    """

    __slots__ = ("_headers", "_message", "_offset", "_partition", "_topic", "attempts", "due", "tells_its_place")

    def __init__(self, message: RawMessage, default_topic: str) -> None:
        came = message.headers() or []
        found = {name: (value or b"").decode(errors="replace") for name, value in came if name in names.ALL}
        self._message = message
        self._headers: list[tuple[str, bytes | None]] = [pair for pair in came if pair[0] not in names.ALL]
        self._topic = found.get(names.TOPIC, default_topic)
        self._partition = _number(found.get(names.PARTITION), message.partition())
        self._offset = _number(found.get(names.OFFSET), message.offset())
        self.tells_its_place = names.TOPIC in found and found.get(names.OFFSET, "").isdecimal()
        self.due = _number(found.get(names.DUE), 0)
        self.attempts = _number(found.get(names.ATTEMPTS), 0)

    def wait(self, now_ms: int, longest: float) -> float:
        """Seconds until it is due; never more than ``longest``, the longest back-off that its stage can have given
        it: the clock that it was put there by may have been another one, or have jumped since."""
        return min(max(self.due - now_ms, 0) / 1000, longest)

    def topic(self) -> str:
        """The topic it was first read from."""
        return self._topic

    def partition(self) -> int:
        """Its partition there."""
        return self._partition

    def offset(self) -> int:
        """Its offset there."""
        return self._offset

    def key(self) -> bytes | None:
        """The record's key."""
        return self._message.key()

    def value(self) -> bytes | None:
        """The record's value."""
        return self._message.value()

    def headers(self) -> list[tuple[str, bytes | None]]:
        """The record's own headers, without those of the retry topic."""
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        """The record's timestamp."""
        return self._message.timestamp()


class Returned:
    """A record that came over an edge that goes back: its hops are one more."""

    __slots__ = ("_headers", "_message")

    def __init__(self, message: RawMessage) -> None:
        came = message.headers() or []
        hops = hops_of(came) + 1
        self._message = message
        # In front, so that sage.id stays last, where it is looked for.
        self._headers: list[tuple[str, bytes | None]] = [(HOPS, b"%d" % hops), *(p for p in came if p[0] != HOPS)]

    def topic(self) -> str:
        """Where it was read."""
        return self._message.topic()

    def partition(self) -> int:
        """Where it was read."""
        return self._message.partition()

    def offset(self) -> int:
        """Where it was read."""
        return self._message.offset()

    def key(self) -> bytes | None:
        """The record's key."""
        return self._message.key()

    def value(self) -> bytes | None:
        """The record's value."""
        return self._message.value()

    def headers(self) -> list[tuple[str, bytes | None]]:
        """The record's headers, with the count raised."""
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        """The record's timestamp."""
        return self._message.timestamp()


class Intake:
    """Gives each message its view. ``is_plain``: input messages are seen as they are."""

    def __init__(self, stage: Stage) -> None:
        self._retry_topic = stage.retry_topic
        self._default_topic = first_input(stage)
        self._returning = frozenset(i.topic for i in stage.inputs if i.max_hops is not None)
        self.is_plain = not self._returning

    def is_retry(self, message: RawMessage) -> bool:
        """Whether it comes from the stage's retry topic."""
        return bool(self._retry_topic) and message.topic() == self._retry_topic

    def view(self, message: RawMessage) -> RawMessage:
        """The message as steps, identities and dead letters see it."""
        topic = message.topic()
        if topic == self._retry_topic:
            return Retried(message, self._default_topic)
        return Returned(message) if topic in self._returning else message


def first_input(stage: Stage) -> str:
    """The topic that a record of the retry topic is of, which says nothing of its origin."""
    return stage.inputs[0].topic if stage.inputs else ""


def hops_of(headers: Headers | None) -> int:
    """How often a record went around."""
    return next(
        (_number((value or b"").decode(errors="replace"), 0) for name, value in headers or () if name == HOPS), 0
    )


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
