"""What an actor does before it reads a partition that it was given: whose it was, where that one stopped.

1. Read what is committed, and by whom, without waiting for anything.
2. Exactly-once: a predecessor that did not hand over cleanly is dead or frozen. Initialising its transactional id
   fences it and ends its transaction, which would else hold up this group and all readers of its outputs until the
   broker's time-out (up to a minute).
3. Read the committed offsets again, now stable, and compare them with the log: records that the broker has dropped
   unread stop the stage.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from sage.errors import StageStopped
from sage.model.partition import TopicPartition
from sage.ports import Clock, Commit, Consumer, KafkaClients, ProducerFatal
from sage.runtime.actors.commit_text import CommitText
from sage.runtime.actors.patience import patiently

logger = logging.getLogger("sage.runtime")

STABLE_TIMEOUT = 1.0
"""Seconds for one question for stable offsets."""


class Takeover:
    """Prepares partitions for one actor.

    Args:
        transactional_id: this actor's own; empty under at-least-once.
        gives_first_offsets: whether a partition without a commit is given its log's first offset, so that this can be
            committed: with our name beside it, or to see whether the group takes it.
        stopping: set when the actor is asked to stop: a broker that is away is waited for no longer.
        where: topology and step, for messages.
    """

    def __init__(
        self, clients: KafkaClients, consumer: Consumer, group: str, *, transactional_id: str,
        gives_first_offsets: bool, clock: Clock, stopping: threading.Event, where: str,
    ) -> None:  # fmt: skip
        self._clients = clients
        self._consumer = consumer
        self._group = group
        self._transactional_id = transactional_id
        self._gives_first_offsets = gives_first_offsets
        self._clock = clock
        self._stopping = stopping
        self._where = where

    def prepare(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        """Where each partition is to be read from, with the predecessor's word.

        Raises:
            StageStopped: records after the committed offset are gone from the log.
            TransientFailure, Unreachable: the broker gives no answer, and the actor is asked to stop.
        """
        return patiently(
            lambda: self._prepare(partitions), where=self._where, clock=self._clock, stopping=self._stopping
        )

    def _prepare(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        admin = self._clients.admin()
        try:
            commits = admin.commits(self._group, partitions)
            starts = admin.start_offsets(partitions)
            if self._transactional_id:
                self._fence({CommitText.decode(commit.metadata).transactional_id for commit in commits.values()})
                stable = self._consumer.committed(partitions, STABLE_TIMEOUT)
                commits = {p: Commit(stable[p], commits[p].metadata) for p in partitions}
            if self._gives_first_offsets:
                commits = {p: Commit(starts[p], c.metadata) if c.offset is None else c for p, c in commits.items()}
            self._refuse_lost_records(commits, starts)
            return commits
        finally:
            admin.close()

    def _fence(self, owners: set[str]) -> None:
        for owner in owners - {"", self._transactional_id}:
            logger.info("%s: ending what %s left open", self._where, owner)
            producer = self._clients.producer(transactional_id=owner)
            try:
                producer.init_transactions()
            except ProducerFatal as error:  # somebody else did it at the same time
                logger.info("%s: %s was fenced by another: %s", self._where, owner, error)
            finally:
                producer.close(0.0)

    def _refuse_lost_records(
        self, commits: Mapping[TopicPartition, Commit], starts: Mapping[TopicPartition, int]
    ) -> None:
        for partition, commit in commits.items():
            if commit.offset is not None and commit.offset < starts[partition]:
                lost = starts[partition] - commit.offset
                raise StageStopped(
                    f"{lost} records of {partition} were dropped by the broker before this step read them (committed "
                    f"{commit.offset}, the log starts at {starts[partition]}); raise the topic's retention, and accept "
                    f"the loss with `sage groups reset {self._group} --to earliest --execute`",
                    where=self._where,
                )
