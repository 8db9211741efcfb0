"""Where groups stand: written down while nobody is in them, put back, and handed on to other groups."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from sage.errors import Conflict, TransientFailure
from sage.model.partition import TopicPartition
from sage.plan.handover import Inheritance
from sage.plan.plan import Plan
from sage.ports import Admin, CommitRefused, KafkaClients

logger = logging.getLogger("sage.cluster")

PATIENCE: Final = 30.0

Kept = dict[str, dict[str, int]]
"""group -> ``topic:partition`` -> next offset, as a pointer keeps it."""


def read_pairs(plan: Plan) -> list[tuple[str, str]]:
    """Every (group, topic) of a plan whose offsets matter: inputs and retry topics. Source positions are records."""
    found = []
    for stage in plan.stages:
        if stage.group:
            found += [(stage.group, i.topic) for i in stage.inputs]
            found += [(stage.group, stage.retry_topic)] if stage.retry_topic else []
    return found


def own_pairs(plan: Plan) -> set[tuple[str, str]]:
    """Those of topics that are SAGE's: edges and retry topics."""
    foreign = {i.topic for stage in plan.stages for i in stage.inputs if not i.owned}
    return {(group, topic) for group, topic in read_pairs(plan) if topic not in foreign}


def offsets_now(admin: Admin, plan: Plan) -> Kept:
    """What the groups of a plan have committed. Raises Unreachable."""
    found: Kept = {}
    for group, topic in read_pairs(plan):
        committed = admin.committed(group, partitions_of(admin, topic))
        known = {f"{at.topic}:{at.partition}": offset for at, offset in committed.items() if offset is not None}
        if known:
            found.setdefault(group, {}).update(known)
    return found


def partitions_of(admin: Admin, topic: str) -> list[TopicPartition]:
    """The partitions of a topic; none where it does not exist."""
    info = admin.describe([topic]).get(topic)
    return [TopicPartition(topic, number) for number in range(info.partitions if info is not None else 0)]


def put_back(clients: KafkaClients, admin: Admin, kept: Mapping[str, Mapping[str, int]]) -> Kept:
    """Commit what was written down and Kafka has forgotten; what was put back.

    Raises:
        Conflict: a group has members.
        TransientFailure, Unreachable: the brokers.
    """
    done: Kept = {}
    for group, positions in kept.items():
        wanted = {_place(text): offset for text, offset in positions.items()}
        there = {topic: len(partitions_of(admin, topic)) for topic in {place.topic for place in wanted}}
        wanted = {place: offset for place, offset in wanted.items() if place.partition < there[place.topic]}
        committed = admin.committed(group, list(wanted)) if wanted else {}
        missing = {place: offset for place, offset in wanted.items() if committed.get(place) is None}
        if missing:
            set_offsets(clients, group, missing)
            done[group] = {f"{place.topic}:{place.partition}": offset for place, offset in missing.items()}
            logger.info("%s: put %d offsets back that Kafka had forgotten", group, len(missing))
    return done


def inherit(clients: KafkaClients, admin: Admin, inheritances: Sequence[Inheritance]) -> None:
    """Have groups begin where others stood. Raises as ``set_offsets`` does."""
    for each in inheritances:
        places = partitions_of(admin, each.topic)
        stood: dict[TopicPartition, int] = {}
        for group in each.old_groups:
            for place, offset in admin.committed(group, places).items():
                if offset is not None:
                    stood[place] = min(offset, stood.get(place, offset))
        if stood:
            set_offsets(clients, each.new_group, stood)


def pass_over(clients: KafkaClients, admin: Admin, pairs: Sequence[tuple[str, str]]) -> None:
    """Have groups that come back to a topic begin at its end, where Kafka has forgotten where they stood.

    They read it to its end before they left, and what is in there was made of it once. Raises as ``set_offsets`` does.
    """
    for group, topic in pairs:
        committed = admin.committed(group, partitions_of(admin, topic))
        forgotten = [place for place, offset in committed.items() if offset is None]
        if forgotten:
            set_offsets(clients, group, admin.end_offsets(forgotten))
            logger.info("%s: goes on at the end of %s, which it had read before", group, topic)


def set_offsets(clients: KafkaClients, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Commit for a group that has no members.

    Raises:
        Conflict: it has members.
        TransientFailure: no answer in time.
    """
    consumer = clients.consumer(group)
    deadline = time.monotonic() + PATIENCE
    try:
        consumer.assign(offsets)
        while True:
            try:
                consumer.commit(offsets)
            except CommitRefused as error:
                raise Conflict(f"group {group} has members, so its offsets are theirs: {error}") from error
            except TransientFailure:
                if time.monotonic() > deadline:
                    raise
                consumer.poll(1, 0.1)  # serves the connection to a coordinator that was not known yet
            else:
                return
    finally:
        consumer.close()


def backlog(admin: Admin, group: str, topic: str) -> int:
    """How many offsets of a topic a group has not committed. Raises Unreachable."""
    places = partitions_of(admin, topic)
    if not places:
        return 0
    ends, starts = admin.end_offsets(places), admin.start_offsets(places)
    committed = admin.committed(group, places)
    return sum(max(0, ends[at] - max(committed[at] or 0, starts[at])) for at in places)


def _place(text: str) -> TopicPartition:
    topic, _, partition = text.rpartition(":")
    return TopicPartition(topic, int(partition))
