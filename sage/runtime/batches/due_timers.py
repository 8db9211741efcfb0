"""Timers of a synchronous stage: fired as they come due, one at a time where an output of theirs may have been refused.

A timer has no offset to be read again from. What a failed checkpoint held of timers is set again with the state, and
comes due again at once; which of them the refusal was about is found out then, as it is of records.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sage.model.partition import TopicPartition
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.record_work import RecordWork
from sage.runtime.batches.refusals import Place, Refusals, Stopping

if TYPE_CHECKING:
    from sage.runtime.state.stage_state import Fired, StageState


class DueTimers:
    """Fires the timers of one stage. Called on the consumer's thread."""

    def __init__(self, outbox: Outbox, work: RecordWork, state: StageState, refusals: Refusals) -> None:
        self._outbox = outbox
        self._work = work
        self._state = state
        self._refusals = refusals
        self._fired: list[Place] = []
        self._doubtful: set[Place] = set()

    def fire(self) -> None:
        """Fire what is due.

        Raises:
            Aborted: an output was refused: all since the last checkpoint is run again.
            SageError: the stage must stop.
        """
        for fired in self._state.due():
            self._outbox.begin()
            place: Place = (fired.partition, fired.record_id)
            self._fired.append(place)
            if place not in self._doubtful:
                self._work.fire(fired)
                continue
            try:
                self._fire_alone(place, fired)
            except Stopping:
                return  # nothing more is proved; the last checkpoint finds out what was taken

    def _fire_alone(self, place: Place, fired: Fired) -> None:
        refusals = self._refusals
        refusals.prove_before()
        give_up = partial(refusals.refuse_condemned, *place, fired.message) if refusals.is_condemned(*place) else None
        self._work.fire(fired, give_up)
        refusals.prove_timer(place)

    def settled(self) -> None:
        """What was fired is safe."""
        for place in self._fired:
            self._doubtful.discard(place)
            self._refusals.absolve(place)
        self._fired.clear()

    def aborted(self, *, refused: bool) -> None:
        """What was fired did not happen; ``refused``: for an output that the broker did not take, perhaps of these."""
        if refused:
            self._doubtful.update(self._fired)
        self._fired.clear()

    def forget(self, partition: TopicPartition) -> None:
        """The partition went."""
        self._fired = [place for place in self._fired if place[0] != partition]
        self._doubtful = {place for place in self._doubtful if place[0] != partition}
