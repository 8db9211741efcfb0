"""A stage's fused steps as one call per record: the synchronous path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import CoroutineType
from typing import Any

from sage.errors import DecodeFailure, RecordFailure
from sage.model.identity import extended
from sage.model.keys import encode_key
from sage.ports import RawMessage, Span
from sage.runtime.steps.binding import BoundStep, Call, Mode
from sage.runtime.steps.codec import handed_over, is_marked, unawaited
from sage.runtime.steps.outputs import Output, Targets, add_outputs
from sage.spec.context import Context, KeyedAccess
from sage.spec.detached import detached


class Chain:
    """Runs a value through fused steps and collects what comes out.

    Outputs are collected per record and produced only when the whole chain has succeeded, so that a record
    that fails in its third output leaves none behind. ``current`` is the step at work, for the failure's name;
    ``trace`` makes a fused step's span where the record is sampled.
    """

    def __init__(self, steps: Sequence[BoundStep], targets: Targets) -> None:
        self._steps = tuple(steps)
        self._targets = targets
        self._contexts = tuple(Context(step.scope) for step in steps)
        self.current = self._steps[0]
        self.trace: Callable[[str], Span] | None = None
        self.keyed: KeyedAccess | None = None
        self._reads: list[BoundStep] = []
        self._writes: list[tuple[BoundStep, int]] = []

    def restart(self) -> None:
        """Nothing has run yet: a failure now is the first step's, as with bytes that can't be decoded."""
        self.current = self._steps[0]
        self._reads.clear()
        self._writes.clear()

    def count(self, *, failed: bool) -> None:
        """Count the last run: once per record, however many tries it took."""
        for step in self._reads:
            step.counters.read += 1
        if failed:
            return
        for step, number in self._writes:
            step.counters.written += number

    def stand_at(self, index: int) -> None:
        """A first try made elsewhere failed in step ``index``."""
        self.restart()
        self._reads.extend(self._steps[: index + 1])
        self.current = self._steps[index]

    def run(self, value: Any, message: RawMessage, record_id: str) -> list[Output]:
        """All outputs of one record. Raises whatever a step raises; ``current`` names it."""
        out: list[Output] = []
        self._go(0, value, message.key(), message, record_id, out)
        return out

    def run_timer(self, name: str, message: RawMessage, record_id: str) -> list[Output]:
        """All outputs of one timer of a ``process`` step. Raises what its code raises."""
        (step,) = self._steps
        assert step.on_timer is not None, f"step {step.name} has no on_timer"
        ctx = self._contexts[0].bind(message, record_id).attach(keyed=self.keyed)
        out: list[Output] = []
        written = 0
        for written, item in enumerate(step.on_timer(name, ctx) or (), 1):
            item_id = extended(record_id, step.name, written - 1)
            add_outputs(out, self._targets.main(step.name), item, message.key(), item_id)
        self._emitted(step, ctx, message.key(), record_id, out)
        self._writes.append((step, written))
        return out

    def emitted(self, key: bytes | None, ctx: Context) -> list[Output]:
        """What a ``process`` step that was run elsewhere with ``ctx`` gave to its branches."""
        (step,) = self._steps
        self.current = step
        out: list[Output] = []
        self._emitted(step, ctx, key, ctx.record_id, out)
        return out

    def _go(
        self, start: int, value: Any, key: bytes | None, message: RawMessage, record_id: str, out: list[Output]
    ) -> None:
        for index in range(start, len(self._steps)):
            step = self._steps[index]
            if index:
                value = self._hand_over(value, index)
            self.current = step
            self._reads.append(step)
            ctx = self._contexts[index].bind(message, record_id)
            if self.keyed is not None:
                ctx.attach(keyed=self.keyed)
            if step.mode in (Mode.FLATMAP, Mode.PROCESS):
                self._fan_out(index, step, ctx, value, key, message, record_id, out)
                return
            if step.mode is Mode.ROUTE:
                self._route(step, ctx, value, key, record_id, out)
                return
            if step.mode is Mode.COPY:
                self._writes.append((step, 1))
                marked = is_marked(message.headers())
                targets = self._targets.main(step.name)
                out += [Output(target.topic, message.value(), key, record_id, marked) for target in targets]
                return
            result = self._call(step, value, ctx)
            if type(result) is CoroutineType:
                raise unawaited(result, step.name)
            if ctx.diverted:
                self._emitted(step, ctx, key, record_id, out)
                self._writes.append((step, 1))
                return
            if step.mode is Mode.FILTER:
                if not result:
                    return
            elif step.mode is Mode.KEY_BY:
                key = encode_key(result)
            else:
                value = result
            self._emitted(step, ctx, key, record_id, out)
            self._writes.append((step, 1))
        add_outputs(out, self._targets.main(self._steps[-1].name), value, key, record_id)

    def _hand_over(self, value: Any, index: int) -> Any:
        """The value as step ``index`` sees it: a form it can't have is its giver's failure, else its reader's."""
        self.current = self._steps[index - 1]
        try:
            return handed_over(value, self._steps[index].input_type)
        except DecodeFailure:
            self.current = self._steps[index]
            raise

    def _fan_out(
        self, index: int, step: BoundStep, ctx: Context, value: Any, key: bytes | None,
        message: RawMessage, record_id: str, out: list[Output],
    ) -> None:  # fmt: skip
        made: list[Output] = []
        written = 0
        # Each goes its way before the next is asked for: a generator may give the same object, changed, again.
        for written, item in enumerate(_several(self._call(step, value, ctx), step.name), 1):
            item_id = extended(record_id, step.name, written - 1)
            if index + 1 == len(self._steps):
                add_outputs(made, self._targets.main(step.name), item, key, item_id)
            else:
                self._go(index + 1, detached(item), key, message, item_id, made)
                self.current = step
        self._emitted(step, ctx, key, record_id, out)
        self._writes.append((step, written))
        out += made

    def _route(
        self, step: BoundStep, ctx: Context, value: Any, key: bytes | None, record_id: str, out: list[Output]
    ) -> None:
        branch = choose_branch(step, value, ctx)
        add_outputs(out, self._targets.branch(step.name, branch), value, key, record_id)
        self._writes.append((step, 1))

    def _call(self, step: BoundStep, value: Any, ctx: Context) -> Any:
        call = step.call
        assert call is not None, f"step {step.name} has nothing to call"
        if self.trace is not None and len(self._steps) > 1:
            return self._call_in_span(call, step, value, ctx, self.trace(step.name))
        return call.function(value, ctx) if call.takes_ctx else call.function(value)

    @staticmethod
    def _call_in_span(call: Call, step: BoundStep, value: Any, ctx: Context, span: Span) -> Any:
        """A fused step of a sampled record; a generator's work is done inside its span."""
        try:
            result = call(value, ctx)
            several = step.mode in (Mode.FLATMAP, Mode.PROCESS)
            return [detached(item) for item in _several(result, step.name)] if several else result
        except BaseException as error:
            span.fail(error)
            raise
        finally:
            span.end()

    def _emitted(self, step: BoundStep, ctx: Context, key: bytes | None, record_id: str, out: list[Output]) -> None:
        emitted = ctx.take_emitted()
        if emitted:
            add_emitted(out, self._targets, step.name, emitted, key, record_id)


