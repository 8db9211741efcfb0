"""``sage dlq purge``: dead letters that nobody wants any more."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sage.model.names import dead_letter_topic
from sage.model.partition import TopicPartition
from sage.operations.reading import partitions_of, read_to_end
from sage.operations.replay import places_of
from sage.ports import KafkaClients


@dataclass(frozen=True, slots=True)
class Purge:
    """What would go: everything before these offsets.

    Attributes:
        before: by partition of the dead-letter topic.
        letters: how many that are.
    """

    topology: str
    before: dict[TopicPartition, int]
    letters: int


def plan_purge(
    clients: KafkaClients, topology: str, *, replayed: bool = False, older_than: float | None = None
) -> Purge:
    """What a purge would drop. A log is cut from its beginning, so each condition reaches as far as it holds
    without a gap.

    Args:
        replayed: only letters that ``sage dlq replay`` has written again.
        older_than: seconds; only letters of records that are older.

    Raises:
        NotFound: no topology of that name has run on these brokers.
    """
    admin = clients.admin()
    try:
        advice = f"no topology named {topology} has run on {clients.address}; see `sage topics list`"
        partitions = partitions_of(admin, dead_letter_topic(topology), advice=advice)
        starts, before = admin.start_offsets(partitions), dict(admin.end_offsets(partitions))
        if replayed:
            places = places_of(admin, topology, partitions)
            before = {where: min(end, places[where].first) for where, end in before.items()}
        if older_than is not None:
            young = admin.offsets_for_time(partitions, max(0, int((time.time() - older_than) * 1000)))
            before = {where: _least(end, young[where]) for where, end in before.items()}
    finally:
        admin.close()
    before = {where: offset for where, offset in before.items() if offset > starts[where]}
    letters = sum(1 for _ in read_to_end(clients, {where: starts[where] for where in before}, before))
    return Purge(topology, before, letters)


def purge(clients: KafkaClients, planned: Purge) -> None:
    """Have the brokers drop what was planned."""
    if not planned.before:
        return
    admin = clients.admin()
    try:
        admin.delete_records(planned.before)
    finally:
        admin.close()


def _least(end: int, young: int | None) -> int:
    return end if young is None else min(end, young)
