"""One unit in this process: started, started anew after a failure, drained, stopped; on a thread of its own.

Whatever it takes to start it (topics, imports, models to load) and whatever it dies of stays on that thread: others
don't wait for it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sage.cluster.status import StageState, StageStatus
from sage.cluster.worker.log_handler import about
from sage.cluster.worker.members import MakeMember, Member
from sage.cluster.worker.reconcile import Mode, Place, Running
from sage.cluster.worker.units import Unit
from sage.errors import SageError
from sage.runtime.runs.counters import Numbers, StepCounters
from sage.runtime.steps.binding import BoundStep

logger = logging.getLogger("sage.cluster")

FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 60.0
"""Seconds before a failed unit is started again: the first, doubling up to the last, a fifth more or less."""

GOOD_LIFE: Final = 60.0
"""Seconds of work after which an earlier failure is forgotten."""

JOIN_PATIENCE: Final = 6.0
"""Seconds after which a member that its group gave nothing counts as running: there may be nothing for it."""

RELEASE_PATIENCE: Final = 5.0
"""Seconds beyond a drain's time that a unit has to leave its group, before it is left to itself."""

_MODE_STATES: Final[Mapping[Mode, StageState]] = {
    "run": "running", "paused": "paused", "held": "held", "drain": "draining", "finish": "draining",
}  # fmt: skip


