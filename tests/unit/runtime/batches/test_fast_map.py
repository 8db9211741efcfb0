"""The fast way of a batch, against the careful one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.model.identity import SAGE_ID
from sage.runtime.steps.codec import BYTES_MARK
from sage.spec.context import Context
from tests.unit.runtime.bench import IN, Bench


class Odd:
    """Nothing that has a JSON form."""


def work(value: Any) -> Any:
    """Does whatever a value says."""
    match value:
        case {"raise": kind}:
            raise {"value": ValueError, "type": TypeError, "zero": ZeroDivisionError}[kind]("asked")
        case {"give": "bytes"}:
            return b"\xff\x00"
        case {"give": "none"}:
            return None
        case {"give": "odd"}:
            return Odd()
        case {"give": "tuple"}:
            return (1, 2)
    return {"did": value}


def work_with_ctx(value: Any, ctx: Context) -> Any:
    del ctx
    return work(value)


ORDERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-(2**60), 2**60), st.text(max_size=5), st.none(),
    st.fixed_dictionaries({"raise": st.sampled_from(["value", "type", "zero"])}),
    st.fixed_dictionaries({"give": st.sampled_from(["bytes", "none", "odd", "tuple"])}),
)  # fmt: skip
CAME = st.lists(
    st.tuples(
        st.one_of(ORDERS.map(lambda v: (v, False)), st.sampled_from([b"{", b"", b"\xff"]).map(lambda b: (b, True))),
        st.none() | st.binary(max_size=3),
        st.lists(st.tuples(st.sampled_from(["a", "b"]), st.none() | st.binary(max_size=2)), max_size=3),
        st.sampled_from(["none", "id", "id not last", "mark"]),
    ),
    max_size=8,
)


@settings(max_examples=80)
@given(CAME, st.booleans())
def test_the_fast_way_does_exactly_what_the_careful_way_does(came: list[Any], two_steps: bool) -> None:
    def run(function: Callable[..., Any]) -> tuple[Any, Any, Any]:
        def build(stream: Any) -> None:
            first = stream.map(function, name="first")
            if two_steps:
                first.map(function, name="second")

        bench = Bench(build)
        feeder = bench.clients.producer()
        for (value, raw), key, headers, last in came:
            sent: list[tuple[str, bytes | None]] = list(headers)
            if last == "id":
                sent.append((SAGE_ID, b"root"))
            elif last == "id not last":
                sent += [(SAGE_ID, b"root"), ("later", b"1")]
            elif last == "mark":
                sent += [(SAGE_ID, b"root"), BYTES_MARK]
            if raw:
                feeder.produce(IN, value, key, sent)
            else:
                feeder.produce(IN, None if value is None else orjson.dumps(value), key, sent)
        task = bench.sync_task()
        assert (task._fast is None) is (function is work_with_ctx)  # the two ways are really both taken
        task.accept(bench.came())
        task.settled()
        outputs = [(m.value(), m.key(), m.headers(), m.timestamp()) for m in bench.produced()]
        own = ("__connect.errors.exception.stacktrace", "__connect.errors.class.name")
        dead = [(m.value(), m.key(), [pair for pair in m.headers() or [] if pair[0] not in own]) for m in bench.dead()]
        counters = [(s.counters.read, s.counters.written, s.counters.dead) for s in task.steps]
        return outputs, dead, counters

    assert run(work) == run(work_with_ctx)
