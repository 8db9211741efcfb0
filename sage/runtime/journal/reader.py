"""What a predecessor left in a journal, and what of it is still needed. Blocks: for threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sage.errors import Unreachable
from sage.model import retry_headers
from sage.model.partition import TopicPartition
from sage.ports import Admin, Commit, KafkaClients, RawMessage
from sage.runtime.journal.entry import Assembly, CallKey, Place, Stored
from sage.runtime.journal.marks import needed_from, sharing
from sage.runtime.journal.remembered import MEMORY
from sage.runtime.steps.stage_context import StageSetting

SILENCE: Final = 60
"""Seconds in which a partition that has records gives none, until its reader gives up."""

_BATCH: Final = 64
"""Records per poll; each may be of nearly a megabyte."""


@dataclass(frozen=True, slots=True)
class Left:
    """What was found: the results that are needed, and the journal's end."""

    results: list[Stored]
    end: int


def read_left(
    setting: StageSetting, clients: KafkaClients, partition: int, given: Mapping[TopicPartition, Commit], *,
    memory: int = MEMORY,
) -> Left:  # fmt: skip
    """Results of records that the stage has not committed, in this partition of its journal.

    Args:
        given: commits that are known, and stable; those of other partitions that share the journal's are asked for.
        memory: bytes of results to bring along; of the rest only where they are.

    Raises:
        NotFound: the journal's topic is gone.
        Unreachable, TransientFailure: the broker.
    """
    at = TopicPartition(setting.stage.journal_topic, partition)
    admin = clients.admin()
    try:
        (end,) = admin.end_offsets([at]).values()
        (start,) = admin.start_offsets([at]).values()
        if start >= end:
            return Left([], end)
        places = sharing(setting.stage, setting.partitions, partition)
        commits = {**admin.commits(setting.stage.group, places), **given}
        first = max(start, needed_from(commits.values()))
        if first >= end:
            return Left([], end)
        parked = _parked_places(setting, clients, admin, partition, commits)
    finally:
        admin.close()
    results: list[Stored] = []
    for stored in _results(clients, at, first, end):
        if stored.place is not None and not _is_needed(stored.place, commits, parked):
            continue
        memory -= len(stored.data or b"")
        results.append(stored if memory >= 0 else stored._replace(data=None))
    return Left(results, end)


def read_again(clients: KafkaClients, at: TopicPartition, key: CallKey, first: int, last: int) -> bytes | None:
    """One result whose place is known; ``None`` where it is gone. Raises Unreachable."""
    return next((each.data for each in _results(clients, at, first, last + 1) if each.key == key), None)


def _results(clients: KafkaClients, at: TopicPartition, first: int, end: int) -> Iterator[Stored]:
    assembly = Assembly()
    for message in _messages(clients, at, first, end):
        if (stored := assembly.add(message)) is not None:
            yield stored


def _messages(clients: KafkaClients, at: TopicPartition, first: int, end: int) -> Iterator[RawMessage]:
    reader = clients.consumer(None, config={"queued.max.messages.kbytes": 8192})
    silent = 0
    try:
        reader.assign({at: first})
        while silent < SILENCE:
            messages = reader.poll(_BATCH, 1.0)
            for message in messages:
                if message.offset() >= end:
                    return
                yield message
                first = message.offset() + 1
            first = max(first, reader.ends_reached().get(at, first))
            if first >= end:
                return
            silent = 0 if messages else silent + 1
    finally:
        reader.close()
    raise Unreachable(f"{at}: nothing came for {SILENCE} s before offset {end} was reached")


def _is_needed(place: Place, commits: Mapping[TopicPartition, Commit], parked: frozenset[Place]) -> bool:
    """Whether the record may come again: it is not committed, or it waits in the retry topic.

    A record of a topic that the stage no longer reads never comes, and its result would hold the low mark for ever.
    """
    if place in parked:
        return True
    commit = commits.get(TopicPartition(place.topic, place.partition))
    return commit is not None and (commit.offset is None or place.offset >= commit.offset)


def _parked_places(
    setting: StageSetting, clients: KafkaClients, admin: Admin, partition: int,
    commits: Mapping[TopicPartition, Commit],
) -> frozenset[Place]:  # fmt: skip
    """The places of the records that wait in the retry partition."""
    at = TopicPartition(setting.stage.retry_topic, partition)
    if at not in commits:
        return frozenset()
    (end,) = admin.end_offsets([at]).values()
    (start,) = admin.start_offsets([at]).values()
    first = max(start, commits[at].offset or 0)
    if first >= end:
        return frozenset()
    places = map(_original_place, _messages(clients, at, first, end))
    return frozenset(place for place in places if place is not None)


def _original_place(message: RawMessage) -> Place | None:
    found = {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()}
    partition, offset = found.get(retry_headers.PARTITION, ""), found.get(retry_headers.OFFSET, "")
    if not (partition.isdecimal() and offset.isdecimal()):
        return None
    return Place(found.get(retry_headers.TOPIC, ""), int(partition), int(offset))
