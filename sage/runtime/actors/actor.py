"""An actor: one stage in this process, with a consumer on a thread of its own.

The actor polls, hands over, checkpoints and rebalances; what is done with a record is its task's business.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sage.errors import SageError, StageStopped
from sage.model.partition import TopicPartition
from sage.ports import Commit, Consumer, KafkaClients, ProducerFatal, RawMessage, TransactionAbortable
from sage.runtime.actors.checkpoints import Checkpoints, PlainCommits, TransactionalCommits
from sage.runtime.actors.commit_text import CommitText
from sage.runtime.actors.holds import Holds
from sage.runtime.actors.progress import Progress
from sage.runtime.actors.takeover import Takeover
from sage.runtime.actors.task import Task
from sage.runtime.actors.transaction import Aborted, Replaced, Transactions
from sage.runtime.steps.stage_context import StageSetting, widest_input

logger = logging.getLogger("sage.runtime")

REVOKE_TIMEOUT = 5.0
"""Seconds that a revoke waits for work in progress, all partitions together, at most; then it is cancelled. Not more
than a quarter of the longest time between two polls, or the group would take the member for dead meanwhile."""


EARLIEST = -2
"""Kafka's own number for the first offset that a log has."""

PAUSE_AFTER = 0.5
"""Seconds that a full window may last before its partitions are paused. Until then nothing is polled either: a pause
throws away what is fetched ahead, and what comes after it has cost 0.4 s on Apache Kafka (measured)."""

CLAIM_AGAIN = 1.0
"""Seconds between two tries to put our name beside the offsets."""