class ActorHost:
    """A unit and its thread.

    Args:
        unit: what runs.
        running: as which version, digest and restart it was started, and in which mode.
        make: makes the member, on this unit's thread; raises whatever keeps it from running.
        changed: called from any thread when there is something new to say.
        name: of the thread, by which its log is told from others.
    """

    def __init__(
        self, unit: Unit, running: Running, make: MakeMember, *, name: str, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.unit = unit
        self.made_for = running.version
        self.alarm = ""
        """Why it stands still, where it does: said in the status."""
        self._running = running
        self._make = make
        self._changed = changed
        self._name = name
        self._member: Member | None = None
        self._joined_by = 0.0
        self._is_drained = False
        self._failures = 0
        self._restarts = 0
        self._problem = ""
        self._since = 0
        self._last_numbers: dict[str, dict[str, Numbers]] = {}
        self._retry_at = 0.0
        self._stopping = threading.Event()
        self._stop_timeout = 0.0
        self._give_up_at = 0.0
        self._was_given_up = False
        self._wake = threading.Event()
        self._guard = threading.Lock()
        self._shown: dict[str, tuple[float, list[StepCounters]]] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # -------------------------------------------------------------------- orders, from the worker's thread

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Drain within ``timeout`` seconds and leave; ``is_gone`` says when that is done. Twice is fine."""
        with self._guard:
            if self._stopping.is_set():
                return
            self._stop_timeout = timeout
            self._give_up_at = time.monotonic() + timeout + RELEASE_PATIENCE
            self._stopping.set()
            if self._member is not None:
                self._member.stop(timeout)
        self._wake.set()
        self._changed()

    def adopt(self, version: int) -> None:
        """It counts as ``version`` from now on: that one does the same."""
        self._running = replace(self._running, version=version)
        self._changed()

    def change(self, mode: Mode) -> None:
        """Run in another mode."""
        with self._guard:
            self._running = replace(self._running, mode=mode)
            self._is_drained = self._is_drained and mode == "finish"
            if self._member is not None and not self._is_over():
                self._member.change(mode)
            elif self._member is not None:
                self._member.stop(0.0)
            else:  # a member was told itself, and what it dies of later is waited for all the same
                self._wake.set()
        self._changed()

    def drained(self) -> None:
        """Nothing is left to read, and nothing comes any more: leave the group, and stay as a word in the status."""
        with self._guard:
            if self._running.mode != "finish":
                return
            self._is_drained = True
            if self._member is not None:
                self._member.stop(1.0)
        self._changed()

    # -------------------------------------------------------------------- looking, from the worker's thread

    @property
    def running(self) -> Running:
        """What runs here, as ``reconcile`` takes it."""
        return self._running

    @property
    def place(self) -> Place:
        """Its place."""
        return self._running.place

    @property
    def member(self) -> Member | None:
        """The member that works now, if one does."""
        return self._member

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    @property
    def is_gone(self) -> bool:
        """Whether it has stopped; one that hangs in its own code is given up, and says so in the log, once."""
        if not self._thread.is_alive():
            return True
        if not self._stopping.is_set() or time.monotonic() < self._give_up_at:
            return False
        if not self._was_given_up:
            self._was_given_up = True
            logger.error(
                "%s did not stop in time; what it had not committed is read again", self._name,
                extra=about(self._running.topology, self.unit.name),
            )  # fmt: skip
        return True

    @property
    def may_be_drained(self) -> bool:
        """Whether it only waits for nothing to be left."""
        return self._running.mode == "finish" and not self._is_drained and self._member is not None

    def statuses(self) -> list[StageStatus]:
        """What to say of each of its stages."""
        return [self._status(stage) for stage in self.unit.stages]

    def _status(self, stage: str) -> StageStatus:
        member, running = self._member, self._running
        status = StageStatus(
            stage, running.version, self._state(member), restarts=self._restarts, restart_number=running.restart,
            problem=self.alarm or self._problem, retry_at=int(self._retry_at * 1000), stalled=bool(self.alarm),
        )  # fmt: skip
        if member is None:  # what was counted until its end
            return replace(status, since=self._since, steps=self._last_numbers.get(stage, {}))
        steps = member.steps_of(stage)
        counters = [step.counters.copy() for step in steps]
        rate, latency = self._since_shown(stage, counters)
        return replace(
            status,
            partitions=tuple(sorted(f"{place.topic}:{place.partition}" for place in member.assignment)),
            read=counters[0].read,
            written=counters[-1].written,
            retried=sum(each.retried for each in counters),
            skipped=sum(each.skipped for each in counters),
            dead=sum(each.dead for each in counters),
            since=self._since,
            steps=_numbers_of(steps),
            rate=rate,
            latency=latency,
            restored=member.restored,
            transactional_ids=member.transactional_ids,
        )

    def _state(self, member: Member | None) -> StageState:
        if self._stopping.is_set():
            return "stopping"
        if self._is_over():
            return "drained" if member is None else "draining"
        if self._retry_at:
            return "backing-off"
        if member is None or not (member.has_joined or time.monotonic() >= self._joined_by):
            return "starting"
        if self._running.mode == "run" and member.restored is not None:
            return "restoring"
        return _MODE_STATES[self._running.mode]

    def _since_shown(self, stage: str, counters: list[StepCounters]) -> tuple[float, dict[str, float]]:
        """Records per second, and quantiles of the seconds that one takes, since this was asked last."""
        now = time.monotonic()
        shown_at, shown = self._shown.get(stage, (now, counters))
        if now - shown_at < 1.0 and stage in self._shown:
            shown_at, shown = self._shown[stage]
        else:
            self._shown[stage] = (now, counters)
        if len(shown) != len(counters) or now <= shown_at:
            return 0.0, {}
        since = [new.since(old) for new, old in zip(counters, shown, strict=True)]
        latency: dict[str, float] = {}
        for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            found = [value for each in since if (value := each.durations.quantile(quantile)) is not None]
            if found:
                latency[name] = round(sum(found), 6)
        return round(since[0].read / (now - shown_at), 1), latency

    # -------------------------------------------------------------------- the thread

    def _is_over(self) -> bool:
        """Whether there is nothing to be a member for: all is read; sources that give nothing more are at once."""
        return self._running.mode == "finish" and (self._is_drained or self.unit.is_sources)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._is_over():
                self._changed()
                self._wait(None)
                continue
            failure = self._live()
            if failure is None:
                continue
            self._restarts += 1
            self._problem = _words(failure)
            delay = self._next_delay()
            self._retry_at = time.time() + delay
            logger.warning("%s failed and is started again in %.0f s: %s", self._name, delay, self._problem)
            self._changed()
            self._wait(delay)
            self._retry_at = 0.0

    def _live(self) -> BaseException | None:
        """One life: from the making of the member to its end. What it died of; ``None`` where it was told to end."""
        try:
            member = self._make()
        except BaseException as error:  # whatever it is, also a sys.exit() of a module: it is this unit's alone
            return error
        try:
            member.open()
        except BaseException as error:
            member.stop(0.0)
            member.run()  # told to stop already: it only releases
            return error
        with self._guard:
            self._since = max(int(time.time() * 1000), self._since + 1)
            self._last_numbers = {}
            self._member = member
            self._joined_by = time.monotonic() + JOIN_PATIENCE
            member.change(self._running.mode)
            if self._stopping.is_set() or self._is_over():
                member.stop(self._stop_timeout)
        self._changed()
        began = time.monotonic()
        try:
            member.run()
        finally:
            with self._guard:
                self._last_numbers = {stage: _numbers_of(member.steps_of(stage)) for stage in self.unit.stages}
                self._member = None
            self.alarm = ""  # of a life that is over
            if time.monotonic() - began >= GOOD_LIFE:
                self._failures = 0
        return member.failure

    def _next_delay(self) -> float:
        delay = min(FIRST_DELAY * float(2**self._failures), LONGEST_DELAY)
        self._failures = min(self._failures + 1, 30)
        return delay * random.uniform(0.8, 1.2)

    def _wait(self, seconds: float | None) -> None:
        """Until that much time has passed, or there are new orders."""
        if not self._stopping.is_set():
            self._wake.wait(seconds)
        self._wake.clear()


def _numbers_of(steps: Sequence[BoundStep]) -> dict[str, Numbers]:
    return {step.name: step.counters.numbers for step in steps}


def _words(failure: BaseException) -> str:
    return str(failure) if isinstance(failure, SageError) else f"{type(failure).__name__}: {failure}"
