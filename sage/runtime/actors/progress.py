"""Whether a stage gets on: what the watchdog looks at."""

from __future__ import annotations


class Progress:
    """How often anything moved (offsets committed, the assignment changed): one thread writes, any reads.

    Attributes:
        turns: how often the thread has come round; it stands still in code that does not return.
    """

    def __init__(self) -> None:
        self.moves = 0
        self.turns = 0

    def moved(self) -> None:
        """Something did."""
        self.moves += 1
