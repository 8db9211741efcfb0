"""Dead letters: the record as it was, and why and where it died."""

from __future__ import annotations

import pytest

from sage.model import dead_letter_headers as names
from sage.runtime.retries.dead_letters import MAX_TRACE, DeadLetter, dead_letter
from tests.unit.runtime.bench import IN, Bench, at, text
from tests.unit.runtime.messages import message

HEADERS = [("trace", b"1"), ("trace", b"2"), ("empty", b""), ("null", None)]


def letter_of(error: BaseException, **record: object) -> DeadLetter:
    try:
        raise error
    except BaseException as raised:
        came = message(**record)  # type: ignore[arg-type]
        return dead_letter(
            came, raised, topology="qa", stage="ask", step="prompt", code="qa.steps.prompt", worker="w1", attempts=3,
            topic="qa.dlq",
        )  # fmt: skip


def test_the_record_is_kept_byte_by_byte() -> None:
    letter = letter_of(KeyError("documents"), raw=b"\xff{", key=b"\x00k", headers=HEADERS, timestamp=77)
    assert (letter.key, letter.value, letter.timestamp) == (b"\x00k", b"\xff{", 77)
    assert list(letter.headers)[:4] == HEADERS


def test_the_reason_has_the_names_of_kafka_connect() -> None:
    letter = letter_of(KeyError("documents"), value={}, offset=17, partition=3, topic="qa.retrieve")
    found = {name: (value or b"").decode() for name, value in letter.headers}
    trace = found.pop("__connect.errors.exception.stacktrace")
    assert found == {
        "__connect.errors.topic": "qa.retrieve",
        "__connect.errors.partition": "3",
        "__connect.errors.offset": "17",
        "__connect.errors.connector.name": "qa",
        "__connect.errors.task.id": "w1",
        "__connect.errors.stage": "prompt",
        "__connect.errors.class.name": "qa.steps.prompt",
        "__connect.errors.exception.class.name": "builtins.KeyError",
        "__connect.errors.exception.message": "'documents'",
        "sage.stage": "ask",
        "sage.attempts": "3",
    }
    assert trace.startswith("Traceback")
    assert trace.endswith("KeyError: 'documents'\n")


def test_a_long_trace_keeps_its_end_and_a_long_message_its_beginning() -> None:
    letter = letter_of(ValueError("start" + "x" * 50_000 + "end"), value=1)
    found = dict(letter.headers)
    trace, said = found[names.STACKTRACE], found[names.MESSAGE]
    assert trace is not None
    assert said is not None
    assert len(trace) <= MAX_TRACE
    assert trace.endswith(b"end\n")
    assert said.startswith(b"start")
    assert len(said) == 2_000


def test_a_message_that_is_no_utf8_text_does_not_break_the_letter() -> None:
    found = dict(letter_of(ValueError("\udcff"), value=1).headers)
    assert found[names.MESSAGE] == b"?"


def test_a_letter_at_the_size_limit_loses_its_trace_only() -> None:
    letter = letter_of(KeyError("x"), value={"a": 1}, headers=HEADERS)
    short = letter.shortened()
    assert dict(short.headers)[names.STACKTRACE] == b"(cut)"
    assert [name for name, _ in short.headers] == [name for name, _ in letter.headers]
    assert (short.key, short.value, short.timestamp) == (letter.key, letter.value, letter.timestamp)


def fail(value: object) -> object:
    raise KeyError(value)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_both_kinds_of_stage_write_the_same_letter(asynchronous: bool) -> None:
    async def fail_later(value: object) -> object:
        raise KeyError(value)

    bench = Bench(lambda s: s.map(fail_later if asynchronous else fail, name="prompt"))
    came = bench.feed({"query": "q"})
    if asynchronous:
        task = bench.async_task()
        task.accept(came)
        bench.run(0.1)
        assert task.settled() == {at(): 1}
    else:
        sync = bench.sync_task()
        sync.accept(came)
        assert sync.settled() == {at(): 1}
    (dead,) = bench.dead()
    found = text(dead)
    assert dead.value() == b'{"query":"q"}'
    assert found["__connect.errors.topic"] == IN
    assert found["__connect.errors.stage"] == "prompt"
    assert found["__connect.errors.task.id"] == "worker-1"
    assert found["__connect.errors.class.name"].endswith("fail_later" if asynchronous else "fail")
    assert found["__connect.errors.exception.class.name"] == "builtins.KeyError"
    assert found["sage.attempts"] == "1"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_bytes_that_cannot_be_decoded_are_the_failure_of_the_step_that_would_have_read_them(asynchronous: bool) -> None:
    async def later(value: object) -> object:
        return value

    bench = Bench(lambda s: s.map(later if asynchronous else str, name="prompt"))
    came = bench.feed(b"{broken", raw=True)
    if asynchronous:
        bench.async_task().accept(came)
        bench.run(0.1)
    else:
        sync = bench.sync_task()
        sync.accept(came)
        sync.settled()
    (dead,) = bench.dead()
    assert dead.value() == b"{broken"
    assert text(dead)["__connect.errors.stage"] == "prompt"
    assert text(dead)["__connect.errors.exception.class.name"] == "sage.errors.DecodeFailure"
