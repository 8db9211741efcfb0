"""What the embedded broker lacks: a fetch that finds nothing waits until there is something for it.

Kafka's broker keeps such a fetch (in its "purgatory") for ``max.wait.ms``. Here it is known by its repetition: a client
that asks exactly what it asked before got nothing. It goes to the broker again when one of its topics was written to.
"""

from __future__ import annotations

import asyncio
from typing import Final

PRODUCE: Final = 0
FETCH: Final = 1
END_TRANSACTION: Final = 26
"""API keys of Kafka's protocol."""

ANY: Final = b""
"""A topic that is in every fetch."""

REMEMBERED: Final = 1024
"""Fetches of a connection that are known again: more than it has partitions, as each may come first in one."""

_HEADER: Final = 12
"""Bytes of length, API key, version and correlation id."""

_FLEXIBLE_PRODUCE: Final = 9
"""The first version of Produce whose lengths are of one byte or more (KIP-482)."""


class FetchWaits:
    """Holds the repeated fetches of all clients of one broker. Of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], bytes] = {}
        self._latest: dict[bytes, int] = {}
        self.news = 0
        """How often there was something new."""

    def written(self, topic: bytes) -> None:
        """The broker has something new in a topic, or in ``ANY``: what waits for it goes on."""
        self.news += 1
        self._latest[topic] = self.news
        for woken, fetch in self._waiting.items():
            if topic in fetch and not woken.done():
                woken.set_result(None)

    async def wait(self, fetch: bytes, since: int, seconds: float) -> None:
        """Return when there is something new for a fetch that got nothing when ``news`` was ``since``, and after
        ``seconds`` at the latest. A name that is part of another's may end it early, which harms nobody."""
        if self.news > since and any(news > since and topic in fetch for topic, news in self._latest.items()):
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, woken)
        self._waiting[woken] = fetch
        try:
            await woken
        finally:
            timer.cancel()
            del self._waiting[woken]


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class Asked:
    """The last fetches of one connection.

    librdkafka begins each fetch with another of its partitions, so a repetition comes after as many as there are of
    these. As a fetch holds the offsets of all, one that got anything is never asked again, but by a client that goes
    back: that one may be held once, for nothing.
    """

    def __init__(self) -> None:
        self._fetches: dict[bytes, int] = {}

    def before(self, frame: bytes) -> int | None:
        """The ``news`` when this was asked the last time; ``None`` where it was not asked before."""
        return self._fetches.get(_question(frame))

    def sent(self, frame: bytes, news: int) -> None:
        """It goes to the broker now."""
        fetch = _question(frame)
        self._fetches.pop(fetch, None)
        self._fetches[fetch] = news
        if len(self._fetches) > REMEMBERED:
            del self._fetches[next(iter(self._fetches))]


def _question(frame: bytes) -> bytes:
    """All but the correlation id."""
    return frame[:8] + frame[_HEADER:]


def written_topic(frame: bytes) -> bytes | None:
    """The topic that a request gives something to read, when it is answered; ``ANY`` where it may be several, and
    ``None`` where it gives nothing."""
    api, version = int.from_bytes(frame[4:6], "big"), int.from_bytes(frame[6:8], "big")
    if api != PRODUCE:
        return ANY if api == END_TRANSACTION else None
    at = _after_text(frame, _HEADER)  # the client's name
    if version < _FLEXIBLE_PRODUCE:
        at = _after_text(frame, at) + 6  # the transactional id, acks and time-out
        topics = int.from_bytes(frame[at : at + 4], "big")
        name = at + 6
        length = int.from_bytes(frame[at + 4 : name], "big")
    else:
        if frame[at : at + 1] != b"\0":  # fields that nobody sends today
            return ANY
        length, at = _varint(frame, at + 1)
        topics, at = _varint(frame, at + max(length - 1, 0) + 6)
        length, name = _varint(frame, at)
        topics, length = topics - 1, length - 1
    return frame[name : name + length] if topics == 1 else ANY


def _after_text(frame: bytes, at: int) -> int:
    """Where a text ends that has its length in two bytes, -1 for none."""
    return at + 2 + max(int.from_bytes(frame[at : at + 2], "big", signed=True), 0)


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; and where it ends."""
    number = shift = 0
    while at < len(frame):
        number |= (frame[at] & 0x7F) << shift
        at += 1
        if frame[at - 1] < 0x80:  # the bit that says that more follow
            break
        shift += 7
    return number, at
