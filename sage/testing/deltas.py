"""A finished answer as a stream of its words, as a model would have given it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


async def give_deltas(text: str, on_delta: Callable[[str], Awaitable[None]] | None, words: int | None = None) -> None:
    """Give ``text`` to ``on_delta`` word by word, at most ``words`` of them; to nobody where that is ``None``."""
    if on_delta is None:
        return
    for position, word in enumerate(text.split(" ")[:words]):
        await on_delta(word if position == 0 else f" {word}")
