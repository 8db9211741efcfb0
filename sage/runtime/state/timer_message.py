"""A timer that is due, as the record that its step's code runs for."""

from __future__ import annotations

from sage.model.identity import SAGE_ID
from sage.model.partition import TopicPartition


class TimerMessage:
    """A RawMessage without a value and without a place in a log: its offset is -1.

    Attributes:
        timer: its name.
    """

    __slots__ = ("_at", "_headers", "_key", "_timestamp", "timer")

    def __init__(self, at: TopicPartition, key: bytes, timer: str, timestamp: int, record_id: str) -> None:
        self.timer = timer
        self._at = at
        self._key = key
        self._timestamp = timestamp
        self._headers: list[tuple[str, bytes | None]] = [(SAGE_ID, record_id.encode())]

    def topic(self) -> str:
        """The stage's input, whose key it is."""
        return self._at.topic

    def partition(self) -> int:
        """The key's partition."""
        return self._at.partition

    def offset(self) -> int:
        """None in truth."""
        return -1

    def key(self) -> bytes:
        """The key that set it."""
        return self._key

    def value(self) -> None:
        """Nothing."""

    def headers(self) -> list[tuple[str, bytes | None]]:
        """Its identity: the same if it fires again after a crash."""
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        """When it was due."""
        return 1, self._timestamp
