"""The relay in front of the embedded broker."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sage.kafka.launchers.fetch_waits import FetchWaits
from sage.kafka.launchers.relay import UNANSWERED, WAIT, Relay
from sage.kafka.launchers.sessions import Connection


class Taken:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    async def drain(self) -> None:
        return


def frame(api: int, correlation: int, body: bytes) -> bytes:
    content = api.to_bytes(2, "big") + b"\0\x0c" + correlation.to_bytes(4, "big") + body
    return len(content).to_bytes(4, "big") + content


def answer(correlation: int) -> bytes:
    return b"\0\0\0\x08" + correlation.to_bytes(4, "big") + b"done"


def given(frames: list[bytes]) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 24)
    reader.feed_data(b"".join(frames))
    reader.feed_eof()
    return reader


async def test_repeated_fetches_are_held_back_and_everything_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[bytes, float]] = []

    async def waited(_: FetchWaits, fetch: bytes, since: int, seconds: float) -> None:
        assert since == 0
        waits.append((fetch, seconds))

    monkeypatch.setattr(FetchWaits, "wait", waited)
    sent = [frame(1, n, b"same") for n in range(3)] + [frame(1, 900, b"other")] + [frame(3, 901, b"x")] * 2
    taken = Taken()
    with pytest.raises(asyncio.IncompleteReadError):
        await Relay(1, 2)._requests(given(sent), cast(Any, taken), {}, Connection())
    assert taken.frames == sent
    assert waits == [(sent[1], WAIT), (sent[2], WAIT)]


async def test_the_answer_to_a_write_ends_the_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(FetchWaits, "written", lambda _, topic: written.append(topic))
    relay, writes = Relay(1, 2), dict[bytes, bytes]()
    produce = frame(0, 5, b"\0\x04sage\0\0\xff\xff\0\0\x75\x30\x02\x07orders\x02..")
    with pytest.raises(asyncio.IncompleteReadError):
        await relay._requests(given([produce, frame(3, 6, b"x")]), cast(Any, Taken()), writes, Connection())
    assert written == []  # the broker has it, and may not have looked at it
    with pytest.raises(asyncio.IncompleteReadError):
        await relay._answers(given([answer(6), answer(5)]), cast(Any, Taken()), writes, Connection())
    assert (written, writes) == ([b"orders"], {})


async def test_writes_that_want_no_answer_do_not_fill_the_memory() -> None:
    writes: dict[bytes, bytes] = {}
    sent = [frame(26, number, b"") for number in range(UNANSWERED + 5)]
    with pytest.raises(asyncio.IncompleteReadError):
        await Relay(1, 2)._requests(given(sent), cast(Any, Taken()), writes, Connection())
    assert len(writes) == UNANSWERED
