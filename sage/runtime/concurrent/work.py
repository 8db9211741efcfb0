"""What an asynchronous stage does with the records of one turn: one call each, a micro-batch, or a sink's write."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Callable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sage.errors import StageStopped
from sage.model.identity import extended
from sage.model.keys import encode_key
from sage.model.record import Record
from sage.runtime.batches.chain import add_emitted, default_branch
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.step_threads import StepThreads
from sage.runtime.journal import TryTime, place_of
from sage.runtime.steps.binding import BoundStep, Mode
from sage.runtime.steps.input_decoder import InputDecoder
from sage.runtime.steps.outputs import (
    TRACEPARENT,
    Output,
    Targets,
    add_outputs,
    headers_of,
    needs_trace,
    timestamp_of,
)
from sage.spec.component import Sink
from sage.spec.context import Context
from sage.spec.detached import detached

if TYPE_CHECKING:
    from sage.runtime.journal import Journal
    from sage.runtime.journal.calls import JournaledCalls
    from sage.runtime.state.stage_state import StageState
    from sage.runtime.state.work import KeyedWork

Result: TypeAlias = "list[Output] | Exception"


ANY_TRACE = (TRACEPARENT, b"0" * 55)
"""As long as the context that an output will get."""


class Work(Protocol):
    """One turn's work. ``size`` is how many records it takes at most."""

    size: int
    max_wait: float

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """One result per record, in order. An exception raised is the whole turn's."""
        ...


class Caller:
    """Calls a step's code: awaits it, or runs it in a thread where it blocks, within its time."""

    def __init__(self, step: BoundStep, threads: StepThreads | None) -> None:
        self._step = step
        self._threads = threads
        self._timeout = step.timeout

    async def call(self, function: Callable[..., Any], *arguments: Any, time: TryTime | None = None) -> Any:
        """The function's result, a generator's as a list. Raises TimeoutError after the step's time-out.

        Args:
            time: is told of the time-out, to let it stand still while results of calls wait for the broker.
        """
        in_thread = self._threads is not None and not inspect.iscoroutinefunction(function)
        if self._timeout is None and not in_thread:
            return await _finished(function(*arguments))
        limit = asyncio.timeout(None if in_thread else self._timeout)
        try:
            async with limit:
                if in_thread:
                    assert self._threads is not None
                    return await _finished(await self._threads.call(function, arguments, limit, self._timeout))
                if time is not None:
                    time.begin(limit)
                return await _finished(function(*arguments))
        except TimeoutError as error:
            if limit.expired() and not str(error):
                raise TimeoutError(f"it took longer than the step's timeout, {self._timeout:g} s") from error
            raise


async def _finished(result: Any) -> Any:
    """What a call gives in the end: awaited, or an async generator's items."""
    if type(result) is CoroutineType or inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncIterable):
        return [detached(item) async for item in result]
    return result


class RecordCalls:
    """One call per record."""

    size = 1
    max_wait = 0.0

    def __init__(
        self, step: BoundStep, caller: Caller, decoder: InputDecoder, targets: Targets,
        journal: Journal | None = None, state: StageState | None = None,
    ) -> None:  # fmt: skip
        self._step = step
        self._caller = caller
        self._decoder = decoder
        self._targets = targets
        self._journal = journal
        self._state = state

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """Run the one record, or the one timer."""
        (flight,) = flights
        if flight.timer is not None and self._state is not None and not self._state.is_set(flight.timer):
            return [[]]  # moved or cancelled since it was found due
        keyed = self._begin(flight)
        time = TryTime()
        calls = None if self._journal is None else calls_of(self._journal, flight, time)
        ctx = Context(self._step.scope).bind(flight.message, flight.record_id).attach(calls=calls, keyed=keyed)
        try:
            result = await self._called(flight, ctx, time)
        finally:
            if calls is not None:
                calls.end()
        outputs = outputs_of(self._step, self._targets, flight, result, ctx)
        if self._state is not None and keyed is not None:
            self._refuse_oversize(self._state, flight, outputs)  # before anyone sees what it did to the state
            flight.keyed = self._state.finish(flight.home.partition.partition, keyed)
            if flight.timer is not None:
                self._state.timer_done(flight.timer)
        return [outputs]

    def _refuse_oversize(self, state: StageState, flight: Flight, outputs: Sequence[Output]) -> None:
        """Raises RecordTooLarge for an output that would not leave, with the headers that it will have."""
        if state.check_size is None:
            return
        came = flight.message.headers()
        trace = [ANY_TRACE] if flight.span is not None or needs_trace(came) else ()
        for output in outputs:
            state.check_size(output.topic, output.value, output.key, headers_of(came, output, trace))

    def _begin(self, flight: Flight) -> KeyedWork | None:
        if self._state is None:
            return None
        if flight.timer is not None:
            return self._state.begin_timer(flight.timer)
        return self._state.begin(flight.home.partition.partition, flight.message.key())

    async def _called(self, flight: Flight, ctx: Context, time: TryTime) -> Any:
        if flight.timer is not None:
            on_timer = self._step.on_timer
            assert on_timer is not None, f"step {self._step.name} has no on_timer"
            return await self._caller.call(
                on_timer.function, flight.timer.due.name, *((ctx,) if on_timer.takes_ctx else ()), time=time
            )
        value = flight.value = self._decoder.decode(flight.message)
        if self._step.mode is Mode.ROUTE:
            return await self._branch(value, ctx, time)
        call = self._step.call
        assert call is not None, f"step {self._step.name} has nothing to call"
        return await self._caller.call(call.function, *((value, ctx) if call.takes_ctx else (value,)), time=time)

    async def _branch(self, value: Any, ctx: Context, time: TryTime) -> str:
        """The first branch whose predicate takes the value, else the default; each is a call with a time of its own.

        Raises:
            RecordFailure: no predicate takes it and the route has no default.
        """
        for name, predicate in self._step.predicates:
            arguments = (value, ctx) if predicate.takes_ctx else (value,)
            if await self._caller.call(predicate.function, *arguments, time=time):
                return name
        return default_branch(self._step)


