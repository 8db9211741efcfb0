"""The calls of one try of one record, as ``ctx.call`` makes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sage.model.record import Headers
from sage.runtime.journal.entry import CallKey, Place
from sage.runtime.journal.fingerprint import arguments_hash
from sage.spec.call_results import decode_result, encode_result, result_of
from sage.spec.direct_calls import idempotency_key

if TYPE_CHECKING:
    from sage.runtime.journal.journal import Journal


class TryTime:
    """A try's time-out, which stands still while results wait for the broker.

    Else a broker that is away for a minute would time out tries whose answers are here and paid for, until their
    records are given up.
    """

    def __init__(self) -> None:
        self._limit: asyncio.Timeout | None = None
        self._waiting = 0
        self._left = 0.0

    def begin(self, limit: asyncio.Timeout) -> None:
        """This is what limits the try."""
        self._limit = limit

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, no time of the try passes."""
        self._waiting += 1
        if self._waiting == 1:
            self._stop()
        try:
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._go_on()

    def _stop(self) -> None:
        limit = self._limit
        if limit is None or (when := limit.when()) is None:
            self._limit = None
            return
        self._left = when - asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the time is up already, or the try over
            limit.reschedule(None)

    def _go_on(self) -> None:
        if self._limit is not None:
            with suppress(RuntimeError):  # as above
                self._limit.reschedule(asyncio.get_running_loop().time() + self._left)


class JournaledCalls:
    """The ``Calls`` of one try: occurrences are counted from its beginning, so that another try finds the same ones.

    Args:
        place: where the record was first read; ``None`` for a timer.
        came: the record's headers.
        time: of the try; shared where a try has several records.
    """

    def __init__(
        self, journal: Journal, partition: int, record_id: str, place: Place | None, came: Headers, time: TryTime
    ) -> None:
        self._journal = journal
        self._partition = partition
        self._record_id = record_id
        self._place = place
        self._came = came
        self._time = time
        self._seen: Counter[tuple[str, str]] = Counter()
        self._over = False

    def end(self) -> None:
        """The try is over: calls that were left running behind it give results to nobody, and keep none."""
        self._over = True

    async def call(self, name: str, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """The result that an earlier try was given, or the function's, which the broker has before it is used.

        What the function raises is not kept: another try calls again.

        Raises:
            RecordFailure: arguments that can't be compared, or a result that would not come back.
            StageStopped: the journal is gone or takes nothing; or a kept result no longer fits.
        """
        asked = arguments_hash(args, kwargs, function)
        occurrence = self._seen[name, asked]  # counted before anything is awaited: gathered calls keep their numbers
        self._seen[name, asked] += 1
        key = CallKey(self._record_id, name, asked, occurrence)
        data = await self._found(key)
        if data is None:
            data = encode_result(await result_of(name, function, args, kwargs), function)
            await self._keep(key, data)
        return decode_result(data, function)

    async def _found(self, key: CallKey) -> bytes | None:
        result = self._journal.find(self._partition, key)
        if result is None:
            return None
        data = result.data
        with self._time.stopped():
            await self._journal.saved(result)
            return data if data is not None else await self._journal.read_again(self._partition, key, result)

    async def _keep(self, key: CallKey, data: bytes) -> None:
        if self._over:
            return
        result = self._journal.keep(self._partition, key, self._place, data, self._came)
        if result is not None:
            with self._time.stopped():
                await self._journal.saved(result)

    def idempotency_key(self, name: str) -> str:
        """The same in every try of this record."""
        return idempotency_key(f"{self._record_id}/{self._journal.step}", name)
