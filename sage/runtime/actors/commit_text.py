"""The text beside a committed offset: who may have a transaction open, and where the journal is still needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson


class JournalMark(NamedTuple):
    """Up to where a partition of a journal is of no more use.

    Attributes:
        offset: the lowest offset that a record which was not committed then may need.
        whole: whether the actor had all partitions that share the journal's, and so spoke for all of them.
    """

    offset: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class CommitText:
    """At most a few hundred bytes of the broker's 4,096 (``offset.metadata.max.bytes``).

    Attributes:
        transactional_id: the actor that committed it and still owned the partition then; empty after a clean
            hand-over and at-least-once.
        journal: what a record after the committed offset may need of the step's journal.
    """

    transactional_id: str = ""
    journal: JournalMark | None = None

    def encode(self) -> str:
        """As it is committed; empty where there is nothing to say."""
        fields: dict[str, Any] = {}
        if self.transactional_id:
            fields["t"] = self.transactional_id
        if self.journal is not None:
            fields["j"] = self.journal.offset
            if self.journal.whole:
                fields["w"] = True
        return orjson.dumps(fields).decode() if fields else ""

    @classmethod
    def decode(cls, text: str) -> CommitText:
        """What another SAGE wrote; anything else, as of a tool that reset offsets, says nothing."""
        try:
            fields = orjson.loads(text) if text else {}
        except orjson.JSONDecodeError:
            return cls()
        if not isinstance(fields, dict):
            return cls()
        name, journal = fields.get("t"), fields.get("j")
        mark = JournalMark(journal, fields.get("w") is True) if isinstance(journal, int) else None
        return cls(name if isinstance(name, str) else "", mark)
