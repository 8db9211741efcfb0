"""One record through a synchronous chain, with retries, dead letters and spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sage.errors import RecordTooLarge
from sage.ports import RawMessage, Span
from sage.runtime.binding import BoundStep, Mode
from sage.runtime.chain import Chain
from sage.runtime.dead_letters import DeadLetter, dead_letter
from sage.runtime.input_decoder import InputDecoder
from sage.runtime.outbox import Outbox
from sage.runtime.outputs import Output, headers_of, needs_trace, timestamp_of
from sage.runtime.stage_context import Identity, StageSetting

Wait = Callable[[float], None]


class RecordWork:
    """The careful way of one record: everything that the fast way leaves out."""

    def __init__(self, setting: StageSetting, outbox: Outbox) -> None:
        self._setting = setting
        self._outbox = outbox
        self._identity = Identity(setting.topic_ids, setting.merges())
        self._chain = Chain(setting.steps, setting.targets())
        first = setting.steps[0]
        self._decoder = InputDecoder(setting.stage.inputs, first.input_type, copies=first.mode is Mode.COPY)
        self._recovery = {step.name: setting.recovery(step) for step in setting.steps}

    def run(self, message: RawMessage, wait: Wait, *, failed: Exception | None = None, failed_at: int = 0) -> None:
        """Run ``message`` until it has outputs, is dead, or is skipped.

        Args:
            message: the record.
            wait: sleeps before another try; may raise to give up while stopping.
            failed, failed_at: the error of a first try made elsewhere, and the number of its step.
        """
        if failed is not None:
            self._chain.stand_at(failed_at)
        tracer = self._setting.tracer
        if not tracer.active or not tracer.sampled(message.headers() or ()):
            self._attempts(message, wait, failed, None)
            return
        stage = self._setting.stage
        span = tracer.process(message.topic(), message, group=stage.group, step=stage.name)
        self._chain.trace = lambda name: tracer.step(name, span)
        try:
            self._attempts(message, wait, failed, span)
        except BaseException as error:
            span.fail(error)
            raise
        finally:
            self._chain.trace = None
            span.end()

    def refuse(self, message: RawMessage, error: RecordTooLarge, *, shortened: bool = False) -> None:
        """The broker refused an output of ``message`` for its size: what the last step's ``on_error`` says.

        ``shortened``: its dead letter was refused as well and goes without its stack trace.
        """
        step = self._setting.steps[-1]
        if shortened:
            self._outbox.bury(self._letter(message, error, step, 1).shortened())
        elif self._recovery[step.name].decide(error, message, 1).action == "dlq":
            self.bury(message, error, step, 1)

    def bury(self, message: RawMessage, error: Exception, step: BoundStep, attempts: int) -> None:
        """Send ``message`` to the dead letters with its reason."""
        self._outbox.bury(self._letter(message, error, step, attempts))

    def _letter(self, message: RawMessage, error: Exception, step: BoundStep, attempts: int) -> DeadLetter:
        setting = self._setting
        return dead_letter(
            message, error, topology=setting.plan.name, step=step.name, code=step.code, worker=setting.worker,
            attempts=attempts,
        )  # fmt: skip

    def _attempts(self, message: RawMessage, wait: Wait, failed: Exception | None, span: Span | None) -> None:
        attempts = 0
        while True:
            attempts += 1
            error = failed or self._try(message, span)
            if error is None:
                self._chain.count(failed=False)
                return
            failed = None
            step = self._chain.current
            decision = self._recovery[step.name].decide(error, message, attempts)
            if span is not None:
                span.fail(error)
            if decision.action == "retry":
                wait(decision.delay)
                continue
            self._chain.count(failed=True)
            if decision.action == "dlq":
                self.bury(message, error, step, attempts)
            return

    def _try(self, message: RawMessage, span: Span | None) -> Exception | None:
        self._chain.restart()
        try:
            record_id = self._identity.of(message)
            value = self._decoder.decode(message)
            self._send(message, self._chain.run(value, message, record_id), span)
        except Exception as error:
            return error  # classified by the caller, which knows the step and the record
        return None

    def _send(self, message: RawMessage, outputs: Sequence[Output], span: Span | None) -> None:
        tracer = self._setting.tracer
        came, timestamp = message.headers(), timestamp_of(message)
        root = tracer.start_root() if outputs and needs_trace(came) else ()
        for output in outputs:
            if span is None:
                self._outbox.send(output.topic, output.value, output.key, headers_of(came, output, root), timestamp)
                continue
            sending, trace = tracer.send(output.topic, span)
            try:
                self._outbox.send(output.topic, output.value, output.key, headers_of(came, output, trace), timestamp)
            finally:
                sending.end()
