"""Orders of events that a real run could have, drawn from a seed: which actor moves, which task, how far."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sage.testing.virtual_time import ManualClock, VirtualLoop

_FEW = 3
"""A loop that is stopped early has done at most so many of its turns."""


class ShuffledLoop(VirtualLoop):
    """A virtual loop in which ready tasks run in an order that is drawn.

    Only tasks change places with each other, as a scheduler may do; callbacks keep theirs, since ``call_soon``
    promises their order.
    """

    def __init__(self, clock: ManualClock, chance: random.Random) -> None:
        self._chance = chance
        super().__init__(clock)

    def run_a_little(self) -> bool:
        """A few turns of the loop, with work left perhaps; returns whether there was any to do."""
        if not self._waiting():
            return self.run_until_idle()
        turns = self._chance.randint(1, _FEW)
        self.call_soon(self._stop_after, turns)
        self._mode = "idle"
        try:
            self.run_forever()
        finally:
            self._mode = "auto"
        return True

    def _waiting(self) -> deque[Any]:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]  # asyncio's own queue, which typeshed leaves out
        return ready

    def _stop_after(self, turns: int) -> None:
        if turns <= 1:
            self.stop()
        else:
            self.call_soon(self._stop_after, turns - 1)

    def _run_once(self) -> None:
        ready = self._waiting()
        places = [place for place, handle in enumerate(ready) if _is_task(handle)]
        if len(places) > 1:
            handles = [ready[place] for place in places]
            self._chance.shuffle(handles)
            for place, handle in zip(places, handles, strict=True):
                ready[place] = handle
        super()._run_once()  # type: ignore[misc]  # asyncio's own turn, which typeshed leaves out


def _is_task(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


def stir(movers: Sequence[Callable[[], bool]], chance: random.Random, is_over: Callable[[], bool]) -> bool:
    """Let movers move in a drawn order until none of them has anything to do; returns whether any had.

    Args:
        movers: each does a little and says whether it did; it may make others have something to do again.
        is_over: ends it early.
    """
    moved, idle = False, set[int]()
    while len(idle) < len(movers) and not is_over():
        number = chance.choice([number for number in range(len(movers)) if number not in idle])
        if movers[number]():
            moved = True
            idle.clear()
        else:
            idle.add(number)
    return moved
