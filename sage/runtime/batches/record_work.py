"""One record through a synchronous chain, with retries, dead letters and spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sage.errors import RecordTooLarge
from sage.model.record import Headers
from sage.ports import ProducerFatal, RawMessage, Span, TransactionAbortable
from sage.runtime.batches.chain import Chain
from sage.runtime.batches.outbox import Outbox
from sage.runtime.retries.parking import TryLater
from sage.runtime.steps.binding import BoundStep, Mode
from sage.runtime.steps.input_decoder import InputDecoder
from sage.runtime.steps.outputs import Output, headers_of, needs_trace, timestamp_of
from sage.runtime.steps.stage_context import Identity, StageSetting

if TYPE_CHECKING:
    from sage.runtime.state.stage_state import Fired, Staged, StageState
    from sage.runtime.state.work import KeyedWork
    from sage.spec.context import Context


class RecordWork:
    """The careful way of one record: everything that the fast way leaves out."""

    def __init__(self, setting: StageSetting, outbox: Outbox, state: StageState | None = None) -> None:
        self._state = state
        self._setting = setting
        self._outbox = outbox
        self._identity = Identity(setting.topic_ids, setting.merges())
        self._chain = Chain(setting.steps, setting.targets())
        first = setting.steps[0]
        self._decoder = InputDecoder(setting.stage.inputs, first.input_type, copies=first.mode is Mode.COPY)
        self._recovery = {step.name: setting.recovery(step) for step in setting.steps}

    def run(
        self, message: RawMessage, *, attempts: int = 0, failed: Exception | None = None, failed_at: int = 0
    ) -> None:
        """Try ``message``: it has outputs, is dead, or is skipped when this returns.

        Args:
            message: the record, as the stage sees it.
            attempts: tries so far.
            failed, failed_at: the error of a try made elsewhere just now, and the number of its step.

        Raises:
            TryLater: another try may help.
            SageError: the stage must stop.
        """
        if failed is not None:
            self._chain.stand_at(failed_at)
        tracer = self._setting.tracer
        if not tracer.active or not tracer.sampled(message.headers() or ()):
            self._attempt(message, attempts, failed, None)
            return
        stage = self._setting.stage
        span = tracer.process(message.topic(), message, group=stage.group, step=stage.name)
        self._chain.trace = lambda name: tracer.step(name, span)
        try:
            self._attempt(message, attempts, failed, span)
        except BaseException as error:
            span.fail(error)
            raise
        finally:
            self._chain.trace = None
            span.end()

    def fire(self, fired: Fired, give_up: Callable[[], object] | None = None) -> None:
        """Run a timer that is due; one that fails for good is a dead letter without a value.

        Args:
            fired: the timer.
            give_up: sends its letter, in place of running it.

        Raises:
            SageError: the stage must stop.
        """
        assert self._state is not None, "timers are state"
        if not self._state.is_set(fired):  # moved or cancelled since it was found due
            self._state.timer_done(fired)
            return
        if give_up is not None:
            give_up()
            staged: Staged | None = self._without_timer(self._state, fired)
        else:
            staged = self._run_timer(self._state, fired)
        if staged is not None:
            self._state.prepare([staged])
            self._state.timer_done(fired)

    @staticmethod
    def _without_timer(state: StageState, fired: Fired) -> Staged:
        """Its key as it was, with the timer no longer set."""
        return state.finish(fired.partition.partition, state.begin_timer(fired))

    def _run_timer(self, state: StageState, fired: Fired) -> Staged | None:
        """What it did to its key; ``None`` where it is to be tried again."""
        self._chain.restart()
        step = self._chain.current
        attempts = state.timer_tries(fired) + 1
        work = self._chain.keyed = state.begin_timer(fired)
        try:
            outputs = self._chain.run_timer(fired.due.name, fired.message, fired.record_id)
            staged = self._finish_work(state, fired.message, outputs, work, None)
        except (TransactionAbortable, ProducerFatal):
            raise
        except Exception as error:
            decision = self._recovery[step.name].decide(error, fired.message, attempts)
            if decision.action == "retry":
                state.timer_again(fired, decision.delay)
                return None
            if decision.action == "bury":
                self.bury(fired.message, error, step, attempts)
            return self._without_timer(state, fired)  # what the failed try changed is dropped
        self._chain.count(failed=False)
        return staged

    def refuse(self, message: RawMessage, error: RecordTooLarge) -> None:
        """The broker refused an output of ``message`` for its size: what the last step's ``on_error`` says."""
        step = self._setting.steps[-1]
        if self._recovery[step.name].decide(error, message, 1).action == "bury":
            self.bury(message, error, step, 1)

    def send_letter(self, message: RawMessage, error: RecordTooLarge, *, shortened: bool) -> None:
        """Send the letter that ``refuse`` sent once more, as the broker refused it; ``shortened``: without its stack
        trace. Nothing is decided or counted again."""
        letter = self._setting.letter(message, error, self._setting.steps[-1], 1)
        self._outbox.bury(letter.shortened() if shortened else letter)

    def bury(self, message: RawMessage, error: Exception, step: BoundStep, attempts: int) -> None:
        """Send ``message`` to the dead letters, or to the step's ``error`` branch, with its reason."""
        self._outbox.bury(self._setting.letter(message, error, step, attempts))

    def _attempt(self, message: RawMessage, attempts: int, failed: Exception | None, span: Span | None) -> None:
        error = failed or self._try(message, span)
        if error is None:
            self._chain.count(failed=False)
            return
        step = self._chain.current
        if span is not None:
            span.fail(error)
        decision = self._recovery[step.name].decide(error, message, attempts + 1)
        if decision.action == "retry":
            raise TryLater(decision.delay, attempts + 1)
        self._chain.count(failed=True)
        if decision.action == "bury":
            self.bury(message, error, step, attempts + 1)

    def _try(self, message: RawMessage, span: Span | None) -> Exception | None:
        self._chain.restart()
        try:
            record_id = self._identity.of(message)
            value = self._decoder.decode(message)
            if self._state is None:
                self._send(message, self._chain.run(value, message, record_id), span)
            else:
                self._keyed(self._state, value, message, record_id, span)
        except (TransactionAbortable, ProducerFatal):
            raise  # nothing about the record: the whole transaction is done again
        except Exception as error:
            return error  # classified by the caller, which knows the step and the record
        return None

    def _keyed(self, state: StageState, value: Any, message: RawMessage, record_id: str, span: Span | None) -> None:
        """Run with the key's state; what was done to it counts only if the outputs were produced."""
        work = self._chain.keyed = state.begin(message.partition(), message.key())
        self._finish_keyed(state, message, self._chain.run(value, message, record_id), work, span)

    def finish_keyed(self, message: RawMessage, outputs: list[Output], ctx: Context, work: KeyedWork) -> None:
        """The rest of a record whose ``process`` step was run elsewhere just now, and emitted to branches too."""
        assert self._state is not None, "a process step has state"
        emitted = self._chain.emitted(message.key(), ctx)
        self._finish_keyed(self._state, message, emitted + outputs, work, None)

    def _finish_keyed(
        self, state: StageState, message: RawMessage, outputs: Sequence[Output], work: KeyedWork, span: Span | None
    ) -> None:
        state.prepare([self._finish_work(state, message, outputs, work, span)])

    def _finish_work(
        self, state: StageState, message: RawMessage, outputs: Sequence[Output], work: KeyedWork, span: Span | None
    ) -> Staged:
        # All that can fail for the record comes before its change is seen by the next one, and before it is sent.
        came = message.headers()
        self._refuse_oversize(outputs, came, self._setting.tracer.start_root() if needs_trace(came) else ())
        staged = state.finish(message.partition(), work)
        try:
            self._send(message, outputs, span)
        except BaseException:
            staged.withdraw()
            raise
        return staged

    def _send(self, message: RawMessage, outputs: Sequence[Output], span: Span | None) -> None:
        tracer = self._setting.tracer
        came, timestamp = message.headers(), timestamp_of(message)
        root = tracer.start_root() if outputs and needs_trace(came) else ()
        if len(outputs) > 1:
            self._refuse_oversize(outputs, came, root)
        for output in outputs:
            if span is None:
                self._outbox.send(output.topic, output.value, output.key, headers_of(came, output, root), timestamp)
                continue
            sending, trace = tracer.send(output.topic, span)
            try:
                self._outbox.send(output.topic, output.value, output.key, headers_of(came, output, trace), timestamp)
            finally:
                sending.end()

    def _refuse_oversize(
        self, outputs: Sequence[Output], came: Headers | None, root: Sequence[tuple[str, bytes]]
    ) -> None:
        """Before the first of several outputs is produced: all or none, or its record would be half dead."""
        for output in outputs:
            self._outbox.check_size(output.topic, output.value, output.key, headers_of(came, output, root))
