"""The fast way of a batch through a keyed ``process`` step: as ``fast_map``, with the key's state.

What can fail for a record (its code, its outputs' form and size, its state's form and size) comes before anyone sees
what it did to the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from sage.errors import DecodeFailure
from sage.model.identity import MAX_LENGTH, SAGE_ID, extended
from sage.model.partition import TopicPartition
from sage.model.record import Headers
from sage.ports import ProducerFatal, RawMessage, TransactionAbortable
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.record_work import RecordWork
from sage.runtime.concurrent.arrivals import MARK, Arrivals
from sage.runtime.state.stage_state import StageState
from sage.runtime.state.work import UNCHANGED, KeyedWork
from sage.runtime.steps.binding import Mode
from sage.runtime.steps.codec import BYTES_MARK, decoder, encode, takes_plain
from sage.runtime.steps.outputs import Output
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.context import Context


class FastProcess:
    """Runs batches of one input topic through one ``process`` step into one output topic.

    Attributes:
        done: how many records of the last batch were run, also when an error left ``run``.
        met_retry: the next record comes from the retry topic, and is not for this way.
    """

    def __init__(
        self, setting: StageSetting, work: RecordWork, outbox: Outbox, state: StageState, target: str
    ) -> None:  # fmt: skip
        (self._step,) = setting.steps
        call = self._step.call
        assert call is not None, f"step {self._step.name} has nothing to call"
        self._function, self._takes_ctx = call.function, call.takes_ctx
        self._context = Context(self._step.scope)
        self._work = work
        self._outbox = outbox
        self._state = state
        self._target = target
        self._tracer = setting.tracer if setting.tracer.active else None
        self._topic = setting.stage.inputs[0].topic
        self._changelog = setting.stage.changelog_topic
        self._arrivals = Arrivals(setting.topic_ids[self._topic], setting.tracer.start_root)
        wanted = self._step.input_type
        self._decode = orjson.loads if takes_plain(wanted) else decoder("json", wanted)
        self._first = f"/{self._step.name}:0".encode()
        timed = self._step.ttl is not None or self._step.on_timer is not None
        self._now = setting.clock.now_ms if timed else int  # who needs no time does not look at the clock
        self._fits = -1
        self._produce: Callable[..., None] = outbox.send
        self._written = 0
        self.done = 0
        self._reached: dict[int, int] = {}
        self.met_retry = False

    def run(self, messages: Sequence[RawMessage], is_over: Callable[[], bool]) -> None:
        """Run ``messages`` in order, until ``is_over``. Raises what the careful way raises."""
        self.met_retry = False
        self._produce = self._outbox.produce
        self._reached = reached = {}
        done = careful = self._written = 0
        decode, roots, complete, keyed = self._decode, self._arrivals.roots, self._arrivals.completed, self._keyed
        topic = self._topic
        sampled = self._tracer.sampled if self._tracer is not None else None
        try:
            for message in messages:
                headers, data, key = message.headers(), message.value(), message.key()
                partition, offset = message.partition(), message.offset()
                if message.topic() != topic:  # by its topic, not its headers: others may write there, too
                    self.met_retry = True
                    break
                last, record_id = headers[-1] if headers else (None, None)
                if data is None or key is None or last == MARK or (sampled and headers and sampled(headers)):
                    self._work.run(message)
                    careful += 1
                else:
                    if last != SAGE_ID or record_id is None:
                        headers = complete(headers, f"{roots[partition]}{offset}".encode())
                    try:
                        value = decode(data)
                    except (orjson.JSONDecodeError, DecodeFailure):
                        self._work.run(message)  # meets it again and deals with it
                        careful += 1
                    else:
                        careful += not keyed(message, key, partition, value, headers)
                reached[partition] = offset
                done += 1
                if not done & 15 and is_over():  # a look at the clock every 16 records
                    break
        finally:
            self.done = done
            self._step.counters.read += done - careful
            self._step.counters.written += self._written

    @property
    def reached(self) -> dict[TopicPartition, int]:
        """The offset of the last record of each partition that was run in the last batch."""
        return {TopicPartition(self._topic, number): offset for number, offset in self._reached.items()}

    def _keyed(self, message: RawMessage, key: bytes, partition: int, value: Any, headers: Any) -> bool:
        """Run one record with its key's state; false where the careful way had to deal with its failure."""
        try:
            table = self._state.table(partition)
            work = KeyedWork(table, key, table.read(key), self._now())
            own = headers[-1][1]
            ctx = self._context.bind(message, own.decode(errors="replace")).attach(keyed=work)
            made = self._function(value, ctx) if self._takes_ctx else self._function(value)
            # Encoded as they are given: a generator may give the same object, changed, again.
            outputs = [self._output(item, number, headers, own) for number, item in enumerate(made or ())]
            if ctx.has_emitted:
                self._work.finish_keyed(message, [self._named(key, *output) for output in outputs], ctx, work)
                self._written += len(outputs)
                return True
            kept = table.outcome(work, self._check)
            if outputs:
                self._send(message, key, outputs)
        except (TransactionAbortable, ProducerFatal):
            raise  # nothing about the record: the whole transaction is done again
        except Exception as error:
            self._work.run(message, failed=error)
            return False
        if kept is not UNCHANGED:
            table.put_and_prepare(work, kept)
        self._written += len(outputs)
        return True

    def _send(self, message: RawMessage, key: bytes, outputs: list[tuple[bytes | None, Headers]]) -> None:
        """Produce all outputs or none: several are measured before the first of them."""
        kind, milliseconds = message.timestamp()
        timestamp = milliseconds if kind else None
        if len(outputs) == 1:
            ((data, heads),) = outputs
            try:
                self._produce(self._target, data, key, heads, timestamp)
            except BufferError:
                self._outbox.send(self._target, data, key, heads, timestamp)
            return
        for data, heads in outputs:
            self._outbox.check_size(self._target, data, key, heads)
        for data, heads in outputs:
            self._outbox.send(self._target, data, key, heads, timestamp)

    def _output(self, item: Any, number: int, headers: Headers, own: bytes) -> tuple[bytes | None, Headers]:
        item_id = own + self._first
        if number or len(item_id) > MAX_LENGTH or not own.isascii():
            item_id = extended(own.decode(errors="replace"), self._step.name, number).encode()
        if type(item) is bytes:
            return item, [*headers[:-1], (SAGE_ID, item_id), BYTES_MARK]
        return encode(item), [*headers[:-1], (SAGE_ID, item_id)]

    def _named(self, key: bytes, data: bytes | None, headers: Headers) -> Output:
        """An output as the careful way has it."""
        marked = headers[-1] == BYTES_MARK
        return Output(self._target, data, key, (headers[-1 - marked][1] or b"").decode(), marked)

    def _check(self, key: bytes, value: bytes | None) -> None:
        """Raises RecordTooLarge for a change that the changelog would not take. What is no larger than one that it
        would take needs no look."""
        size = len(key) + len(value or b"")
        if size > self._fits and self._state.check_size is not None:
            self._state.check_size(self._changelog, value, key, None)
            self._fits = size


def fast_process(setting: StageSetting, work: RecordWork, outbox: Outbox, state: StageState) -> FastProcess | None:
    """A fast way for this stage, or ``None`` where it needs more than one step between two JSON topics."""
    stage = setting.stage
    main = setting.targets().main(setting.steps[0].name)
    single = len(stage.inputs) == 1 and stage.inputs[0].format == "json" and stage.inputs[0].merges is None
    if len(setting.steps) != 1 or setting.steps[0].mode is not Mode.PROCESS or not single:
        return None
    if stage.inputs[0].max_hops is not None or len(main) != 1 or main[0].format != "json":
        return None
    return FastProcess(setting, work, outbox, state, main[0].topic)
