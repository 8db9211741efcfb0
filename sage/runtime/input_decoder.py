"""The bytes of a stage's inputs, decoded for its first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage.plan.plan import StageInput
from sage.ports import RawMessage
from sage.runtime.codec import decoder, is_marked


class InputDecoder:
    """Decodes a message by its topic's format; a null stays ``None``, marked bytes stay bytes."""

    def __init__(self, inputs: Sequence[StageInput], wanted: Any, *, copies: bool = False) -> None:
        self._by_topic = {i.topic: decoder("bytes" if copies else i.format, wanted) for i in inputs}

    def decode(self, message: RawMessage) -> Any:
        """The value. Raises DecodeFailure."""
        data = message.value()
        if data is None:
            return None
        if is_marked(message.headers()):
            return data
        return self._by_topic[message.topic()](data)
