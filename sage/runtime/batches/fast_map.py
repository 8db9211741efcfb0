"""The fast way of a batch through plain maps: what most synchronous stages are.

A record costs a decode, the calls, an encode and a produce; all else is per batch. A record that needs more
(a failure, a null, marked bytes, a sampled trace) takes the careful way alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from sage.errors import DecodeFailure, RecordFailure
from sage.model.identity import SAGE_ID
from sage.model.partition import TopicPartition
from sage.ports import ProducerFatal, RawMessage, TransactionAbortable
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.record_work import RecordWork
from sage.runtime.concurrent.arrivals import MARK, Arrivals
from sage.runtime.steps.binding import Mode
from sage.runtime.steps.codec import BYTES_MARK, PLAIN, encode, handed_over, json_default, names_a_model, takes_plain
from sage.runtime.steps.outputs import TRACEPARENT
from sage.runtime.steps.stage_context import StageSetting


class FastMap:
    """Runs batches of one input topic through maps without context into one output topic.

    Attributes:
        done: how many records of the last batch were run, also when an error left ``run``.
        met_retry: the next record comes from the retry topic, and is not for this way.
    """

    def __init__(self, setting: StageSetting, work: RecordWork, outbox: Outbox, target: str) -> None:
        self._steps = tuple(setting.steps)
        self._work = work
        self._outbox = outbox
        self._target = target
        self._tracer = setting.tracer if setting.tracer.active else None
        self._topic = setting.stage.inputs[0].topic
        self._arrivals = Arrivals(setting.topic_ids[self._topic], setting.tracer.start_root)
        self._failed_at = 0
        self._reader_refused = False
        self._function = self._composed()
        self.done = 0
        self._reached: dict[int, int] = {}
        self.met_retry = False

    def run(self, messages: Sequence[RawMessage], is_over: Callable[[], bool]) -> None:
        """Run ``messages`` in order, until ``is_over``. Raises what the careful way raises."""
        self.met_retry = False
        self._reached = reached = {}
        done, careful, topic = 0, 0, self._topic
        function, target, produce, roots = self._function, self._target, self._outbox.produce, self._arrivals.roots
        loads, dumps, send, complete = orjson.loads, orjson.dumps, self._outbox.send, self._arrivals.completed
        sampled = self._tracer.sampled if self._tracer is not None else None
        try:
            for message in messages:
                headers, value = message.headers(), message.value()
                partition, offset = message.partition(), message.offset()
                if message.topic() != topic:  # by its topic, not its headers: others may write there, too
                    self.met_retry = True
                    break
                last = headers[-1][0] if headers else None
                known = last == SAGE_ID
                if value is None or (not known and last == MARK) or (sampled and headers and sampled(headers)):
                    self._work.run(message)
                    reached[partition] = offset
                    done, careful = done + 1, careful + 1
                    if is_over():
                        break
                    continue
                if not known:  # the id goes last, as the careful way has it
                    root = f"{roots[partition]}{offset}".encode()
                    alone = last == TRACEPARENT and len(headers) == 1  # type: ignore[arg-type]  # it has a last one
                    headers = [*headers, (SAGE_ID, root)] if alone else complete(headers, root)  # type: ignore[misc]
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
                except Exception as error:
                    self._failed(message, error, result)
                    careful += 1
                reached[partition] = offset
                done += 1
                if not done & 31 and is_over():  # a look at the clock every 32 records
                    break
        finally:
            self.done = done
            self._count(done - careful)

    def _count(self, records: int) -> None:
        """The careful way counts its own."""
        for step in self._steps:
            step.counters.read += records
            step.counters.written += records

    @property
    def reached(self) -> dict[TopicPartition, int]:
        """The offset of the last record of each partition that was run in the last batch."""
        return {TopicPartition(self._topic, number): offset for number, offset in self._reached.items()}

    def _failed(self, message: RawMessage, error: Exception, result: Any) -> None:
        """Hand a failed record to the careful way, which does not call again what has been called."""
        if isinstance(error, TransactionAbortable | ProducerFatal):
            raise error  # nothing about the record: the whole transaction is done again
        if result is _NOTHING:
            if isinstance(error, orjson.JSONDecodeError) and not _is_json(message.value()):
                self._work.run(message)  # says it again, as the decode failure that it is
                return
            at = self._failed_at
        else:  # the functions are through: what failed is their result's form, or its sending
            error, at = _form_failure(result) or error, len(self._steps) - 1
        self._work.run(message, failed=error, failed_at=at)

    def _composed(self) -> Callable[[Any], Any]:
        first, *others = [step.call.function for step in self._steps if step.call is not None]
        if not others:
            return first
        following = tuple(zip(others, map(takes_plain, [step.input_type for step in self._steps[1:]]), strict=True))

        def composed(value: Any) -> Any:
            at = 0
            try:
                value = first(value)
                for call, plain in following:
                    if not plain or type(value) not in PLAIN:
                        value = self._handed_over(value, at + 1)
                    at += 1
                    value = call(value)
                return value
            except BaseException:
                self._failed_at = at + self._reader_refused
                self._reader_refused = False
                raise

        return composed

    def _handed_over(self, value: Any, at: int) -> Any:
        """The value as step ``at`` gets it: a form that it can't have is its giver's failure, else its reader's."""
        try:
            return handed_over(value, self._steps[at].input_type)
        except DecodeFailure:
            self._reader_refused = True
            raise


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
