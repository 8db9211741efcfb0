"""The bytes of a stage's inputs, decoded for its first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage.errors import RecordFailure
from sage.plan.plan import StageInput
from sage.ports import RawMessage
from sage.runtime.retries.intake import hops_of
from sage.runtime.steps.codec import decoder, is_marked


class TooManyHops(RecordFailure):
    """A record went around a loop more often than it may."""


class InputDecoder:
    """Decodes a message by its topic's format; a null stays ``None``, marked bytes stay bytes."""

    def __init__(self, inputs: Sequence[StageInput], wanted: Any, *, copies: bool = False) -> None:
        self._max_hops = {i.topic: i.max_hops for i in inputs if i.max_hops is not None}
        self._by_topic = {i.topic: decoder("bytes" if copies else i.format, wanted) for i in inputs}

    def decode(self, message: RawMessage) -> Any:
        """The value.

        Raises:
            DecodeFailure: the bytes are not what their topic holds.
            RecordFailure: the record came around too often.
        """
        if self._max_hops:
            self._check_hops(message)
        data = message.value()
        if data is None:
            return None
        if is_marked(message.headers()):
            return data
        return self._by_topic[message.topic()](data)

    def _check_hops(self, message: RawMessage) -> None:
        most = self._max_hops.get(message.topic())
        if most is not None and (hops := hops_of(message.headers())) > most:
            raise TooManyHops(f"came back {hops} times, and max_hops is {most}")
