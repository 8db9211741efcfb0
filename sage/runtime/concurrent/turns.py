"""Who runs when: lanes, concurrency, micro-batches, and tries again inside the lane."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable, Mapping, Sequence

from sage.errors import SageError, StageStopped, TransientFailure
from sage.model.partition import TopicPartition
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.lanes import Lane, Lanes
from sage.runtime.concurrent.partition_state import PartitionState
from sage.runtime.concurrent.work import Result, Work
from sage.runtime.retries.failures import Verdict, classify
from sage.runtime.steps.outputs import Output
from sage.runtime.steps.stage_context import StageSetting

IN_LANE = 60.0
"""Seconds that a failing record is tried again in front of its lane before it goes into the retry topic."""


class _Place:
    """One turn's place among those at work, given back once."""

    __slots__ = ("homes", "is_free")

    def __init__(self, homes: set[PartitionState]) -> None:
        self.homes = homes
        self.is_free = False


class Turns:
    """Runs at most ``concurrency`` turns of work at once, each on records whose lanes are free.

    Args:
        finished: called with a record and its outputs.
        buried: called with a record that is dead, and why.
        parking: called with a record whose turn it is (``None``) or which failed and may be tried again after so many
            seconds; true where it went into the retry topic instead. It may put off what it does not take.
        failed: called when the stage must stop.
    """

    def __init__(
        self,
        setting: StageSetting,
        work: Work,
        *,
        finished: Callable[[Flight, list[Output]], None],
        buried: Callable[[Flight, Exception], None],
        parking: Callable[[Flight, float | None], bool],
        failed: Callable[[SageError], None],
    ) -> None:
        (self._step,) = setting.steps
        self._setting = setting
        self._work = work
        self._finished = finished
        self._buried = buried
        self._parking = parking
        self._failed = failed
        self._recovery = setting.recovery(self._step)
        self._lanes = Lanes(setting.stage.ordering)
        self._running = 0
        self._stopped = False
        self._due: asyncio.TimerHandle | None = None
        self._blocked: set[Lane] = set()
        self._half_window = max(2 * setting.stage.concurrency * work.size, 8)

    def add(self, flight: Flight) -> None:
        """Queue a record in its lane."""
        self._lanes.add(flight)

    def forget(self, partition: TopicPartition) -> None:
        """Drop what waits in ``partition``; what is at work goes on."""
        self._lanes.forget(partition)

    def close(self) -> None:
        """Start nothing more."""
        self._stopped = True
        if self._due is not None:
            self._due.cancel()

    def go(self) -> None:
        """Start as many turns as may run; a micro-batch that is not full waits ``max_wait`` for others."""
        if self._work.max_wait and self._lanes.ready and self._lanes.waiting < self._work.size:
            if self._due is None:
                self._due = asyncio.get_running_loop().call_later(self._work.max_wait, self._start)
            return
        self._start()

    def _start(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        while not self._stopped and self._running < self._setting.stage.concurrency and self._lanes.ready:
            taken = self._lanes.take(self._work.size)
            flights = [flight for flight in taken if flight.home.alive and not flight.home.closing]
            flights = self._without_early(self._without_parked(flights))
            if len(flights) < len(taken):
                self._release(
                    [flight for flight in taken if flight not in flights and flight.lane not in self._blocked]
                )
            if flights:
                self._run(flights)

    def _without_parked(self, flights: list[Flight]) -> list[Flight]:
        """Those of keys that have others in the retry topic go there too, but for what is behind one that can't."""
        kept: list[Flight] = []
        waiting: set[Lane | None] = set()
        for flight in flights:
            if flight.lane in waiting or not self._parking(flight, None):
                kept.append(flight)
                if flight.not_before:
                    waiting.add(flight.lane)
        return kept

    def _without_early(self, flights: list[Flight]) -> list[Flight]:
        """Records before their time wait in front of their lanes; those behind them in the lane wait too."""
        if not any(flight.not_before for flight in flights):  # nearly always
            return flights
        now = asyncio.get_running_loop().time()
        early = {flight.lane: flight.not_before - now for flight in reversed(flights) if flight.not_before > now}
        for lane, seconds in early.items():
            self._try_again({flight: seconds for flight in flights if flight.lane is lane})
        return [flight for flight in flights if flight.lane not in early]

    def _run(self, flights: list[Flight]) -> None:
        place = _Place({flight.home for flight in flights})
        self._running += 1
        for home in place.homes:
            home.running += 1
        # In a context of its own: it may be started at the end of another one, and must not see what that has set.
        task = asyncio.get_running_loop().create_task(self._turn(flights, place), context=contextvars.Context())
        if len(place.homes) == 1:  # a turn over several partitions is not cancelled for one of them
            next(iter(place.homes)).tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            for home in place.homes:
                home.tasks.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._failed(error if isinstance(error, SageError) else SageError(f"{type(error).__name__}: {error}"))
            if not place.is_free:  # it was cancelled, or failed
                self._leave(place)
                self.go()

        task.add_done_callback(ended)

    def _leave(self, place: _Place) -> None:
        place.is_free = True
        self._running -= 1
        for home in place.homes:
            home.running -= 1

    async def _turn(self, flights: list[Flight], place: _Place) -> None:
        now = time.perf_counter()
        for flight in flights:
            flight.started = flight.started or now
            flight.attempts += 1
        self._open_spans(flights)
        waiting: dict[Flight, float] = {}
        try:
            results = await self._run_work(flights)
        except Exception as error:
            if len(flights) > 1 and classify(error) is Verdict.DEAD:
                self._try_alone(flights)
                return
            for flight in flights:
                if flight.home.alive and not (len(flights) > 1 and self._is_kept_for_itself(flight, error, waiting)):
                    self._deal_with(flight, error, waiting)
        else:
            for flight, result in zip(flights, results, strict=True):
                if not flight.home.alive:
                    pass  # its partition went meanwhile: what became of it here counts for nothing
                elif isinstance(result, Exception):
                    self._deal_with(flight, result, waiting)
                else:
                    self._finished(flight, result)
        finally:
            self._close_spans(flights)
        if waiting:
            blocked = self._try_again(waiting)
            flights = [flight for flight in flights if flight.lane not in blocked]
        self._release(flights)
        # The next turn starts now, not when the loop has come around: with a thousand calls that end together, that
        # would be after the work of all of them.
        self._leave(place)
        self.go()

    async def _run_work(self, flights: list[Flight]) -> list[Result]:
        """The work's results; what would end the turn or the whole loop without a word becomes a failure."""
        try:
            return await self._work.run(flights)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise TransientFailure("something that the step waited for was cancelled") from error
        except (SystemExit, KeyboardInterrupt) as error:
            raise StageStopped(f"the step raised {type(error).__name__}") from error

    def _try_alone(self, flights: list[Flight]) -> None:
        """A micro-batch failed for one of its records: try each by itself, so that only the bad one pays."""
        for flight in flights:
            flight.alone = True
            flight.attempts = 0
        self._lanes.put_back(flights)
        self._release(flights)

    def _is_kept_for_itself(self, flight: Flight, error: Exception, waiting: dict[Flight, float]) -> bool:
        """Whether its tries in micro-batches are used up, so that the last one is its own: what looks like trouble of
        a service may be made by one record of the batch."""
        if not self._recovery.is_used_up(error, flight.attempts):
            return False
        flight.alone = True
        flight.attempts -= 1
        waiting[flight] = 0.0
        return True

    def _deal_with(self, flight: Flight, error: Exception, waiting: dict[Flight, float]) -> None:
        """Decide on a failed record; one that is to be tried again goes to ``waiting``, with the seconds until then."""
        if flight.span is not None:
            flight.span.fail(error)
        try:
            decision = self._recovery.decide(error, flight.message, flight.attempts)
        except SageError as stop:
            self._failed(stop)
            waiting[flight] = math.inf  # not committed, and nothing of its lane runs any more
            return
        if decision.action == "retry":
            if not (self._is_long(flight) and self._parking(flight, decision.delay)):
                waiting[flight] = decision.delay
            return
        if decision.action == "skip":
            flight.skipped = True
            self._finished(flight, [])
        else:
            self._buried(flight, error)

    def _is_long(self, flight: Flight) -> bool:
        """Whether a failed record has held up its lane for long enough: by time, or by what waits behind such."""
        if self._setting.stage.ordering != "key":
            return self._setting.stage.ordering == "none"
        now = asyncio.get_running_loop().time()
        flight.failed_since = flight.failed_since or now
        behind = sum(len(lane.queue) for lane in self._blocked) + (len(flight.lane.queue) if flight.lane else 0)
        return now - flight.failed_since >= IN_LANE or behind >= self._half_window

    def _try_again(self, waiting: Mapping[Flight, float]) -> set[Lane | None]:
        """Have these run again later; their lanes, which stay blocked until then.

        Records that failed in one batch wait together, else those of one lane would overtake each other, and a
        sink would be given in pieces what it refused as a whole.
        """
        again = [flight for flight, delay in waiting.items() if delay < math.inf]
        if again:
            delay = max(waiting[flight] for flight in again)
            asyncio.get_running_loop().call_later(delay, self._again, again)
            self._blocked.update(flight.lane for flight in again if flight.lane is not None)
        return {flight.lane for flight in waiting}

    def _again(self, flights: list[Flight]) -> None:
        """The wait is over: the records run before all others of their lane."""
        self._blocked.difference_update(flight.lane for flight in flights if flight.lane is not None)
        self._lanes.put_back(flights)
        self._release(flights)
        self.go()

    def _release(self, flights: Sequence[Flight]) -> None:
        lanes: dict[Lane, None] = {flight.lane: None for flight in flights if flight.lane is not None}
        for lane in lanes:
            self._lanes.release(lane)

    def _open_spans(self, flights: Sequence[Flight]) -> None:
        tracer, stage = self._setting.tracer, self._setting.stage
        if not tracer.active:
            return
        for flight in flights:
            message = flight.message
            flight.span = None  # each try has its own
            if tracer.sampled(message.headers() or ()):
                flight.span = tracer.process(message.topic(), message, group=stage.group, step=stage.name)

    def _close_spans(self, flights: Sequence[Flight]) -> None:
        for flight in reversed(flights):
            if flight.span is not None:
                flight.span.end()