class BatchCalls:
    """One call for several records, through ``process_batch`` or a ``map_batches`` function."""

    def __init__(
        self, step: BoundStep, caller: Caller, decoder: InputDecoder, targets: Targets, journal: Journal | None = None
    ) -> None:
        policy = step.options.batch
        self.size = policy.max_size if policy is not None else 32
        self.max_wait = policy.max_wait if policy is not None else 0.005
        self._step = step
        self._caller = caller
        self._decoder = decoder
        self._targets = targets
        self._journal = journal

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """Run the batch; what can't be decoded is left out of it and fails alone."""
        failed = decode_all(self._decoder, flights)
        taken = [flight for flight in flights if flight not in failed]
        time = TryTime()
        calls = [] if self._journal is None else [calls_of(self._journal, flight, time) for flight in taken]
        contexts = [Context(self._step.scope).bind(flight.message, flight.record_id) for flight in taken]
        for ctx, own in zip(contexts, calls, strict=False):
            ctx.attach(calls=own)
        values = [flight.value for flight in taken]
        try:
            results = iter(await self._results(values, contexts, time) if taken else ())
        finally:
            for own in calls:
                own.end()
        made = {
            flight: outputs_of(self._step, self._targets, flight, next(results), ctx)
            for flight, ctx in zip(taken, contexts, strict=True)
        }
        return [failed.get(flight) or made[flight] for flight in flights]

    async def _results(self, values: list[Any], contexts: list[Context], time: TryTime) -> list[Any]:
        assert self._step.batch is not None
        arguments = (values, contexts) if self._step.batch_takes_ctx else (values,)
        results = list(await self._caller.call(self._step.batch, *arguments, time=time))
        if len(results) != len(values):
            raise StageStopped(
                f"a batch of {len(values)} values gave {len(results)} results; give one for each, in order",
                where=f'{self._step.scope.topology} step "{self._step.name}"',
            )
        return results


class SinkWrites:
    """A sink's writes: all that is there, in order."""

    max_wait = 0.0

    def __init__(self, step: BoundStep, caller: Caller, decoder: InputDecoder) -> None:
        policy = step.options.batch
        self.size = policy.max_size if policy is not None else 500
        if policy is not None:
            self.max_wait = policy.max_wait
        self._caller = caller
        self._decoder = decoder
        assert isinstance(step.component, Sink)
        self._sink = step.component

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """Write; a sink has no outputs."""
        failed = decode_all(self._decoder, flights)
        records = [_record(flight) for flight in flights if flight not in failed]
        if records:
            await self._caller.call(self._sink.write, records)
        return [failed.get(flight) or [] for flight in flights]


def calls_of(journal: Journal, flight: Flight, time: TryTime) -> JournaledCalls:
    """The journaled calls of one try of a record, or of a timer, which has no place."""
    message = flight.message
    place = place_of(message) if flight.timer is None else None
    return journal.calls(flight.home.partition, flight.record_id, place=place, came=message.headers() or (), time=time)


def decode_all(decoder: InputDecoder, flights: Sequence[Flight]) -> dict[Flight, Exception]:
    """Decode every record's value in place; those that can't be, with the reason."""
    failed: dict[Flight, Exception] = {}
    for flight in flights:
        try:
            flight.value = decoder.decode(flight.message)
        except Exception as error:
            failed[flight] = error
    return failed


def _record(flight: Flight) -> Record[Any]:
    message = flight.message
    return Record(
        flight.value,
        message.key(),
        message.headers() or (),
        timestamp_of(message),
        flight.record_id,
        message.topic(),
        message.partition(),
        message.offset(),
    )


def outputs_of(step: BoundStep, targets: Targets, flight: Flight, result: Any, ctx: Context) -> list[Output]:
    """The records that a step's result becomes."""
    out: list[Output] = []
    key, record_id, topics = flight.message.key(), flight.record_id, targets.main(step.name)
    if step.mode in (Mode.FLATMAP, Mode.PROCESS):
        for number, item in enumerate(result or ()):
            add_outputs(out, topics, item, key, extended(record_id, step.name, number))
    elif ctx.diverted:
        pass  # its branch has it
    elif step.mode is Mode.FILTER:
        if result:
            add_outputs(out, topics, flight.value, key, record_id)
    elif step.mode is Mode.KEY_BY:
        key = encode_key(result)
        add_outputs(out, topics, flight.value, key, record_id)
    elif step.mode is Mode.ROUTE:
        add_outputs(out, targets.branch(step.name, result), flight.value, key, record_id)
    else:
        add_outputs(out, topics, result, key, record_id)
    emitted = ctx.take_emitted()
    if emitted:
        add_emitted(out, targets, step.name, emitted, key, record_id)
    return out


def work_of(
    step: BoundStep,
    threads: StepThreads | None,
    decoder: InputDecoder,
    targets: Targets,
    journal: Journal | None = None,
    state: StageState | None = None,
) -> RecordCalls | BatchCalls | SinkWrites:
    """The kind of work that a step asks for."""
    caller = Caller(step, threads)
    if step.mode is Mode.SINK:
        return SinkWrites(step, caller, decoder)
    if step.batch is not None and step.mode is not Mode.PROCESS:  # state is one key's, and a batch many keys'
        return BatchCalls(step, caller, decoder, targets, journal)
    return RecordCalls(step, caller, decoder, targets, journal, state)
