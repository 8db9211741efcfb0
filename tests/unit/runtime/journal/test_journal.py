"""One actor's journal: partitions that come and go, memory that is full, brokers that are away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from sage.errors import StageStopped, TransientFailure, Unreachable
from sage.graph.topology import TopicSettings
from sage.model.partition import TopicPartition
from sage.ports import Commit
from sage.runtime.actors.commit_text import CommitText, JournalMark
from sage.runtime.journal import Journal
from sage.runtime.journal.entry import Place
from sage.runtime.runs.retention import Trimmer
from sage.spec.context import Context
from sage.spec.options import Guarantee
from tests.unit.runtime.acting import consumer_of, inputs_of, turn
from tests.unit.runtime.bench import Bench

IN, RETRY = TopicPartition("in", 0), TopicPartition("t.work.retry", 0)
JOURNAL = TopicPartition("t.work.journal", 0)


class Service:
    """Sells answers."""

    def __init__(self) -> None:
        self.sold: list[Any] = []

    async def ask(self, value: Any) -> Any:
        self.sold.append(value)
        return f"to {value}"


def bench_of(service: Service, guarantee: Guarantee = "at_least_once") -> Bench:
    async def work(value: Any, ctx: Context) -> Any:
        return await ctx.call("ask", service.ask, value)

    return Bench(lambda s: s.map(work, name="work", ordering="none"), guarantee=guarantee)


class Town:
    """A journal by itself, on a bench's loop.

    Args:
        memory: bytes of results at hand at most.
    """

    def __init__(self, memory: int = 1_000_000) -> None:
        self.service = Service()
        self.bench = bench_of(self.service)
        self.journal = Journal(self.bench.setting, self.bench.clients, memory=memory)
        self.bench.bridge.call(self.journal.open())

    def assign(self, *partitions: TopicPartition) -> None:
        self.bench.bridge.call(self.journal.assigned({at: Commit(None) for at in partitions}))

    def ask(self, value: str, at: TopicPartition = IN, record_id: str | None = None) -> Any:
        """One try of a record, to its end."""
        calls = self.journal.calls(at, record_id or value, place=Place("in", 0, 0))
        try:
            return self.bench.bridge.call(calls.call("ask", self.service.ask, value))
        finally:
            calls.end()


@pytest.fixture
def town() -> Iterable[Town]:
    town = Town()
    yield town
    town.bench.bridge.call(town.journal.close())


def test_another_input_that_goes_takes_nothing_of_the_one_that_stays(town: Town) -> None:
    town.assign(IN, RETRY)
    town.ask("a", RETRY)
    town.journal.lost([IN])
    town.ask("a", RETRY)
    town.ask("b", RETRY)
    town.ask("b", RETRY)
    assert town.service.sold == ["a", "b"], "found again, and what is asked for later is kept as well"
    assert len(town.bench.clients.messages(JOURNAL.topic)) == 2


def test_the_last_one_that_goes_takes_all_along_and_it_is_there_again_when_it_comes_back(town: Town) -> None:
    town.assign(IN, RETRY)
    town.ask("a")
    town.journal.lost([IN])
    town.journal.lost([RETRY])
    assert town.journal.low_mark(0) is None
    town.assign(IN, RETRY)
    town.ask("a")
    assert town.service.sold == ["a"]


def test_a_mark_speaks_for_all_only_where_all_are_ours(town: Town) -> None:
    town.assign(IN)
    assert town.journal.low_mark(0) == JournalMark(0, whole=False)
    town.assign(RETRY)
    assert town.journal.low_mark(0) == JournalMark(0, whole=True)
    town.journal.lost([IN])
    assert town.journal.low_mark(0) == JournalMark(0, whole=False)


def test_what_memory_has_no_room_for_is_read_from_the_topic_again() -> None:
    town = Town(memory=10)
    town.assign(IN)
    for value in ("a", "b", "c"):
        assert town.ask(value) == f"to {value}"
    for value in ("a", "b", "c"):
        assert town.ask(value) == f"to {value}"
    assert town.service.sold == ["a", "b", "c"]


def test_what_is_gone_from_memory_and_topic_is_bought_again() -> None:
    town = Town(memory=10)
    town.assign(IN)
    town.ask("a")
    town.ask("b")
    town.bench.clients.trim({JOURNAL: 2})
    assert town.ask("a") == "to a"
    assert town.ask("a") == "to a"
    assert town.service.sold == ["a", "b", "a"]


def test_a_broker_that_is_away_while_a_partition_comes_is_waited_for(town: Town) -> None:
    loop = town.bench.loop
    with town.bench.clients.down():
        coming = loop.create_task(town.journal.assigned({IN: Commit(None)}))
        town.bench.run(3_600)
        assert not coming.done()
    town.bench.run(5)
    assert coming.done()
    assert town.ask("a") == "to a"


def test_a_stop_ends_the_wait_for_brokers_that_are_away_while_a_partition_comes(town: Town) -> None:
    with town.bench.clients.down():
        coming = town.bench.loop.create_task(town.journal.assigned({IN: Commit(None)}))
        town.bench.run(120)
        assert not coming.done()
        town.bench.setting.stopping.set()
        town.bench.run(5)
        assert isinstance(coming.exception(), TransientFailure | Unreachable)


def test_a_journal_that_is_gone_stops_the_stage_and_says_what_to_do(town: Town) -> None:
    town.bench.clients.admin().delete([JOURNAL.topic])
    with pytest.raises(StageStopped, match=r"does not exist \(any more\)"):
        town.assign(IN)


def test_a_result_that_arrives_after_its_partition_went_is_there_for_the_next_owner(town: Town) -> None:
    town.assign(IN)
    with town.bench.clients.deliveries_held():
        calls = town.journal.calls(IN, "a", place=Place("in", 0, 0))
        trying = town.bench.loop.create_task(calls.call("ask", town.service.ask, "a"))
        town.bench.run(1)
        trying.cancel()
        town.journal.lost([IN])
        town.bench.run(1)
    town.bench.run(1)
    successor = Journal(town.bench.new_setting(), town.bench.clients)
    town.bench.bridge.call(successor.open())
    town.bench.bridge.call(successor.assigned({IN: Commit(None)}))
    other = successor.calls(IN, "a", place=Place("in", 0, 0))
    assert town.bench.bridge.call(other.call("ask", town.service.ask, "a")) == "to a"
    assert town.service.sold == ["a"]
    town.bench.bridge.call(successor.close())


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_retry_topic_that_is_idle_holds_up_neither_trimming_nor_a_successor(guarantee: Guarantee) -> None:
    service = Service()
    bench = bench_of(service, guarantee)
    actor = bench.actor()
    for number in range(30):
        bench.feed(number)
        turn(bench, actor, times=4)
    assert len(service.sold) == 30
    commits = bench.clients.admin().commits("t.work", [IN])
    mark = CommitText.decode(commits[IN].metadata).journal
    assert mark is not None
    assert mark.whole
    assert mark.offset >= 28, "all but what the last commit ended"
    settings = replace(bench.plan, topology=replace(bench.plan.topology, topics=TopicSettings(retention=60.0)))
    bench.clock.advance(3_600)
    trimmer = Trimmer(settings, bench.setting.partitions, bench.clients.admin(), bench.clock)
    assert trimmer.trim()[JOURNAL] == mark.offset
    assert bench.clients.admin().start_offsets([JOURNAL]) == {JOURNAL: mark.offset}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_results_of_a_parked_record_are_used_at_its_next_try_by_whoever_makes_it(guarantee: Guarantee) -> None:
    service, failing = Service(), [ConnectionError("reset")] * 2

    async def work(value: Any, ctx: Context) -> Any:
        answer = await ctx.call("ask", service.ask, value)
        if failing:
            raise failing.pop()
        return answer

    bench = Bench(
        lambda s: s.map(work, name="work", ordering="none", retry={"attempts": 5, "backoff": "1s"}),
        guarantee=guarantee,
    )
    first = bench.actor()
    bench.feed(1)
    turn(bench, first, times=4)
    assert bench.clients.messages(RETRY.topic)
    consumer_of(first).abandon()
    second = bench.actor()
    turn(bench, second, seconds=0.5, times=20)
    assert set(bench.out()) == {"to 1"}
    assert guarantee == "at_least_once" or len(bench.out()) == 1
    assert service.sold == [1]


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("how", ["joins", "dies"])
def test_partitions_that_move_take_the_answers_of_their_records_along(guarantee: Guarantee, how: str) -> None:
    service, failing = Service(), [True]

    async def work(value: Any, ctx: Context) -> Any:
        answer = await ctx.call("ask", service.ask, value)
        if failing:
            raise ConnectionError("reset")
        return answer

    bench = Bench(
        lambda s: s.map(work, name="work", retry={"attempts": 99, "backoff": "1s", "max_backoff": "1s"}),
        guarantee=guarantee, partitions=2,
    )  # fmt: skip
    first = bench.actor()
    for partition in range(2):
        bench.feed(f"{partition}a", f"{partition}b", partition=partition)
    turn(bench, first, times=4)
    assert len(service.sold) == 4
    if how == "dies":
        consumer_of(first).abandon()
    second = bench.actor()
    living = (second,) if how == "dies" else (first, second)
    turn(bench, *living, times=30)
    failing.clear()
    turn(bench, *living, seconds=0.5, times=30)
    assert inputs_of(second)
    assert sorted(set(bench.out())) == ["to 0a", "to 0b", "to 1a", "to 1b"]
    assert len(service.sold) == 4, service.sold
