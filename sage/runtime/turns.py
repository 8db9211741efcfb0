"""Who runs when: lanes, concurrency, micro-batches, and tries again inside the lane."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence

from sage.errors import SageError, StageStopped, TransientFailure
from sage.model.partition import TopicPartition
from sage.runtime.failures import Verdict, classify
from sage.runtime.flight import Flight
from sage.runtime.lanes import Lane, Lanes
from sage.runtime.outputs import Output
from sage.runtime.stage_context import StageSetting
from sage.runtime.work import Result, Work


class Turns:
    """Runs at most ``concurrency`` turns of work at once, each on records whose lanes are free.

    Args:
        finished: called with a record and its outputs.
        buried: called with a record that is dead, and why.
        failed: called when the stage must stop.
    """

    def __init__(
        self,
        setting: StageSetting,
        work: Work,
        *,
        finished: Callable[[Flight, list[Output]], None],
        buried: Callable[[Flight, Exception], None],
        failed: Callable[[SageError], None],
    ) -> None:
        (self._step,) = setting.steps
        self._setting = setting
        self._work = work
        self._finished = finished
        self._buried = buried
        self._failed = failed
        self._recovery = setting.recovery(self._step)
        self._lanes = Lanes(setting.stage.ordering)
        self._running = 0
        self._stopped = False
        self._due: asyncio.TimerHandle | None = None

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
            if len(flights) < len(taken):
                self._release([flight for flight in taken if flight not in flights])
            if flights:
                self._run(flights)

    def _run(self, flights: list[Flight]) -> None:
        self._running += 1
        homes = {flight.home for flight in flights}
        for home in homes:
            home.running += 1
        task = asyncio.get_running_loop().create_task(self._turn(flights))
        if len(homes) == 1:  # a turn over several partitions is not cancelled for one of them
            next(iter(homes)).tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._running -= 1
            for home in homes:
                home.running -= 1
                home.tasks.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._failed(error if isinstance(error, SageError) else SageError(f"{type(error).__name__}: {error}"))
            self.go()

        task.add_done_callback(ended)

    async def _turn(self, flights: list[Flight]) -> None:
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
                self._deal_with(flight, error, waiting)
        else:
            for flight, result in zip(flights, results, strict=True):
                if isinstance(result, Exception):
                    self._deal_with(flight, result, waiting)
                else:
                    self._finished(flight, result)
        finally:
            self._close_spans(flights)
        blocked = self._try_again(waiting)
        self._release([flight for flight in flights if flight.lane not in blocked])

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
            waiting[flight] = decision.delay
            return
        if decision.action == "skip":
            flight.skipped = True
            self._finished(flight, [])
        else:
            self._buried(flight, error)

    def _try_again(self, waiting: Mapping[Flight, float]) -> set[Lane | None]:
        """Have these run again later; their lanes, which stay blocked until then.

        Records that failed in one batch wait together, else those of one lane would overtake each other, and a
        sink would be given in pieces what it refused as a whole.
        """
        again = [flight for flight, delay in waiting.items() if delay < math.inf]
        if again:
            delay = max(waiting[flight] for flight in again)
            asyncio.get_running_loop().call_later(delay, self._again, again)
        return {flight.lane for flight in waiting}

    def _again(self, flights: list[Flight]) -> None:
        """The wait is over: the records run before all others of their lane."""
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
