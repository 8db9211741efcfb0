"""What one record or timer did to its key."""

from __future__ import annotations


class WriteSet:
    """A change that is staged: later records of the key see it; it counts when a checkpoint with it is committed.

    Attributes:
        key: whose.
        value: the entry from now on; ``None`` where the key is forgotten.
        number: rises with each change of the partition.
        before: the change of the same key that this one builds upon, while that one is not committed.
        claimed: part of the checkpoint that is being made, or of one before.
        final: committed.
    """

    __slots__ = ("before", "claimed", "final", "key", "number", "value")

    def __init__(self, key: bytes, value: bytes | None, number: int, before: WriteSet | None) -> None:
        self.key = key
        self.value = value
        self.number = number
        self.before = before
        self.claimed = False
        self.final = False

    def claim(self) -> bool:
        """Make it part of the checkpoint; false where a change that it builds upon is not part of it.

        A record that was read from another partition (a retry topic, a second input) may be the next of its key and
        finish its own prefix first. Committed alone it would carry the earlier record's change along while that
        one's offset is not committed: a crash would then count that record twice.
        """
        if self.before is not None and not self.before.claimed:
            return False
        self.claimed = True
        return True

    def release(self) -> None:
        """The checkpoint was thrown away."""
        change: WriteSet | None = self
        while change is not None and not change.final:
            change.claimed = False
            change = change.before

    def committed(self) -> None:
        """It counts for good, and with it all that it builds upon."""
        self.claimed = self.final = True
        self.before = None
