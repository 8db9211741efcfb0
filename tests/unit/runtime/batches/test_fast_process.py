"""The fast way of a keyed step, against the careful one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sage.graph.stream import DataStream, KeyedStream
from sage.model.identity import SAGE_ID
from sage.model.partition import TopicPartition
from sage.ports import Commit
from sage.runtime.batches.fast_process import FastProcess
from sage.runtime.batches.outbox import Outbox
from sage.runtime.batches.sync_task import SyncTask
from sage.runtime.state.stage_state import StageState
from sage.runtime.steps.codec import BYTES_MARK
from sage.spec.context import Context
from sage.state.in_memory import MemoryStores
from tests.unit.runtime.bench import IN, Bench

AT = TopicPartition(IN, 0)
LIMIT = 4_000


class Tally(BaseModel):
    """A key's state as a model."""

    n: int = 0
    padding: str = ""


def tally(value: Any, ctx: Context) -> Iterator[Any]:  # noqa: PLR0912 - a list of what a step may do
    """Counts in the key's state, and does whatever else the value says."""
    state = ctx.state
    n = state.n + 1 if isinstance(state, Tally) else state.get("n", 0) + 1
    changed: dict[str, Any] = {"n": n}
    match value:
        case {"raise": "early"}:
            raise ValueError("asked")
        case {"give": "much state"}:
            changed["padding"] = "x" * LIMIT
        case {"give": "odd state"}:
            changed["padding"] = object()
        case {"give": "same state"}:
            changed = dict(state)
    if isinstance(state, Tally):
        ctx.state = changed
    else:
        state.update(changed)
    match value:
        case {"give": "nothing"}:
            return
        case {"give": "several"}:
            yield from ({"n": n, "part": part} for part in range(3))
        case {"give": "several, one too large"}:
            yield from ("small", "x" * LIMIT, "small")
        case {"give": "too large"}:
            yield "x" * LIMIT
        case {"give": "bytes"}:
            yield b"\xff"
        case {"give": "null"}:
            yield None
        case {"give": "branch"}:
            ctx.emit("aside", {"aside": n})
            yield {"n": n}
        case {"give": "odd"}:
            yield object()
        case {"give": "clear"}:
            ctx.clear_state()
        case {"give": "id"}:
            yield ctx.record_id
        case {"raise": "late"}:
            yield {"n": n}
            raise ValueError("asked")
        case _:
            yield {"n": n, "of": value}


ORDERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 9),
    st.sampled_from([
        {"raise": "early"}, {"raise": "late"}, {"give": "nothing"}, {"give": "several"}, {"give": "too large"},
        {"give": "several, one too large"}, {"give": "bytes"}, {"give": "null"}, {"give": "branch"}, {"give": "odd"},
        {"give": "clear"}, {"give": "id"}, {"give": "much state"}, {"give": "odd state"}, {"give": "same state"},
    ]),
)  # fmt: skip
CAME = st.lists(
    st.tuples(
        ORDERS.map(orjson.dumps) | st.sampled_from([b"{", b""]) | st.none(),
        st.sampled_from([b"a", b"b", None]),
        st.lists(st.tuples(st.sampled_from(["h", "traceparent"]), st.sampled_from([b"", b"1"])), max_size=2),
        st.sampled_from([
            [], [(SAGE_ID, b"root")], [(SAGE_ID, b"r" * 199)], [(SAGE_ID, "資".encode() * 66)],
            [(SAGE_ID, None)], [(SAGE_ID, b"root"), ("later", b"1")], [(SAGE_ID, b"root"), BYTES_MARK],
        ]),
    ),
    max_size=12,
)  # fmt: skip


def run(came: list[Any], *, fast: bool, model: type[BaseModel] | None, batch: int) -> Any:
    """All that comes of these records, checkpoints between the batches included."""

    def build(stream: DataStream[Any]) -> Any:
        keyed: Any = KeyedStream(stream._builder, stream._input)
        keyed.process(tally, name="tally", state=model).branch("aside").to("aside")

    bench = Bench(build, stage="tally", message_max_bytes=LIMIT)
    feeder = bench.clients.producer(config={"message.max.bytes": 1_000_000})
    for value, key, headers, last in came:
        feeder.produce(IN, value, key, [*headers, *last])
    outbox = Outbox(bench.producer)
    state = StageState(bench.setting, bench.clients, MemoryStores())
    state.check_size = outbox.check_size
    task = SyncTask(bench.setting, outbox, bench.bridge.call, lambda at, commit: {}, state)  # type: ignore[arg-type,return-value]
    assert isinstance(task._fast, FastProcess)
    if not fast:
        task._fast = None
    holds = bench.holds()
    task.open(holds)
    task.assigned({AT: Commit(None)})
    while state.progress:
        state.restore(holds)
    messages = bench.came()
    settled = []
    for start in range(0, len(messages), batch):
        task.accept(messages[start : start + batch])
        settled.append(task.settled())
    topics = [output.topic for output in bench.setting.stage.outputs]
    outputs = [(m.topic(), m.value(), m.key(), m.headers()) for topic in topics for m in bench.clients.messages(topic)]
    changes = [
        (m.key(), m.value()) for m in bench.clients.messages(bench.setting.stage.changelog_topic)
    ]  # fmt: skip
    kept = {key: (entry.state, entry.timers) for key, entry in state.table(0).entries()}
    counters = [(step.counters.read, step.counters.written, step.counters.dead) for step in task.steps]
    return settled, outputs, changes, kept, bench.dead_offsets(), counters


@settings(max_examples=150, deadline=None)
@given(CAME, st.sampled_from([None, Tally]), st.integers(1, 12))
def test_the_fast_way_does_exactly_what_the_careful_way_does(
    came: list[Any], model: type[BaseModel] | None, batch: int
) -> None:
    careful = run(came, fast=False, model=model, batch=batch)
    assert run(came, fast=True, model=model, batch=batch) == careful
