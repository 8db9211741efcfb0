"""When a turn's outputs wait for its end: after a transaction was lost while slow code ran.

The broker ends a transaction after ``transaction.timeout.ms``. A record whose code takes longer than that, behind quick
ones whose outputs have opened the transaction, would be done again with all of it, and again. So from the first loss on
outputs are kept until the results of their whole turn exist, and each turn has a transaction of its own.
"""

from __future__ import annotations

from typing import Final

SLOW_TURN: Final = 1.0
"""Seconds of one turn's code after which a lost transaction is put down to it: no transaction may be given less."""

HELD_FOR: Final = 10_000
"""Records that are run in this way after a loss: each turn's commit costs 0.1 s, which a stage of quick code would
miss."""


class SlowTurns:
    """What is known of how long turns take."""

    def __init__(self) -> None:
        self._was_slow = False
        self._left = 0

    @property
    def hold_outputs(self) -> bool:
        """Whether the next turn's outputs wait for its end."""
        return self._left > 0

    def took(self, seconds: float) -> None:
        """A turn's code took so long."""
        self._was_slow = self._was_slow or seconds > SLOW_TURN

    def ran(self, records: int) -> None:
        """So many records more were run."""
        self._left = max(0, self._left - records)

    def committed(self) -> None:
        """All turns until now are safe."""
        self._was_slow = False

    def lost(self) -> None:
        """What was run since the last commit is to be run again."""
        if self._was_slow:
            self._left = HELD_FOR
        self._was_slow = False
