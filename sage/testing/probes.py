"""What a test puts around the code of steps: faults on demand, and a copy of what sinks were given."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sage.errors import InvalidTopology
from sage.model.record import Record
from sage.runtime.steps.binding import BoundStep
from sage.spec.component import Sink
from sage.testing.crash import Crash


class Probes:
    """Lives as long as the driver, so that what sinks took survives a crash of the actors, as it would outside.

    Args:
        kill: cuts the process off from the broker, for a ``Crash`` in a step's code.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self.written: dict[str, list[Record[Any]]] = {}
        self._faults: dict[str, deque[BaseException]] = {}

    def attach(self, step: BoundStep) -> None:
        """Go between the runtime and the code of a step that was just bound."""
        faults = self._faults.setdefault(step.name, deque())
        if isinstance(step.component, Sink):
            self._watch(step.name, step.component, faults)
        if step.call is not None:
            step.call = replace(step.call, function=self._probed(step.call.function, faults))
        if step.on_timer is not None:
            step.on_timer = replace(step.on_timer, function=self._probed(step.on_timer.function, faults))
        if step.batch is not None:
            step.batch = self._probed(step.batch, faults)
        step.predicates = tuple(
            (branch, replace(predicate, function=self._probed(predicate.function, faults)))
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
            with self._deadly():
                after = _strike(faults)
                result = write(records)
                if inspect.isawaitable(result):
                    await result
                written.extend(records)
                _then(after)

        sink.write = watched  # type: ignore[method-assign]  # on this instance only

    def _probed(self, function: Callable[..., Any], faults: deque[BaseException]) -> Callable[..., Any]:
        """``function``, which raises first what is planned; what kind of function it is does not change."""
        if inspect.isasyncgenfunction(function):

            async def streamed(*arguments: Any) -> AsyncIterator[Any]:
                with self._deadly():
                    after = _strike(faults)
                    async for value in function(*arguments):
                        yield value
                    _then(after)

            return streamed
        if inspect.iscoroutinefunction(function):

            async def awaited(*arguments: Any) -> Any:
                with self._deadly():
                    after = _strike(faults)
                    result = await function(*arguments)
                    _then(after)
                return result

            return awaited

        def called(*arguments: Any) -> Any:
            with self._deadly():
                after = _strike(faults)
                result = function(*arguments)
                if inspect.isgenerator(result):
                    return self._generated(result, after)
                _then(after)
            return result

        return called

    def _generated(self, values: Iterator[Any], after: Crash | None) -> Iterator[Any]:
        with self._deadly():
            yield from values
            _then(after)

    @contextmanager
    def _deadly(self) -> Iterator[None]:
        """A crash inside is the process's death from this moment on, whatever catches it further out."""
        try:
            yield
        except Crash:
            self._kill()
            raise


def _strike(faults: deque[BaseException]) -> Crash | None:
    """Raise what is planned; a crash that is to come after the call is given back."""
    if not faults:
        return None
    fault = faults.popleft()
    if isinstance(fault, Crash) and fault.after:
        return fault
    raise fault


def _then(after: Crash | None) -> None:
    if after is not None:
        raise after
