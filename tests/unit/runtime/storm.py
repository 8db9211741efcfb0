"""Workers that come, go, die, freeze and wake while their broker refuses, forgets and fails, drawn from a seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson

from sage.errors import TransientFailure
from sage.model.partition import TopicPartition
from sage.ports import ProducerFatal, TransactionAbortable
from sage.runtime.actors.actor import Actor
from sage.runtime.runs.assembly import assemble_actor
from sage.spec.options import Guarantee, Ordering
from sage.state.in_memory import MemoryStores
from sage.testing.in_memory_state import TRANSACTION_TIMEOUT_MS
from sage.testing.interleaving import ShuffledLoop
from sage.testing.virtual_time import VirtualBridge
from tests.unit.runtime.acting import GROUP, consumer_of, inputs_of, keyed_bench
from tests.unit.runtime.bench import IN, Bench, text

KINDS = (
    "sync", "flat", "async", "batch", "blocking",
    "keyed", "keyed async", "keyed blocking", "timers", "timers async", "timers blocking",
)  # fmt: skip
"""Ways in which a stage works; all of them do the same to a record, those with timers a moment after it has come."""

SYNCHRONOUS = ("sync", "flat", "keyed", "timers")
"""Kinds whose code keeps everything else of its process waiting."""

PARTITIONS = 3
POISON, PASSING, SLOW = 11, 7, 9
"""Values that are 5 modulo the first never succeed; those that are 3 modulo the second fail a few times; in some storms
those that are 4 modulo the third take longer, now and then, than the broker gives a transaction."""


class Storm:
    """One stage, its workers, and what is known of the records that it was given.

    Args:
        events: names of the methods that are drawn from, besides feeding and turns.
    """

    def __init__(self, seed: int, kind: str, guarantee: Guarantee, ordering: Ordering, events: list[str]) -> None:
        self.chance = random.Random(f"{seed} {kind} {guarantee} {ordering}")
        self.events = events
        self.ordering = "key" if kind.startswith(("keyed", "timers")) else ordering
        self.kind, self.guarantee = kind, guarantee
        self.keys = self.chance.choice([1, 2, 6])
        self.fed: list[tuple[int, bytes]] = []
        self._tries: Counter[int] = Counter()
        self._outlasts = kind in SYNCHRONOUS and self.chance.random() < 0.25
        self.bench = self._bench()
        bench = self.bench
        bench.loop = ShuffledLoop(bench.clock, self.chance)
        bench.loop.set_exception_handler(lambda _, context: bench.unexpected.append(context))
        bench.bridge = VirtualBridge(bench.loop)
        self.actors: list[Actor] = []
        self.frozen: list[Actor] = []
        self.gone: list[Actor] = []
        self.join()

    # -------------------------------------------------------------------------------------- the stage

    def _bench(self) -> Bench:
        chance, check = self.chance, self._check
        options: Any = {
            "ordering": self.ordering,
            "concurrency": chance.choice([1, 2, 4]),
            "retry": {"attempts": 8, "backoff": 0.05, "max_backoff": 0.4},
        }
        plain: Any = {name: option for name, option in options.items() if name != "concurrency"}

        async def wait() -> None:
            await asyncio.sleep(chance.choice([0, 0, 0.005, 0.05, 0.2]))

        async def later(value: int) -> int:
            await wait()
            return check(value)

        async def together(values: list[int]) -> list[int]:
            await wait()
            return [check(value) for value in values]

        def twice(value: int) -> Iterator[int]:
            yield check(value)
            yield -value - 1

        def count(value: int, ctx: Any) -> Iterator[Any]:
            ctx.state["n"] = ctx.state.get("n", 0) + 1
            yield [check(value), ctx.state["n"]]

        async def count_later(value: int, ctx: Any) -> AsyncIterator[Any]:
            ctx.state["n"] = ctx.state.get("n", 0) + 1
            await wait()
            yield [check(value), ctx.state["n"]]

        def remind(value: int, ctx: Any) -> Iterator[Any]:
            ctx.timer.set(str(value), after=0.2)
            yield from ()

        async def remind_later(value: int, ctx: Any) -> AsyncIterator[Any]:
            await wait()
            ctx.timer.set(str(value), after=0.2)
            for nothing in ():
                yield nothing

        def ring(name: str, ctx: Any) -> Iterator[Any]:
            yield from count(int(name), ctx)

        async def ring_later(name: str, ctx: Any) -> AsyncIterator[Any]:
            async for item in count_later(int(name), ctx):
                yield item

        builds: dict[str, Callable[[Any], Any]] = {
            "sync": lambda s: s.map(check, name="work", **plain),
            "flat": lambda s: s.flatmap(twice, name="work", **plain),
            "async": lambda s: s.map(later, name="work", **options),
            "batch": lambda s: s.map_batches(together, name="work", max_size=3, max_wait=0.01, **options),
            "blocking": lambda s: s.map(check, name="work", blocking=True, **options),
        }
        common: Any = {"partitions": PARTITIONS, "guarantee": self.guarantee}
        if self.kind in builds:
            return Bench(builds[self.kind], **common)
        keyed: dict[str, dict[str, Any]] = {
            "keyed": {"function": count, "step": plain},
            "keyed async": {"function": count_later, "step": options},
            "keyed blocking": {"function": count, "step": {"blocking": True, **options}},
            "timers": {"function": remind, "on_timer": ring, "step": plain},
            "timers async": {"function": remind_later, "on_timer": ring_later, "step": options},
            "timers blocking": {"function": remind, "on_timer": ring, "step": {"blocking": True, **options}},
        }
        return keyed_bench(**keyed[self.kind], **common)

    def _check(self, value: int) -> int:
        if value % POISON == 5:
            raise ValueError("poison")
        self._tries[value] += 1
        if self._outlasts and value % SLOW == 4 and self.chance.random() < 0.5:
            self.bench.clock.advance(TRANSACTION_TIMEOUT_MS / 1000 + 2)
        if value % PASSING == 3 and self._tries[value] <= (1 if self.kind == "batch" else 3):
            raise ConnectionError("reset")
        return value

    # ------------------------------------------------------------------------------------- what happens

    def blow(self) -> None:
        """One event, and some turns."""
        getattr(self, self.chance.choice(["feed", "feed", "turn", "turn", *self.events]))()
        for _ in range(self.chance.choice([0, 1, 1, 2])):
            self.turn()

    def feed(self) -> None:
        for _ in range(self.chance.choice([1, 3, 6, 20])):
            value, key = len(self.fed), b"k%d" % self.chance.randrange(self.keys)
            self.fed.append((value, key))
            self.bench.feed(value, keys=[key])

    def turn(self, seconds: float = 0.06) -> None:
        for actor in self.chance.sample(self.actors, len(self.actors)):
            for _ in range(self.chance.choice([0, 1, 1, 2])):
                actor.step(0)
        self.bench.run(self.chance.choice([0, 0.01, seconds, 0.15]))

    def join(self) -> None:
        if len(self.actors) < 4:
            bench = self.bench
            self.actors.append(assemble_actor(bench.new_setting(), bench.clients, bench.bridge, MemoryStores()))
            self.actors[-1].open()

    def leave(self) -> None:
        if len(self.actors) > 1:
            actor = self._drawn()
            actor.stop(5.0)
            actor.run(lambda _: None)
            assert actor.failure is None, actor.failure

    def kill(self) -> None:
        """Without a word; what it has under way never ends."""
        actor = self._drawn()
        consumer_of(actor).abandon()
        actor.task.lost(sorted(actor.assignment))
        self.gone.append(actor)
        if not self.actors:
            self.join()

    def lose(self) -> None:
        consumer_of(self.chance.choice(self.actors)).lose()

    def freeze(self) -> None:
        if len(self.actors) > 1:
            self.frozen.append(self._drawn())
            consumer_of(self.frozen[-1]).lose()

    def wake(self) -> None:
        """In mid-turn perhaps: before any poll tells it what it has lost."""
        if self.frozen:
            actor = self.frozen.pop()
            if self.chance.random() < 0.5:
                actor._guarded(actor._checkpoint)
            self.actors.append(actor)

    def refuse(self) -> None:
        topics = [topic for topic in self.bench.clients.topics() if topic.startswith("t.work")]
        self.bench.clients.fail_next_delivery(self.chance.choice(topics))

    def refuse_for_its_size(self) -> None:
        self.bench.clients.fail_next_delivery("t.work", too_large=True, retriable=False)

    def fail_transaction(self) -> None:
        kind = self.chance.choice([TransactionAbortable, ProducerFatal, TransientFailure])
        self.bench.clients.fail_next_transaction(kind("drawn"))

    def fail_commit(self) -> None:
        self.bench.clients.fail_next_commit(self.chance.choice([None, TransientFailure("drawn")]))

    def stall(self) -> None:
        """Nobody gets to do anything for so long that the broker ends all transactions that are open."""
        self.bench.clock.advance(TRANSACTION_TIMEOUT_MS / 1000 + 1)

    def _drawn(self) -> Actor:
        return self.actors.pop(self.chance.randrange(len(self.actors)))

    # ------------------------------------------------------------------------------------ how it ends

    def end(self) -> None:
        """The storm is over: everybody wakes, the broker's time-outs pass, and all that is left is done."""
        state = self.bench.clients._state
        self.actors += self.frozen
        for faults in (state.faults.deliveries, state.faults.commits, state.faults.transactions):
            faults.clear()
        living = {actor._transactions.id for actor in self.actors if actor._transactions is not None}
        for name in [name for name in state.open if name not in living]:
            state.begin_epoch(name)
        for _ in range(600):
            self.turn(0.1)
            tasks = [actor.task for actor in self.actors]
            if self.lag() > 0 or not self._is_shared_out():
                continue
            if all(task.idle() and task.at_rest() and task.next_due() is None for task in tasks):
                return
        raise AssertionError(f"{self.lag()} records behind, {[actor.task.idle() for actor in self.actors]} idle")

    def _is_shared_out(self) -> bool:
        """Whether every partition is somebody's, and nobody holds what the group has given to another."""
        is_known = all(actor.assignment == consumer_of(actor).assignment() for actor in self.actors)
        return is_known and sum(len(inputs_of(actor)) for actor in self.actors) == PARTITIONS

    def lag(self) -> int:
        places = [
            TopicPartition(topic, number)
            for topic in (IN, self.bench.setting.stage.retry_topic)
            for number in range(PARTITIONS)
        ]
        committed = self.bench.clients.committed(GROUP)
        ends = self.bench.clients.admin().end_offsets(
            places, committed=False
        )  # an open transaction hides what is behind it
        return sum(end - committed.get(at, 0) for at, end in ends.items())

    def dead(self) -> list[int]:
        """The values that have a dead letter, their own or their timer's."""
        letters = self.bench.dead()
        return [int(text(letter).get("sage.timer") or orjson.loads(letter.value() or b"")) for letter in letters]

    def outputs(self) -> dict[bytes, list[Any]]:
        """Values by key, in the order of their topic."""
        found: dict[bytes, list[Any]] = defaultdict(list)
        for message in self.bench.produced():
            found[message.key() or b""].append(orjson.loads(message.value() or b"null"))
        return found

    def close(self) -> None:
        for actor in [*self.actors, *self.gone]:
            if actor._transactions is not None:
                actor._transactions._thread.close()
