"""What an asynchronous stage does with the records of one turn: one call each, a micro-batch, or a sink's write."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

from sage.errors import StageStopped
from sage.model.identity import extended
from sage.model.record import Record
from sage.runtime.binding import BoundStep, Mode
from sage.runtime.chain import add_emitted
from sage.runtime.flight import Flight
from sage.runtime.input_decoder import InputDecoder
from sage.runtime.outputs import Output, Targets, add_outputs, timestamp_of
from sage.spec.component import Sink
from sage.spec.context import Context

Result: TypeAlias = "list[Output] | Exception"


class Work(Protocol):
    """One turn's work. ``size`` is how many records it takes at most."""

    size: int
    max_wait: float

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """One result per record, in order. An exception raised is the whole turn's."""
        ...


class Caller:
    """Calls a step's code: awaits it, or runs it in a thread where it blocks, within its time."""

    def __init__(self, step: BoundStep, threads: ThreadPoolExecutor | None) -> None:
        self._step = step
        self._threads = threads
        self._timeout = step.timeout

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result, a generator's as a list. Raises TimeoutError after the step's time-out."""
        async with asyncio.timeout(self._timeout):
            if self._threads is not None and not inspect.iscoroutinefunction(function):
                loop = asyncio.get_running_loop()
                context = contextvars.copy_context()  # so that spans made in the thread know their parent
                return await loop.run_in_executor(self._threads, lambda: context.run(_called, function, arguments))
            result = function(*arguments)
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, AsyncIterable):
                return [item async for item in result]
            return result


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run in a thread, generators to their end there."""
    result = function(*arguments)
    return list(result) if inspect.isgenerator(result) else result


class RecordCalls:
    """One call per record."""

    size = 1
    max_wait = 0.0

    def __init__(self, step: BoundStep, caller: Caller, decoder: InputDecoder, targets: Targets) -> None:
        self._step = step
        self._caller = caller
        self._decoder = decoder
        self._targets = targets

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """Run the one record."""
        (flight,) = flights
        call = self._step.call
        assert call is not None
        value = flight.value = self._decoder.decode(flight.message)
        ctx = Context(self._step.scope).bind(flight.message, flight.record_id)
        arguments = (value, ctx) if call.takes_ctx else (value,)
        result = await self._caller.call(call.function, *arguments)
        return [outputs_of(self._step, self._targets, flight, result, ctx)]


class BatchCalls:
    """One call for several records, through ``process_batch`` or a ``map_batches`` function."""

    def __init__(self, step: BoundStep, caller: Caller, decoder: InputDecoder, targets: Targets) -> None:
        policy = step.options.batch
        self.size = policy.max_size if policy is not None else 32
        self.max_wait = policy.max_wait if policy is not None else 0.005
        self._step = step
        self._caller = caller
        self._decoder = decoder
        self._targets = targets

    async def run(self, flights: Sequence[Flight]) -> list[Result]:
        """Run the batch; what can't be decoded is left out of it and fails alone."""
        failed = decode_all(self._decoder, flights)
        taken = [flight for flight in flights if flight not in failed]
        contexts = [Context(self._step.scope).bind(flight.message, flight.record_id) for flight in taken]
        values = [flight.value for flight in taken]
        results = iter(await self._results(values, contexts) if taken else ())
        made = {
            flight: outputs_of(self._step, self._targets, flight, next(results), ctx)
            for flight, ctx in zip(taken, contexts, strict=True)
        }
        return [failed.get(flight) or made[flight] for flight in flights]

    async def _results(self, values: list[Any], contexts: list[Context]) -> list[Any]:
        assert self._step.batch is not None
        arguments = (values, contexts) if self._step.batch_takes_ctx else (values,)
        results = list(await self._caller.call(self._step.batch, *arguments))
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
    if step.mode is Mode.FLATMAP:
        for number, item in enumerate(result or ()):
            add_outputs(out, topics, item, key, extended(record_id, step.name, number))
    elif step.mode is Mode.FILTER:
        if result:
            add_outputs(out, topics, flight.value, key, record_id)
    else:
        add_outputs(out, topics, result, key, record_id)
    emitted = ctx.take_emitted()
    if emitted:
        add_emitted(out, targets, step.name, emitted, key, record_id)
    return out


def work_of(
    step: BoundStep, threads: ThreadPoolExecutor | None, decoder: InputDecoder, targets: Targets
) -> RecordCalls | BatchCalls | SinkWrites:
    """The kind of work that a step asks for."""
    caller = Caller(step, threads)
    if step.mode is Mode.SINK:
        return SinkWrites(step, caller, decoder)
    if step.batch is not None:
        return BatchCalls(step, caller, decoder, targets)
    return RecordCalls(step, caller, decoder, targets)
