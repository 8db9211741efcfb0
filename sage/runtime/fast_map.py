"""The fast way of a batch through plain maps: what most synchronous stages are.

A record costs a decode, the calls, an encode and a produce; all else is per batch. A record that needs more
(a failure, a null, marked bytes, a sampled trace) takes the careful way alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from sage.errors import DecodeFailure, RecordFailure
from sage.model.identity import SAGE_ID, topic_root
from sage.ports import RawMessage
from sage.runtime.binding import Mode
from sage.runtime.codec import BYTES_MARK, encode, handed_over, json_default, names_a_model
from sage.runtime.outbox import Outbox
from sage.runtime.outputs import needs_trace, record_id_of
from sage.runtime.record_work import RecordWork, Wait
from sage.runtime.stage_context import StageSetting

_MARK = BYTES_MARK[0]
_OWN = frozenset({SAGE_ID, _MARK})


class FastMap:
    """Runs batches of one input topic through maps without context into one output topic.

    ``done`` is how many records of the last batch were run, also when an error left ``run``.
    """

    def __init__(self, setting: StageSetting, work: RecordWork, outbox: Outbox, target: str) -> None:
        self._steps = tuple(setting.steps)
        self._work = work
        self._outbox = outbox
        self._target = target
        self._tracer = setting.tracer if setting.tracer.active else None
        self._start_root = setting.tracer.start_root
        self._topic_id = setting.topic_ids[setting.stage.inputs[0].topic].encode()
        self._failed_at = 0
        self._function = self._composed()
        self.done = 0

    def run(self, messages: Sequence[RawMessage], wait: Wait, is_over: Callable[[], bool]) -> None:
        """Run ``messages`` in order, until ``is_over``. Raises what the careful way raises."""
        done = fast = 0
        function, target, produce = self._function, self._target, self._outbox.produce
        loads, dumps, send, identified = orjson.loads, orjson.dumps, self._outbox.send, self._identified
        sampled = self._tracer.sampled if self._tracer is not None else None
        try:
            for message in messages:
                headers = message.headers()
                value = message.value()
                last = headers[-1][0] if headers else None
                if value is None or last == _MARK or (sampled is not None and headers and sampled(headers)):
                    self._work.run(message, wait)
                    done += 1
                    if is_over():
                        break
                    continue
                if last != SAGE_ID:
                    headers = identified(message, headers or [])
                result: Any = _NOTHING
                try:
                    result = function(loads(value))
                    if result is None or type(result) is bytes:
                        data, headers = result, headers if result is None else [*(headers or ()), BYTES_MARK]
                    else:
                        data = dumps(result, json_default)
                    kind, timestamp = message.timestamp()
                    try:
                        produce(target, data, message.key(), headers, timestamp if kind else None)
                    except BufferError:
                        send(target, data, message.key(), headers, timestamp if kind else None)
                    fast += 1
                except Exception as error:
                    self._failed(message, error, result, wait)
                done += 1
                if not done & 31 and is_over():  # a look at the clock every 32 records
                    break
        finally:
            self.done = done
            for step in self._steps:
                step.counters.read += fast
                step.counters.written += fast

    def _identified(self, message: RawMessage, headers: list[Any]) -> list[Any]:
        """The headers with the record's id last, as the careful way leaves them."""
        traced = False
        for name, _ in headers:
            if name in _OWN:  # an id that is not last, or a mark: rare, so in full
                return self._moved_last(message, headers)
            if name == "traceparent":
                traced = True
        root = b"%b:%d:%d" % (self._topic_id, message.partition(), message.offset())
        return [*headers, (SAGE_ID, root)] if traced else [*headers, *self._start_root(), (SAGE_ID, root)]

    def _moved_last(self, message: RawMessage, headers: list[Any]) -> list[Any]:
        root = topic_root(self._topic_id.decode(), message.partition(), message.offset())
        record_id = record_id_of(headers) or root
        kept = [pair for pair in headers if pair[0] not in _OWN]
        if needs_trace(headers):
            kept += self._start_root()
        return [*kept, (SAGE_ID, record_id.encode())]

    def _failed(self, message: RawMessage, error: Exception, result: Any, wait: Wait) -> None:
        """Hand a failed record to the careful way, which does not call again what has been called."""
        if result is _NOTHING:
            if isinstance(error, orjson.JSONDecodeError) and not _is_json(message.value()):
                self._work.run(message, wait)  # says it again, as the decode failure that it is
                return
            at = self._failed_at
        else:  # the functions are through: what failed is their result's form, or its sending
            error, at = _form_failure(result) or error, len(self._steps) - 1
        self._work.run(message, wait, failed=error, failed_at=at)

    def _composed(self) -> Callable[[Any], Any]:
        calls = [step.call.function for step in self._steps if step.call is not None]
        if len(calls) == 1:
            return calls[0]
        pairs = [(call, step.input_type) for call, step in zip(calls, self._steps, strict=True)]

        def composed(value: Any) -> Any:
            at, handing = 0, False
            try:
                for call, wanted in pairs:
                    if at:
                        handing = True
                        value = handed_over(value, wanted)
                        handing = False
                    value = call(value)
                    at += 1
            except BaseException as error:
                # A form that a value can't have is its giver's failure; one that its reader can't take, the reader's.
                self._failed_at = at - 1 if handing and not isinstance(error, DecodeFailure) else at
                raise
            return value

        return composed


_NOTHING: Any = object()


def _is_json(data: bytes | None) -> bool:
    try:
        orjson.loads(data or b"")
    except orjson.JSONDecodeError:
        return False
    return True


def _form_failure(result: Any) -> RecordFailure | None:
    """Why ``result`` has no form on a topic, if it has none."""
    try:
        encode(result)
    except RecordFailure as failure:
        return failure
    return None


def fast_map(setting: StageSetting, work: RecordWork, outbox: Outbox) -> FastMap | None:
    """A fast way for this stage, or ``None`` where it needs more than plain maps."""
    stage = setting.stage
    plain = all(step.mode is Mode.MAP and step.call is not None and not step.call.takes_ctx for step in setting.steps)
    single = len(stage.inputs) == 1 and stage.inputs[0].format == "json" and stage.inputs[0].merges is None
    targets = setting.targets().main(setting.steps[-1].name)
    if not (plain and single and stage.steps and len(targets) == 1 and len(stage.outputs) == 1):
        return None
    if targets[0].format != "json":
        return None
    if names_a_model(setting.steps[0].input_type):
        return None
    return FastMap(setting, work, outbox, targets[0].topic)
