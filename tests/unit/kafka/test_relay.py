"""The relay in front of the embedded broker."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sage.kafka.launchers.relay import LONG_WAIT, PATIENT_REPEATS, SHORT_WAIT, Relay


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


async def test_repeated_fetches_are_held_back_and_everything_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def waited(seconds: float) -> None:
        waits.append(seconds)

    sent = [frame(1, n, b"same") for n in range(PATIENT_REPEATS + 2)] + [frame(1, 900, b"other"), frame(3, 901, b"x")]
    reader, taken = asyncio.StreamReader(), Taken()
    reader.feed_data(b"".join(sent))
    reader.feed_eof()
    monkeypatch.setattr(asyncio, "sleep", waited)
    with pytest.raises(asyncio.IncompleteReadError):
        await Relay(1, 2)._requests(reader, cast(Any, taken))
    assert taken.frames == sent
    assert waits == [SHORT_WAIT] * (PATIENT_REPEATS - 1) + [LONG_WAIT] * 2