def add_emitted(
    out: list[Output],
    targets: Targets,
    step: str,
    emitted: Sequence[tuple[str, Any]],
    key: bytes | None,
    record_id: str,
) -> None:
    """Add what ``ctx.emit`` was given; each gets an id of its own."""
    for number, (branch, value) in enumerate(emitted):
        add_outputs(out, targets.branch(step, branch), value, key, extended(record_id, f"{step}-{branch}", number))


def choose_branch(step: BoundStep, value: Any, ctx: Context) -> str:
    """The first branch whose predicate takes the value, else the default.

    Raises:
        RecordFailure: no predicate takes it and the route has no default.
    """
    for name, predicate in step.predicates:
        taken = predicate(value, ctx)
        if type(taken) is CoroutineType:
            raise unawaited(taken, name)
        if taken:
            return name
    return default_branch(step)


def default_branch(step: BoundStep) -> str:
    """Where a value goes that no predicate takes. Raises RecordFailure where there is no such branch."""
    if step.default_branch is None:
        raise RecordFailure(f"no branch takes this record: {', '.join(name for name, _ in step.predicates)}")
    return step.default_branch


def _several(result: Any, name: str) -> Iterable[Any]:
    """What a step gave that may give more than one. Raises RecordFailure for a promise."""
    if type(result) is CoroutineType:
        raise unawaited(result, name)
    items: Iterable[Any] = result or ()
    return items
