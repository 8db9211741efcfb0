"""How finished records leave where order and atomicity count: only as the contiguous prefix, at a checkpoint.

Exactly-once: offsets, outputs and state changes of the prefix go into one transaction, opened when all of it is
there. With keyed state at-least-once, the same without a transaction. What is sent stays in memory until it is
committed, so that an abort costs a second sending and no second call.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial

from sage.errors import RecordTooLarge, StageStopped
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.refusals import FLUSH_TIMEOUT
from sage.runtime.concurrent.departures import shorter_letter
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.partition_state import PartitionState
from sage.runtime.concurrent.sending import Leaving, leaving
from sage.runtime.steps.stage_context import StageSetting

SENT_ALONE = 100
"""Records of a checkpoint that sends each alone: a transaction must not last longer than the broker lets it."""


class Ready:
    """The loop's side: keeps finished records in the order in which they came, until they are committed."""

    def leave(self, flight: Flight) -> None:
        """It waits where it is."""

    @staticmethod
    def of(homes: Mapping[TopicPartition, PartitionState], retry_topic: str, most: int) -> list[Flight]:
        """The prefix of every partition that is not prepared yet; retried records first, as those of their key that
        came later ran after them. A change of state waits for the changes that it builds upon. Not more than ``most``.
        """
        ordered = sorted(homes.values(), key=lambda home: home.partition.topic != retry_topic)
        found: list[Flight] = []
        before = -1
        while len(found) > before:  # what is taken in one partition may free what builds upon it in another
            before = len(found)
            for home in ordered:
                for flight in home.flights:
                    if flight.prepared:
                        continue
                    if len(found) == most:
                        return found
                    if flight.outputs is None or (flight.keyed is not None and not flight.keyed.claim()):
                        break
                    flight.prepared = True
                    found.append(flight)
        return found


class PrefixSender:
    """The consumer thread's side: sends what is ready."""

    def __init__(self, setting: StageSetting, outbox: Outbox) -> None:
        self._setting = setting
        self._outbox = outbox
        self._refused: list[Flight] = []
        self._named: list[DeliveryFailure] = []
        self._alone = False

    @property
    def most(self) -> int:
        """Records that the next checkpoint may have."""
        return SENT_ALONE if self._alone else sys.maxsize

    def send(self, flights: Sequence[Flight]) -> None:
        """Queue everything that these became. Raises StageStopped, TransactionAbortable, Aborted, Replaced."""
        for flight in flights:
            if flight.home.alive:
                self._send(flight)
                if self._alone:
                    self._prove()
        self._alone = self._alone and len(flights) >= SENT_ALONE

    def _prove(self) -> None:
        """Wait for the broker's answer to what one record became: it refuses whole batches, innocents included."""
        while self._outbox.producer.flush(FLUSH_TIMEOUT):
            if self._setting.stopping.is_set():
                raise self._outbox.given_up(())
        if self._named:
            raise self._outbox.given_up(self.take_failures())

    def _send(self, flight: Flight) -> None:
        while True:
            try:
                records = self._records(flight)
                for record in records:
                    self._outbox.check_size(record.topic, record.value, record.key, record.headers)
                break
            except RecordTooLarge as error:
                shorter_letter(self._setting, flight, error)
        report = partial(self._answered, flight) if self._alone else None
        for record in records:
            self._outbox.send(*record, on_delivery=report)

    def _records(self, flight: Flight) -> list[Leaving]:
        if flight.parked is not None:
            one = flight.parked
            return [Leaving(one.topic, one.value, one.key, one.headers, one.timestamp, one.partition)]
        if flight.letter is not None:
            letter = flight.letter
            return [Leaving(letter.topic, letter.value, letter.key, letter.headers, letter.timestamp)]
        return leaving(flight, self._setting.tracer)

    def _answered(self, flight: Flight, failure: DeliveryFailure | None, partition: int, offset: int) -> None:
        del partition, offset
        if failure is not None:  # a report that is asked for takes the failure's place among the producer's own
            self._named.append(failure)
            if failure.too_large:
                self._refused.append(flight)

    def take_failures(self) -> list[DeliveryFailure]:
        """What was refused of records whose answers were asked for one by one, since the last call."""
        failures, self._named = self._named, []
        return failures

    def failed(self, failures: Sequence[DeliveryFailure]) -> None:
        """The sending is thrown away: find out whose output is too large, and give that record up.

        What the record did to its key's state goes with it, unless a later record of the key has been run, or is at
        work, with what it left: that one's result stands, and with it the change (a count that has counted a dead
        record). A timer's change stays as well: it is fired. Outputs over ``message.max.bytes`` never come here: they
        are refused before their record's change is seen by anyone, so that this takes a topic with a smaller
        ``max.message.bytes``.

        Raises:
            StageStopped: a refusal that neither another try nor a dead letter mends.
        """
        where = f'{self._setting.plan.name} step "{self._setting.stage.name}"'
        failures = [*failures, *self.take_failures()]
        for failure in failures:
            if not (failure.retriable or failure.too_large):
                what = f"{failure.topic}-{failure.partition} did not take a record: {failure.reason}"
                raise StageStopped(f"{what}; nothing was committed past it", where=where)
        for flight in dict.fromkeys(reversed(self._refused)):
            shorter_letter(self._setting, flight, RecordTooLarge("the broker refused it for its size"))
            if flight.keyed is not None and flight.timer is None and flight.keyed.withdraw():
                flight.keyed = None
        self._alone = self._alone or any(failure.too_large for failure in failures)
        self._refused.clear()
