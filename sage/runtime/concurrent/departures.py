"""How finished records leave an asynchronous stage, at-least-once without state: at once, each answered for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sage.errors import RecordTooLarge, SageError, StageStopped
from sage.ports import DeliveryFailure, Producer
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.partition_state import PartitionState
from sage.runtime.concurrent.sending import Sending
from sage.runtime.retries.dead_letters import DeadLetter, does_not_fit
from sage.runtime.steps.stage_context import StageSetting


class Departures(Protocol):
    """What becomes of a finished record. Lives on the loop."""

    def leave(self, flight: Flight) -> None:
        """Its outputs, its letter or its place in the retry topic are known."""
        ...


class Refused(Protocol):
    """Called with the partition whose outputs were not taken for now: it is read again."""

    def __call__(self, home: PartitionState, *, alone: bool = False) -> None:
        """``alone``: for its size, and it is not known which record's that was."""
        ...


class AtOnce:
    """Produces outputs as records finish; a record is done when the broker has answered for all of them.

    Args:
        done: called with a record that is safe.
        refused: see there.
        failed: called when the stage must stop.
    """

    def __init__(
        self, setting: StageSetting, producer: Producer, *, done: Callable[[Flight], None],
        refused: Refused, failed: Callable[[SageError], None],
    ) -> None:  # fmt: skip
        (self._step,) = setting.steps
        self._setting = setting
        self._done = done
        self._rewind = refused
        self._failed = failed
        self.sending = Sending(producer, setting.tracer, self._answered, self._too_large)

    def leave(self, flight: Flight) -> None:
        """Produce it."""
        if not flight.home.alive:
            return
        flight.home.unanswered += 1
        if flight.parked is not None:
            self.sending.send_parked(flight, flight.parked)
        elif flight.letter is not None:
            self.sending.send_letter(flight, flight.letter)
        elif flight.outputs:
            self.sending.send(flight)
        if flight.unacknowledged == 0 and flight.pending is not None and not flight.pending.done:
            self._finish(flight)

    def _finish(self, flight: Flight) -> None:
        flight.home.unanswered -= 1
        self._done(flight)

    def _answered(self, flight: Flight, failure: DeliveryFailure | None) -> None:
        if not flight.home.alive:
            return
        if failure is not None:
            self._refused(flight, failure)
        elif flight.unacknowledged == 0:
            self._finish(flight)

    def _refused(self, flight: Flight, failure: DeliveryFailure) -> None:
        """The broker did not take an output (decision: delivery errors are never lost)."""
        if failure.too_large and flight.is_sent_alone:
            self._too_large(flight, RecordTooLarge(f"{failure.topic}: {failure.reason}"))
        elif failure.too_large:  # it, or another one of its batch
            self._rewind(flight.home, alone=True)
        elif failure.retriable:
            self._rewind(flight.home)
        else:
            what = f"{failure.topic}-{failure.partition} did not take a record: {failure.reason}"
            self._failed(StageStopped(f"{what}; nothing was committed past it", where=self._where))

    def _too_large(self, flight: Flight, error: RecordTooLarge) -> None:
        """An output does not fit: the record is dead, unless its letter does not fit either."""
        try:
            letter = shorter_letter(self._setting, flight, error)
        except StageStopped as stopped:
            self._failed(stopped)
        else:
            self.sending.send_letter(flight, letter)

    @property
    def _where(self) -> str:
        return f'{self._setting.plan.name} step "{self._step.name}"'


def shorter_letter(setting: StageSetting, flight: Flight, error: RecordTooLarge) -> DeadLetter:
    """What to send in place of something that did not fit: a letter, then a cut one.

    Raises:
        StageStopped: the cut one did not fit either, and the record must not vanish.
    """
    (step,) = setting.steps
    flight.parked = None
    if flight.letter is None:
        step.counters.dead += 1
        flight.letter = setting.letter(flight.message, error, step, max(flight.attempts, 1))
    elif flight.shortened:
        raise does_not_fit(flight.letter.topic, error.message).at(f'{setting.plan.name} step "{step.name}"')
    else:
        flight.letter, flight.shortened = flight.letter.shortened(), True
    return flight.letter
