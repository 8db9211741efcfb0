"""Which dead letters are replayed, and as what: from a record of the dead-letter topic to one of a retry topic."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from sage.errors import RecordTooLarge
from sage.model import dead_letter_headers, retry_headers
from sage.model.keys import partition_for
from sage.model.names import retry_topic
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.operations.dead_letters import Letter, is_own_header, letter_of
from sage.operations.letter_filter import LetterFilter
from sage.operations.letter_stage import ANY, StagesNow
from sage.operations.replay_writers import Replayed
from sage.ports import Admin, Producer, RawMessage

MAX_REPLAYS = 3
"""How often a letter is replayed by default before it stays dead."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are replayed, and how.

    Attributes:
        wanted: the filter.
        most: at most so many; ``None`` is all.
        max_replays: letters that were replayed so often already stay where they are.
        rate: letters a second; ``None`` is as fast as the broker takes them.
    """

    wanted: LetterFilter = field(default_factory=LetterFilter)
    most: int | None = None
    max_replays: int = MAX_REPLAYS
    rate: float | None = None


@dataclass(slots=True)
class ReplayReport:
    """What a replay did, or in a dry run would do.

    Attributes:
        topology: its name.
        dry_run: whether nothing was written.
        replayed: letters written to retry topics.
        reasons: those by why they had died.
        topics: those by where they went.
        left_out: letters that the filter leaves where they are.
        worn_out: letters that were replayed as often as allowed already.
        impossible: letters that can't be replayed, by why.
        interrupted: it was asked to stop before it had seen them all.
    """

    topology: str
    dry_run: bool
    replayed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    topics: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    worn_out: int = 0
    impossible: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False

    def count(self, record: Replayed) -> None:
        """A record was written, or would be."""
        self.replayed += 1
        self.reasons[record.reason] += 1
        self.topics[record.topic] += 1

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON; ``dataclasses.asdict`` would count a Counter's pairs."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in plain.items()}


class _Impossible(Exception):  # noqa: N818 - a reason that is counted, never shown as an error
    """Why one letter can't be replayed."""


class Sorter:
    """Decides what becomes of each letter; counts those that stay in ``report``.

    Args:
        sizes: knows what the broker takes; ``None`` asks nobody.
        stages: who takes the letters of a stage by now.
    """

    def __init__(
        self, admin: Admin, topology: str, choice: Choice, report: ReplayReport, sizes: Producer | None = None,
        stages: StagesNow = ANY,
    ) -> None:  # fmt: skip
        self._admin = admin
        self._topology = topology
        self._choice = choice
        self._report = report
        self._sizes = sizes
        self._stages = stages
        self._partitions: dict[str, int] = {}

    def sort(self, message: RawMessage) -> Replayed | None:
        """The record to write; ``None`` where the letter stays."""
        letter = letter_of(message)
        if not self._choice.wanted.matches(letter):
            self._report.left_out += 1
        elif letter.replays >= self._choice.max_replays:
            self._report.worn_out += 1
        else:
            try:
                return self._record(message, letter)
            except _Impossible as problem:
                self._report.impossible[str(problem)] += 1
        return None

    def _record(self, message: RawMessage, letter: Letter) -> Replayed:
        topic, _, place = letter.source.rpartition("-")
        number, _, offset = place.partition("@")
        if not (number.isdecimal() and offset.isdecimal()):
            raise _Impossible("it does not say where it was read: another program wrote it")
        stage = self._stages.of(letter.stage)
        if stage is None:
            raise _Impossible(self._stages.why_none(letter.stage))
        retry = retry_topic(self._topology, stage)
        found = self._partitions_of(retry)
        if not found:
            raise _Impossible(f"topic {retry} does not exist: the step was renamed or removed, or never ran since")
        key, value = message.key(), message.value()
        to = self._place_of(key, topic, int(number))
        if to >= found:
            raise _Impossible(f"topic {retry} has {found} partitions, and it was read from partition {number}")
        headers = _headers(message, letter, topic, number, offset)
        if self._sizes is not None:
            try:
                self._sizes.check_size(retry, value, key, headers)
            except RecordTooLarge as error:
                raise _Impossible(f"it is too large for topic {retry}") from error
        where = TopicPartition(message.topic(), message.partition())
        kind, timestamp = message.timestamp()
        return Replayed(
            where, message.offset(), f"{letter.error} at step {letter.step}", retry, to,
            key, value, headers, timestamp if kind else None,
        )  # fmt: skip

    def _place_of(self, key: bytes | None, topic: str, was: int) -> int:
        """The partition in which a letter's key is now: an edge may have grown since, and its state moved along.

        Topics of others don't grow by us, and are partitioned in whatever way.
        """
        partitions = self._partitions_of(topic) if topic.startswith(f"{self._topology}.") else 0
        return partition_for(key, partitions) if key is not None and partitions else was

    def _partitions_of(self, topic: str) -> int:
        if topic not in self._partitions:
            info = self._admin.describe([topic]).get(topic)
            self._partitions[topic] = info.partitions if info is not None else 0
        return self._partitions[topic]


def _headers(message: RawMessage, letter: Letter, topic: str, partition: str, offset: str) -> Headers:
    """How often it was replayed, the record's own, and where it was first read.

    The record's own end as they did: ``sage.id`` and the mark of plain bytes are looked for from the end.
    """
    own = [
        (name, value)
        for name, value in message.headers() or ()
        if not is_own_header(name) and name not in retry_headers.ALL
    ]
    return [
        (dead_letter_headers.REPLAYS, b"%d" % (letter.replays + 1)),
        *own,
        (retry_headers.TOPIC, topic.encode()),
        (retry_headers.PARTITION, partition.encode()),
        (retry_headers.OFFSET, offset.encode()),
        (retry_headers.DUE, b"0"),
        (retry_headers.ATTEMPTS, b"0"),  # last: by it an actor knows a record that waited
    ]
