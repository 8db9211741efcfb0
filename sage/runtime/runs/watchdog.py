"""Says which stage is assigned, lags and does not move: the failure that consumer groups are silent about."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sage.errors import InvalidTopology, SageError
from sage.model import duration
from sage.model.partition import TopicPartition
from sage.ports import Admin, Clock
from sage.runtime.actors.actor import Actor

logger = logging.getLogger("sage.runtime")

ALARM_VARIABLE = "SAGE_ALARM_AFTER"
"""How long a stage may stand still, where ``STALLED_AFTER`` is too long or too short."""

STALLED_AFTER = 60.0
"""Seconds without a commit, an outcome, a retry or a change of assignment, with records waiting."""

IN_VAIN_AFTER = 300.0
"""Seconds of outcomes without a commit: a synchronous stage commits each second or so, unless it does the same records
again and again because its transactions fail."""

MARGIN = 10.0
"""Seconds that a try whose time is up has to be counted, before its stage counts as standing still."""

BETWEEN_LOOKS = 30.0
"""Seconds from one look to the next at most, where the process runs: a look waits for what the brokers say of three
things."""

NAMED = 5
"""So many partitions are named in an alarm, the furthest behind first."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A stage that stands still.

    Attributes:
        stage: its name.
        partitions: how many it has.
        behind: records that wait, by the partitions that have some, the furthest behind first.
        seconds: for how long.
        doing: what it does instead, and what helps.
    """

    stage: str
    partitions: int
    behind: Mapping[TopicPartition, int]
    seconds: float
    doing: str

    @property
    def lag(self) -> int:
        """Records that wait in all its partitions."""
        return sum(self.behind.values())

    def __str__(self) -> str:
        places = ", ".join(f"{place} by {records}" for place, records in list(self.behind.items())[:NAMED])
        more = f" and {len(self.behind) - NAMED} more" if len(self.behind) > NAMED else ""
        share = "1 partition" if self.partitions == 1 else f"{self.partitions} partitions"
        waiting = "1 record" if self.lag == 1 else f"{self.lag} records"
        return (
            f'step "{self.stage}" stands still: {share} assigned, {waiting} behind '
            f"({places}{more}), nothing committed for {self.seconds:.0f} s; {self.doing}"
        )


def alarm_after(environ: Mapping[str, str]) -> float:
    """How many seconds a stage may stand still: ``SAGE_ALARM_AFTER``, else ``STALLED_AFTER``.

    Raises:
        InvalidTopology: the variable is no duration.
    """
    text = environ.get(ALARM_VARIABLE, "")
    if not text:
        return STALLED_AFTER
    try:
        return duration.seconds(text)
    except ValueError as error:
        raise InvalidTopology(f"{ALARM_VARIABLE}: {error}") from error


class Watchdog:
    """Looks at the actors of one process. ``look`` is called every few seconds.

    Args:
        stalled_after: seconds that a stage may stand still; longer where one call of a step may take longer.
    """

    def __init__(
        self, topology: str, actors: Sequence[Actor], admin: Admin, clock: Clock, stalled_after: float = STALLED_AFTER
    ) -> None:
        self._stalled_after = stalled_after
        self._topology = topology
        self._actors = actors
        self._admin = admin
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}
        self._looked = clock.monotonic()
        self.alarms: dict[str, Alarm] = {}

    def look(self) -> None:
        """Raise an alarm where a stage stands still, once; take it back when it moves again."""
        self._leave_out_what_nobody_saw()
        for actor in self._actors:
            self._look_at(actor, self._clock.monotonic())

    def _leave_out_what_nobody_saw(self) -> None:
        """A process that was stopped itself, or its machine, finds all its stages still when it goes on."""
        now = self._clock.monotonic()
        unseen, self._looked = now - self._looked, now
        if unseen > max(self._stalled_after, BETWEEN_LOOKS):
            self._seen = {what: (signs, since + unseen) for what, (signs, since) in self._seen.items()}

    def _look_at(self, actor: Actor, now: float) -> None:
        """What counts is for how long records have waited: a quiet stage has nothing to commit, and the first call
        after it may take its time."""
        moves, patience = actor.progress.moves, self._patience(actor)
        still = self._since(actor.name, (moves, self._outcomes(actor)), now)
        turned = self._since(f"{actor.name} turns", actor.progress.turns, now)
        committed = self._since(f"{actor.name} commits", moves, now)
        behind = self._behind(actor) if committed else {}
        if behind is None:
            return
        waits = self._since(f"{actor.name} waits", (moves, bool(behind)), now)
        in_vain = actor.setting.stage.execution == "sync" and committed >= IN_VAIN_AFTER
        if (still < patience and not in_vain) or actor.failure is not None:
            if self.alarms.pop(actor.name, None) is not None:
                logger.warning('%s: step "%s" moves again', self._topology, actor.name)
        elif behind and waits >= (IN_VAIN_AFTER if still < patience else patience):
            seconds = waits if still < patience else min(still, waits)
            alarm = self._alarm(actor, behind, seconds, in_vain=still < patience, hangs=turned >= seconds / 2)
            if actor.setting.stopping.is_set() and actor.name in self.alarms:
                alarm = replace(alarm, doing=self.alarms[actor.name].doing)  # a drain takes no turns, whatever hangs
            if actor.name not in self.alarms:
                logger.error("%s: %s", self._topology, alarm)
            self.alarms[actor.name] = alarm

    def _patience(self, actor: Actor) -> float:
        """A call that may take ten minutes is given up after ten, and that is an outcome: no stage stands still."""
        limits = [step.timeout + MARGIN for step in actor.setting.steps if step.timeout is not None]
        return max(self._stalled_after, *limits) if limits else self._stalled_after

    @staticmethod
    def _outcomes(actor: Actor) -> object:
        counters = [step.counters for step in actor.setting.steps]
        return [(each.read, each.written, each.retried, each.skipped, each.dead) for each in counters]

    def _since(self, what: str, signs: object, now: float) -> float:
        """Seconds since these changed."""
        seen = self._seen.get(what)
        if seen is None or seen[0] != signs:
            self._seen[what] = seen = (signs, now)
        return now - seen[1]

    @staticmethod
    def _alarm(
        actor: Actor, behind: Mapping[TopicPartition, int], seconds: float, *, in_vain: bool, hangs: bool
    ) -> Alarm:
        inputs = {each.topic for each in actor.setting.stage.inputs}
        if in_vain:
            doing = "the same records are done again and again, and never committed; the log says why"
        elif hangs:
            doing = "its code does not return; give what it waits for a time-out, or the step blocking and a timeout"
        elif actor.task.idle():
            doing = "no record is at work here, so records are not fetched; restart this process, and keep its log"
        else:
            doing = "records are at work that don't end; give the step a timeout"
        return Alarm(actor.name, sum(at.topic in inputs for at in actor.assignment), behind, seconds, doing)

    def _behind(self, actor: Actor) -> Mapping[TopicPartition, int] | None:
        """Records that wait, by partition, the furthest behind first; ``None`` where the brokers don't say."""
        partitions = sorted(actor.assignment)
        if not partitions:
            return {}
        try:
            ends = self._admin.end_offsets(partitions)
            starts = self._admin.start_offsets(partitions)
            committed = self._admin.commits(actor.setting.stage.group, partitions)
        except SageError as error:  # the brokers are away, and say so elsewhere
            logger.info("%s: no lag to be had: %s", self._topology, error)
            return None
        lag = {p: max(0, ends[p] - max(committed[p].offset or 0, starts[p])) for p in partitions}
        return {p: lag[p] for p in sorted(lag, key=lambda place: -lag[place]) if lag[p]}
