"""What a test puts around the code of steps: faults on demand, and a copy of what sinks were given."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sage.errors import InvalidTopology
from sage.model.record import Record
from sage.runtime.binding import BoundStep
from sage.spec.component import Sink


class Probes:
    """Lives as long as the driver, so that what sinks took survives a crash of the actors, as it would outside."""

    def __init__(self) -> None:
        self.written: dict[str, list[Record[Any]]] = {}
        self._faults: dict[str, deque[BaseException]] = {}

    def attach(self, step: BoundStep) -> None:
        """Go between the runtime and the code of a step that was just bound."""
        faults = self._faults.setdefault(step.name, deque())
        if isinstance(step.component, Sink):
            self._watch(step.name, step.component, faults)
        if step.call is not None:
            step.call = replace(step.call, function=_failing(step.call.function, faults))
        if step.batch is not None:
            step.batch = _failing(step.batch, faults)
        step.predicates = tuple(
            (branch, replace(predicate, function=_failing(predicate.function, faults)))
            for branch, predicate in step.predicates
        )

    def fail_next(self, step: str, error: BaseException, times: int) -> None:
        """Have the next ``times`` calls of a step raise.

        Raises:
            InvalidTopology: the step has no code of its own.
        """
        if step not in self._faults:
            raise InvalidTopology(f"step {step!r} has no code that could fail; name a step that has")
        self._faults[step].extend([error] * times)

    def _watch(self, name: str, sink: Sink[Any], faults: deque[BaseException]) -> None:
        written, write = self.written.setdefault(name, []), sink.write

        async def watched(records: Sequence[Record[Any]]) -> None:
            if faults:
                raise faults.popleft()
            result = write(records)
            if inspect.isawaitable(result):
                await result
            written.extend(records)

        sink.write = watched  # type: ignore[method-assign]  # on this instance only


def _failing(function: Callable[..., Any], faults: deque[BaseException]) -> Callable[..., Any]:
    """``function``, which raises first what is planned; a coroutine function stays one."""
    if inspect.iscoroutinefunction(function):

        async def awaited(*arguments: Any) -> Any:
            if faults:
                raise faults.popleft()
            return await function(*arguments)

        return awaited

    def called(*arguments: Any) -> Any:
        if faults:
            raise faults.popleft()
        return function(*arguments)

    return called
