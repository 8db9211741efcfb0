"""Virtual time for the journal's writing side, and clients whose producers break or whose admins are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from sage.ports import Admin, Producer, TopicSpec
from sage.testing.broker import InMemoryClients, InMemoryProducer
from sage.testing.virtual_time import ManualClock, VirtualLoop
from tests.unit.runtime.bench import end

TOPIC = "t.work.journal"
R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    """The coroutine's result, in virtual time."""
    loop = VirtualLoop(ManualClock())
    try:
        return loop.run_until_complete(asyncio.wait_for(work, 3_600))
    finally:
        end(loop)


def broker(**options: Any) -> InMemoryClients:
    """A broker with a journal of two partitions."""
    clients = InMemoryClients(**options)
    clients.admin().create([TopicSpec(TOPIC, 2)])
    return clients


class Breaking(InMemoryClients):
    """Clients of ``world`` whose first producers are broken.

    Args:
        breaks: one for each producer in turn: called before each of its polls and produces, and may raise.
    """

    def __init__(self, world: InMemoryClients, *breaks: Callable[[str], None]) -> None:
        super().__init__()
        self._world = world
        self._breaks = list(breaks)
        self.made: list[Producer] = []
        self.admins = 0

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, Any] | None = None
    ) -> InMemoryProducer:
        made = self._world.producer(transactional_id=transactional_id, config=config)
        if self._breaks:
            broken = self._breaks.pop(0)
            produce, poll = made.produce, made.poll

            def produce_or_break(*arguments: Any, **named: Any) -> None:
                broken("produce")
                produce(*arguments, **named)

            def poll_or_break(timeout: float = 0.0) -> int:
                broken("poll")
                return poll(timeout)

            made.produce, made.poll = produce_or_break, poll_or_break  # type: ignore[method-assign]
        self.made.append(made)
        return made

    def admin(self) -> Any:
        self.admins += 1
        admin: Admin = self._world.admin()
        return admin
