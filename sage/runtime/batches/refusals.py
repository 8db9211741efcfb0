"""When the broker refuses an output: find out whose it was, so that only that record pays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sage.errors import RecordTooLarge, StageStopped
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure, RawMessage
from sage.runtime.actors.transaction import Aborted
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.positions_of_batch import Positions
from sage.runtime.batches.record_work import RecordWork
from sage.runtime.steps.stage_context import StageSetting

FLUSH_TIMEOUT = 5.0
"""Seconds a checkpoint waits for the broker; then the stage goes on and asks again."""


CUT_LETTER = 2
"""Refusals for its size after which a record's letter goes without its stack trace; one more is the end."""

Proof = Literal["taken", "buried", "again"]
"""What the broker says of one record's outputs: it has them; it never will, and has a letter in their place; the record
is to be read again."""


Place = tuple[TopicPartition, int | str]
"""What is blamed for a refusal: a record by its offset, a timer by its id."""


class Stopping(Exception):  # noqa: N818 - a way out of a turn, never shown
    """The actor is asked to stop while the broker owes an answer: nothing more is proved, nothing committed."""


class Refusals:
    """Runs after a failed flush or transaction, one record and one answer at a time."""

    def __init__(self, setting: StageSetting, outbox: Outbox, work: RecordWork, positions: Positions) -> None:
        self._setting = setting
        self._outbox = outbox
        self._work = work
        self._positions = positions
        self._condemned: dict[Place, int] = {}
        """How often an output of these, or their letter, was refused for its size."""

    def stop_for_good_reason(self, failures: Sequence[DeliveryFailure]) -> None:
        """Raises StageStopped for a refusal that neither another try nor a dead letter mends."""
        for failure in failures:
            if not (failure.retriable or failure.too_large):
                raise self._stopped(failure)

    def forget(self, partition: TopicPartition) -> None:
        """The partition went."""
        self._condemned = {place: times for place, times in self._condemned.items() if place[0] != partition}

    def absolve(self, place: Place) -> None:
        """What became of this one is safe."""
        self._condemned.pop(place, None)

    def is_condemned(self, at: TopicPartition, which: int | str) -> bool:
        """Whether an output of this one was refused for its size, so that it is to be given up."""
        return (at, which) in self._condemned

    def refuse_condemned(self, at: TopicPartition, which: int | str, view: RawMessage) -> bool:
        """Give up what had an output refused before; whether it is such. The second letter is a cut one."""
        if not self.is_condemned(at, which):
            return False
        error = RecordTooLarge("the broker refused the output for its size")
        if self._condemned[at, which] == 1:
            self._work.refuse(view, error)
        else:
            self._work.send_letter(view, error, shortened=True)
        return True

    def proved(self, at: TopicPartition, offset: int, view: RawMessage) -> Proof:
        """Wait for this record alone, so that the broker's answer names it.

        Raises:
            Aborted: in a transaction, or with keyed state, whose change by this record must not stay: all since the
                last checkpoint is run again, and the record is known from here on.
            StageStopped: the refusal can't be mended.
        """
        failures = self._answers()
        self.stop_for_good_reason(failures)
        if not failures:
            return "taken"
        if self._outbox.is_transactional or self._setting.stage.changelog_topic:
            raise self._blamed((at, offset), failures)
        if all(failure.too_large for failure in failures):
            self._bury(view, RecordTooLarge(f"the broker refused the output: {failures[0].reason}"))
            return "buried"
        self._positions.go_back_to(at, offset)
        return "again"

    def prove_before(self) -> None:
        """Wait for all that was sent, so that the next answer is about what comes next. Raises as ``proved``."""
        failures = self._answers()
        self.stop_for_good_reason(failures)
        if failures:
            raise self._outbox.given_up(failures)

    def prove_timer(self, place: Place) -> None:
        """Wait for what a timer has sent since ``prove_before``; whatever is refused is its. Raises as ``proved``."""
        failures = self._answers()
        self.stop_for_good_reason(failures)
        if failures:
            raise self._blamed(place, failures)

    def _blamed(self, place: Place, failures: Sequence[DeliveryFailure]) -> Aborted:
        """The answer to raise, which has all since the last checkpoint run again: where all was refused for its size,
        this one is given up then. Raises StageStopped where even its cut letter was."""
        if all(failure.too_large for failure in failures):
            times = self._condemned[place] = self._condemned.get(place, 0) + 1
            if times > CUT_LETTER:
                raise self._stopped(failures[0])
        return self._outbox.given_up(failures)

    def _bury(self, view: RawMessage, error: RecordTooLarge) -> None:
        """Send a letter until it is taken; one that is too large, once without its stack trace.

        Raises:
            StageStopped: it is refused for good.
            Stopping: the actor is asked to stop, and it is not taken yet.
        """
        shortened = False
        self._work.refuse(view, error)
        while refused := self._answers():
            self.stop_for_good_reason(refused)
            if any(failure.too_large for failure in refused):
                if shortened:
                    raise self._stopped(refused[0])
                shortened = True
            if self._setting.stopping.is_set():
                raise Stopping
            self._work.send_letter(view, error, shortened=shortened)

    def _answers(self) -> Sequence[DeliveryFailure]:
        """The broker's answers, waited for as long as it takes: sending again meanwhile would only double."""
        while (failures := self._outbox.settle(FLUSH_TIMEOUT)) is None:
            if self._setting.stopping.is_set():
                raise Stopping
        return failures

    def _stopped(self, failure: DeliveryFailure) -> StageStopped:
        return StageStopped(
            f"{failure.topic}-{failure.partition} did not take a record: {failure.reason}; "
            "nothing was committed past it",
            where=f'{self._setting.plan.name} step "{self._setting.stage.name}"',
        )