class Actor:
    """Runs a task on the partitions that the group assigns.

    ``run`` is the thread's body; ``step`` is one turn of it, for drivers that have their own thread.

    Args:
        transactions: exactly-once; ``None`` is at-least-once.
    """

    def __init__(
        self, setting: StageSetting, consumer: Consumer, task: Task, clients: KafkaClients,
        transactions: Transactions | None = None,
    ) -> None:  # fmt: skip
        self.setting = setting
        self.task = task
        self.failure: BaseException | None = None
        self.joined = threading.Event()
        self.progress = Progress()
        self._consumer = consumer
        self._transactions = transactions
        self._checkpoints: Checkpoints = (
            PlainCommits(consumer, self.name) if transactions is None else TransactionalCommits(consumer, transactions)
        )
        self._name_in_commits = "" if transactions is None else transactions.id
        self._takeover = Takeover(
            clients, consumer, setting.stage.group, transactional_id=self._name_in_commits,
            # Our name beside it is what a successor fences us by; and see ``is_still_member``.
            gives_first_offsets=transactions is not None or bool(setting.stage.changelog_topic),
            clock=setting.clock, stopping=setting.stopping, where=self._where,
        )  # fmt: skip
        self._holds = Holds(consumer, setting.clock)
        self._assigned: set[TopicPartition] = set()
        self._committed: dict[TopicPartition, int] = {}
        self._owed: dict[TopicPartition, int] = {}
        self._unclaimed: dict[TopicPartition, Commit] = {}
        self._claim_at = 0.0
        self._full_since = math.inf
        self._changed = False
        self._is_at_rest = False
        self.is_taking_over = False
        """Whether it was given partitions that are not in ``assignment`` yet: its group says so already."""
        self._asked_to_stop = threading.Event()
        self._asked_to_rest: frozenset[str] = frozenset()
        self._last_checkpoint = 0.0
        self._last_commit = 0.0
        self._stop_timeout = 0.0

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.setting.stage.name

    @property
    def _where(self) -> str:
        return f'{self.setting.plan.name} step "{self.name}"'

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """What this actor has; from any thread."""
        return frozenset(self._assigned)

    @property
    def committed(self) -> Mapping[TopicPartition, int]:
        """The next offset of each assigned partition that has one committed by us; from any thread."""
        return dict(self._committed)

    @property
    def is_at_rest(self) -> bool:
        """Whether it has partitions, all restored, with no timer overdue or under way; from any thread.

        It says so of the end of a turn, and is taken back before anything is done in the next: who saw first that all
        offsets are committed, and then this, knows that no record of those has left a timer that is overdue.
        """
        return self._is_at_rest

    @property
    def transactional_id(self) -> str:
        """Of its producer; empty under at-least-once."""
        return self._name_in_commits

    @property
    def topics(self) -> frozenset[str]:
        """All that it reads: its inputs, and its retry topic if it has one."""
        stage = self.setting.stage
        return frozenset({*(i.topic for i in stage.inputs), stage.retry_topic} - {""})

    # -------------------------------------------------------------------- life

    def open(self) -> None:
        """Open the steps and join the group. Raises what a step raises, with its place."""
        try:
            if self._transactions is not None:
                self._transactions.open()
            self.task.open(self._holds)
        except SageError as error:
            raise error.at(self._where) from error
        stage = self.setting.stage
        topics = [i.topic for i in stage.inputs]
        companions = {widest_input(stage, self.setting.partitions): [stage.retry_topic]} if stage.retry_topic else None
        self._consumer.subscribe(topics, self, companions=companions)

    def run(self, failed: Callable[[Actor], None]) -> None:
        """Work until asked to stop or until something can't be mended; then say so."""
        try:
            while not self._asked_to_stop.is_set():
                self.step()
            self._drain()
        except BaseException as error:  # also a step's sys.exit(): a thread that ends without a word is a hang
            self._record_failure(error)
        finally:
            self._release()
        if self.failure is not None:
            failed(self)

    def stop(self, timeout: float) -> None:
        """Ask the thread to drain within ``timeout`` seconds, checkpoint, and leave the group."""
        self._stop_timeout = timeout
        self._asked_to_stop.set()
        self.setting.stopping.set()

    def rest(self, topics: frozenset[str]) -> None:
        """Don't read these topics for now, and stay a member; an empty set goes on with all. From any thread.

        While all of ``self.topics`` rest nothing is begun, timers included; what is under way is finished.
        """
        self._asked_to_rest = topics

    def _drain(self) -> None:
        self.task.drain(self._stop_timeout)
        self._guarded(self._checkpoint)

    def _record_failure(self, error: BaseException) -> None:
        self.failure = error
        if isinstance(error, SageError):
            error.at(self._where)
        else:
            logger.exception("%s stopped", self._where)

    def _release(self) -> None:
        closes = [self._consumer.close, self.task.close]
        if self._transactions is not None:
            closes.append(self._transactions.close)
        for close in closes:
            try:
                close()
            except Exception as error:
                if self.failure is None:
                    self._record_failure(error)

    # -------------------------------------------------------------------- turns

    def step(self, timeout: float | None = None) -> bool:
        """One turn: poll, hand over, checkpoint when due. True where records came, or something may come of it."""
        self.progress.turns += 1
        before = (self._holds.wakes, self.progress.moves)
        if self._asked_to_rest != self._holds.resting:
            self._holds.rest(self._asked_to_rest)
        room = self._room()
        messages = self._next(room, self._patience() if timeout is None else timeout)
        if self._changed:
            messages = self._after_rebalance(messages)
        self._is_at_rest = False
        self._guarded(lambda: self._work(messages, room))
        self._is_at_rest = bool(self._assigned) and self.task.at_rest()
        return bool(messages) or (self._holds.wakes, self.progress.moves) != before

    def next_due(self) -> float:
        """When, by the clock, something is due that no record brings about: a timer, the end of a wait."""
        at = self.task.next_due()
        clock = self.setting.clock
        timer = math.inf if at is None else clock.monotonic() + (at - clock.now_ms()) / 1000
        checkpoint = self._last_commit + self._checkpoints.gap
        if checkpoint <= clock.monotonic():
            checkpoint = math.inf  # nothing keeps it from being made
        return min(timer, checkpoint, self._holds.next_due, self._full_since + PAUSE_AFTER)

    def _work(self, messages: list[RawMessage], room: int) -> None:
        self._claim()
        if messages or room == 0:  # a full task may have left work of its own
            self.task.accept(messages)
        self._holds.release_due()
        if not self.topics <= self._holds.resting:
            self.task.tick()
        ends = self._consumer.ends_reached()
        if ends:
            self.task.reached_end({p: end for p, end in ends.items() if p in self._assigned})
        self._rewind()
        now = self.setting.clock.monotonic()
        interval = self._checkpoints.interval if messages else self._checkpoints.idle_interval
        if now - self._last_checkpoint >= interval and now >= self._last_commit + self._checkpoints.gap:
            self._checkpoint()

    def _guarded(self, work: Callable[[], None], leaving: Sequence[TopicPartition] = ()) -> None:
        """Do ``work``; where it lost the open transaction, put things so that all of it is done again.

        What is ``leaving`` us is not: its next owner does it.
        """
        try:
            try:
                work()
            except TransactionAbortable as error:
                assert self._transactions is not None, "an abort without transactions"
                raise self._transactions.aborted(error) from error
            except ProducerFatal as error:
                if self._transactions is None:
                    raise
                raise self._transactions.replaced(error) from error
        except Aborted as aborted:
            self._let_go(leaving)
            self._owed = {}
            self.task.aborted(aborted.failures)
            self._rewind()
        except Replaced:
            self._let_go(leaving)
            self._start_over()

    def _start_over(self) -> None:
        """Forget what is in memory and go back to what is committed: nothing else is known for certain."""
        kept = sorted(self._assigned)
        self._owed = {}
        self.task.lost(kept)
        commits = self._takeover.prepare(kept) if kept else {}
        self._note_committed(commits)  # a commit without an answer may have happened
        self._unclaimed = {p: commits[p] for p in self._unclaimed if p in commits}  # our name goes beside that one, too
        self._holds.release(kept)  # before the task holds again what it must restore first
        self.task.assigned(commits)
        self._start_at(commits)

    def _start_at(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """Read from where it is known to be committed. Asked to find that out by itself, the client has come back from
        a loss of all brokers without reading anything any more."""
        for partition, commit in commits.items():
            self._consumer.seek(partition, EARLIEST if commit.offset is None else commit.offset)

    def _note_committed(self, commits: Mapping[TopicPartition, Commit]) -> None:
        self._committed.update({p: commit.offset for p, commit in commits.items() if commit.offset is not None})

    def _poll(self, most: int, timeout: float) -> list[RawMessage]:
        """Poll; where spans are made, with one of its own that is linked to the sampled records it brought."""
        tracer = self.setting.tracer
        if not tracer.active:
            return self._consumer.poll(most, timeout)
        started = self.setting.clock.now_ms() * 1_000_000
        messages = self._consumer.poll(most, timeout)
        if messages:
            tracer.poll(messages[0].topic(), messages, group=self.setting.stage.group, started=started)
        return messages

    def _after_rebalance(self, messages: list[RawMessage]) -> list[RawMessage]:
        """Records polled in the turn of a rebalance may be of partitions that just went; new ones join a pause."""
        self._changed = False
        ours = [m for m in messages if TopicPartition(m.topic(), m.partition()) in self._assigned]
        early = [m for m in ours if m.topic() in self._holds.resting]
        for message in reversed(early):  # the first of a partition has the last word
            self._consumer.seek(TopicPartition(message.topic(), message.partition()), message.offset())
        self._holds.reassigned()
        return [m for m in ours if m.topic() not in self._holds.resting] if early else ours

    def _room(self) -> int:
        """How many records to ask for; pauses at a window that stays full, resumes at half."""
        room = self.task.room()
        if room:
            self._full_since = math.inf
            if self._holds.full and self.task.may_resume():
                self._holds.ease()
            return room
        now = self.setting.clock.monotonic()
        if self._holds.full or now >= self._full_since + PAUSE_AFTER:
            self._full_since = math.inf
            self._holds.fill()
        elif self._full_since == math.inf:
            self._full_since = now
        return 0

    def _next(self, room: int, timeout: float) -> list[RawMessage]:
        """Poll, unless the window is full for a moment only."""
        if room == 0 and not self._holds.full:
            if timeout:
                self.setting.clock.wait(self._asked_to_stop, timeout)
            return []
        self._checkpoints.before_poll()
        return self._poll(max(room, 1), timeout)

    def _patience(self) -> float:
        """Seconds to wait for the next record: short where acknowledgements are awaited."""
        if self._holds.full or self._full_since < math.inf:
            return 0.005
        return 0.1 if self.task.idle() else 0.02

    # -------------------------------------------------------------- checkpoints

    def _checkpoint(self) -> None:
        """The order that loses nothing.

        1. The task gives the contiguous prefix whose outputs the broker has acknowledged (delivery failures give a
           rewind instead of an offset), or, exactly-once, whose outputs are in the open transaction.
        2. Offsets that moved are committed, by themselves or in that transaction, and the answer is awaited.
        3. Only then do they count as committed: state is kept, the window gives room. Until then they are owed, also
           when nothing new is settled.
        """
        self._last_checkpoint = self.setting.clock.monotonic()
        settled = self.task.settled()
        self._rewind()
        self._commit({p: offset for p, offset in settled.items() if p in self._assigned})

    def _commit(self, settled: Mapping[TopicPartition, int]) -> None:
        wanted = {**self._owed, **settled}
        moved = {p: offset for p, offset in wanted.items() if self._committed.get(p) != offset}
        if not moved:
            if self._transactions is None or not self._transactions.is_open:
                return
            # Changes that move no offset, such as those of timers: with the offsets that are committed, so that the
            # group's coordinator says whether we are still a member.
            moved = {p: offset for p, offset in self._committed.items() if p in self._assigned}
        self._owed = moved
        if self._checkpoints.commit(moved, self._texts(moved, self._name_in_commits)):
            self._last_commit = self.setting.clock.monotonic()
            self._committed.update(moved)
            self._owed = {}
            for partition in moved:
                self._unclaimed.pop(partition, None)
            self.progress.moved()
            self.task.committed(moved)

    def is_still_member(self) -> bool:
        """Whether the group still takes commits of ours: those that it has are committed again. On our thread."""
        offsets = {p: offset for p, offset in self._committed.items() if p in self._assigned}
        return not offsets or self._checkpoints.commit(offsets, self._texts(offsets, self._name_in_commits))

    def _texts(self, offsets: Mapping[TopicPartition, int], name: str) -> dict[TopicPartition, str]:
        journal = self.task.needed_journal(offsets)
        texts = {p: CommitText(name, journal.get(p)).encode() for p in offsets}
        return {p: text for p, text in texts.items() if text}

    def _rewind(self) -> None:
        rewinds = self.task.rewinds()
        if not rewinds:
            return
        for partition, offset in rewinds.items():
            if partition in self._assigned:
                logger.warning("%s: outputs were refused, reading %s again from %d", self.name, partition, offset)
                self._consumer.seek(partition, offset)
                self._holds.wakes += 1
        self.task.rewound(tuple(rewinds))

    # --------------------------------------------------------------- rebalance

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """New partitions start with a new tracker; retained ones are not touched."""
        self._changed = self.is_taking_over = True
        self._is_at_rest = False
        commits = self._takeover.prepare(partitions)
        self._assigned.update(partitions)
        self.is_taking_over = False
        self._refuse_unlike_shares()
        self._note_committed(commits)
        self._checkpoints.own()
        if self._name_in_commits:
            self._unclaimed.update(commits)
            self._claim_at = 0.0
            self._claim()
        self._start_at(commits)
        self.task.assigned(commits)
        self.progress.moved()
        self.joined.set()

    def _refuse_unlike_shares(self) -> None:
        """State of a key is kept by partition number: all inputs' partitions of a number must be one member's."""
        stage = self.setting.stage
        if not stage.changelog_topic or len(stage.inputs) == 1:
            return
        shares = {i.topic: sorted(p.partition for p in self._assigned if p.topic == i.topic) for i in stage.inputs}
        if len(set(map(tuple, shares.values()))) > 1:
            raise StageStopped(
                f"its inputs are not shared out alike: {shares}; two members would keep the same keys' state. Give "
                "these topics equal numbers of partitions, and the group's members the range assignor",
                where=self._where,
            )

    def _claim(self) -> None:
        """Put our name beside the offsets before our first transaction, for whoever comes after a crash."""
        now = self.setting.clock.monotonic()
        if not self._unclaimed or now < self._claim_at:
            return
        self._claim_at = now + CLAIM_AGAIN
        offsets = {p: commit.offset for p, commit in self._unclaimed.items() if commit.offset is not None}
        texts = {
            p: replace(CommitText.decode(self._unclaimed[p].metadata), transactional_id=self._name_in_commits).encode()
            for p in offsets
        }
        if self._checkpoints.hand_over(offsets, texts):
            self._unclaimed.clear()

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish, commit, let go: inside the callback, while the partitions are still ours."""
        self._changed = True
        drained = self._asked_to_stop.is_set()  # then all the time there was has been given
        patience = min(REVOKE_TIMEOUT, self._consumer.max_poll_interval / 4)
        self.task.finish(partitions, 0.0 if drained else patience)
        self._checkpoints.own()
        self._guarded(self._checkpoint, leaving=partitions)
        self._guarded(self._abort, leaving=partitions)  # where it could not be committed: it holds outputs of theirs
        kept = {p: self._committed[p] for p in partitions if p in self._committed}
        self._checkpoints.hand_over(kept, self._texts(kept, ""))
        self._let_go(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else has them already: commit nothing, and nothing that was made together with it."""
        self._changed = True
        self._let_go(partitions)
        self._guarded(self._abort)

    def _abort(self) -> None:
        if self._checkpoints.abort():
            raise Aborted("its partitions are no longer ours")

    def _let_go(self, partitions: Sequence[TopicPartition]) -> None:
        self.task.lost(partitions)
        self._holds.reassigned(gone=partitions)
        for partition in partitions:
            self._assigned.discard(partition)
            self._committed.pop(partition, None)
            self._owed.pop(partition, None)
            self._unclaimed.pop(partition, None)
