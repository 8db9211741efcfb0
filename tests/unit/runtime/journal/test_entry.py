"""Journal entries: results cut into records, and put together again whatever lies between."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from sage.runtime.journal.entry import CHUNK, Assembly, CallKey, Place, Stored, chunks
from sage.testing.in_memory_log import InMemoryMessage

KEY = CallKey("r1", "ask", "h", 2)
PLACE = Place("in", 3, 17)


def messages(*results: tuple[CallKey, bytes], size: int = 10, start: int = 0) -> list[InMemoryMessage]:
    """The results as they would stand in a journal, one after the other."""
    records = [record for key, data in results for record in chunks(key, PLACE, data, size=size)]
    return [
        InMemoryMessage("t.journal", 0, start + at, key=b"k", value=value, headers=headers)
        for at, (value, headers) in enumerate(records)
    ]


def assembled(records: Sequence[InMemoryMessage]) -> list[Stored]:
    assembly = Assembly()
    return [stored for record in records if (stored := assembly.add(record)) is not None]


@given(st.binary(max_size=60), st.integers(1, 20))
def test_a_result_of_any_size_is_put_together_again(data: bytes, size: int) -> None:
    records = messages((KEY, data), size=size)
    assert assembled(records) == [Stored(KEY, PLACE, data, 0, len(records) - 1)]


def test_a_usual_result_is_one_record_and_a_large_one_several() -> None:
    assert len(list(chunks(KEY, None, b""))) == 1
    assert len(list(chunks(KEY, None, bytes(CHUNK)))) == 1
    assert [len(value) for value, _ in chunks(KEY, None, bytes(2 * CHUNK + 1))] == [CHUNK, CHUNK, 1]


@given(st.data())
def test_results_that_were_written_at_the_same_time_are_not_mixed(data: st.DataObject) -> None:
    keys = [KEY, KEY, CallKey("r2", "ask", "h", 0)]  # the first two: one result, written by two owners
    results = [bytes([number]) * data.draw(st.integers(0, 35)) for number in range(3)]
    waiting = [list(chunks(key, None, result, size=10)) for key, result in zip(keys, results, strict=True)]
    records: list[InMemoryMessage] = []
    while any(waiting):
        queue = data.draw(st.sampled_from([each for each in waiting if each]))
        value, headers = queue.pop(0)
        records.append(InMemoryMessage("t.journal", 0, len(records), key=b"k", value=value, headers=headers))
    found = sorted((stored.key, stored.data) for stored in assembled(records))
    assert found == sorted(zip(keys, results, strict=True))


@given(st.integers(0, 2), st.integers(0, 2))
def test_a_sequence_with_a_hole_is_none(lost: int, also_lost: int) -> None:
    whole, broken = messages((KEY, b"x" * 25), start=10), messages((KEY, b"y" * 25))
    left = [record for number, record in enumerate(broken) if number not in {lost, also_lost}]
    assert [stored.data for stored in assembled([*left, *whole])] == [b"x" * 25]


def test_what_no_sage_wrote_is_passed_over() -> None:
    (record,) = messages((KEY, b"x"))
    bare = InMemoryMessage("t.journal", 0, 0, key=b"r1", value=b"{}")
    torn = InMemoryMessage(
        "t.journal", 0, 0, value=b"x", headers=[p for p in record.headers() or () if p[0] != "sage.call.part"]
    )
    assert assembled([bare, torn]) == []


def test_headers_say_whose_it_is_and_whose_trace_and_nothing_of_the_arguments() -> None:
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    ((value, headers),) = chunks(KEY, PLACE, b"answer", [("authorization", b"secret"), trace, ("sage.id", b"older")])
    found = dict(headers)
    assert value == b"answer"
    assert len(found.pop("sage.call.write") or b"") == 12
    assert found == {
        trace[0]: trace[1], "sage.call": b"ask", "sage.call.hash": b"h", "sage.call.occurrence": b"2",
        "sage.call.place": b"in:3:17", "sage.call.part": b"0/1", "sage.id": b"r1",
    }  # fmt: skip


def test_a_timers_result_has_no_place() -> None:
    ((value, headers),) = chunks(KEY, None, b"x")
    record = InMemoryMessage("t.journal", 0, 4, value=value, headers=headers)
    assert assembled([record]) == [Stored(KEY, None, b"x", 4, 4)]
