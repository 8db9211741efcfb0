"""Trimming of edges: the broker must not drop what a slow reader has not read, so it is not left to the broker.

Edges are made with ``retention.ms=-1``. A record goes when every group of the plan that reads it has committed it, and
its timestamp is older than the topology's ``topics.retention``, so that people can still look at it for that long.

The timestamp is the input's, which outputs keep, and Kafka keeps no other time. So what comes of old records, as in a
backfill, goes as soon as all have read it; and a record dated ahead keeps itself and all that is behind it in its
partition until its date is old enough. Nothing unread goes either way. When this process first saw a record would be
the better age, and is forgotten at each restart: who restarts more often than every ``retention`` would keep all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from sage.model.partition import TopicPartition
from sage.plan.plan import Plan, Stage
from sage.ports import Admin, Clock
from sage.runtime.journal.marks import needed_from, sharing

logger = logging.getLogger("sage.runtime")


class Trimmer:
    """Trims one topology's own topics. Any process may; several at once do no harm."""

    def __init__(self, plan: Plan, partitions: Mapping[str, int], admin: Admin, clock: Clock) -> None:
        self._plan = plan
        self._partitions = partitions
        self._admin = admin
        self._clock = clock

    def trim(self) -> dict[TopicPartition, int]:
        """Drop what may go; the new starts of those logs. Raises what the broker answers."""
        retention = self._plan.topology.topics.retention
        if retention is None:
            return {}
        read = {**self._read_edges(), **self._unneeded_journals()}
        if not read:
            return {}
        old = self._admin.offsets_for_time(list(read), self._clock.now_ms() - int(retention * 1000))
        starts = self._admin.start_offsets(list(read))
        before: dict[TopicPartition, int] = {}
        for partition, offset in read.items():
            young = old[partition]
            end = offset if young is None else min(offset, young)
            if end > starts[partition]:
                before[partition] = end
        self._admin.delete_records(before)
        if before:
            logger.info("%s: trimmed %s", self._plan.name, ", ".join(f"{p} to {end}" for p, end in before.items()))
        return before

    def _read_edges(self) -> dict[TopicPartition, int]:
        """How far every reader has come, in each partition of an edge or a retry topic; the end where nobody reads."""
        read: dict[TopicPartition, int] = {}
        owned = {o.topic for stage in self._plan.stages for o in stage.outputs if o.owned}
        for topic in owned:
            partitions = self._of(topic)
            readers = [stage for stage in self._plan.stages if any(i.topic == topic for i in stage.inputs)]
            read |= self._least(partitions, readers)
        for stage in self._plan.stages:
            if stage.retry_topic:
                read |= self._least(self._of(stage.retry_topic), [stage])
        return read

    def _least(self, partitions: list[TopicPartition], readers: Iterable[Stage]) -> dict[TopicPartition, int]:
        least = self._admin.end_offsets(partitions)
        for stage in readers:
            for partition, commit in self._admin.commits(stage.group, partitions).items():
                least[partition] = min(least[partition], commit.offset or 0)
        return least

    def _unneeded_journals(self) -> dict[TopicPartition, int]:
        """Up to where no record that is not committed may need a journal."""
        found: dict[TopicPartition, int] = {}
        for stage in self._plan.stages:
            if not stage.journal_topic:
                continue
            places = {at: sharing(stage, self._partitions, at.partition) for at in self._of(stage.journal_topic)}
            commits = self._admin.commits(stage.group, [place for each in places.values() for place in each])
            found |= {at: needed_from(commits[place] for place in each) for at, each in places.items()}
        return found

    def _of(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self._partitions.get(topic, 0))]
