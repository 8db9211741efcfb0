"""A stage that rests stays a member, reads nothing, and goes on where it was."""

from __future__ import annotations

from tests.unit.runtime.bench import IN, Bench, at


def turns(bench: Bench, actor: object, count: int = 20) -> None:
    for _ in range(count):
        actor.step(0.0)  # type: ignore[attr-defined]
        bench.run(0.2)


def test_a_resting_actor_keeps_its_partitions_and_reads_nothing_until_it_goes_on() -> None:
    bench = Bench(lambda s: s.map(lambda value: value * 10, name="work"), partitions=2)
    actor = bench.actor()
    bench.feed(1, 2)
    turns(bench, actor)
    assert sorted(bench.out()) == [10, 20]
    actor.rest(actor.topics)
    turns(bench, actor, 2)
    bench.feed(3, 4, 5)
    turns(bench, actor)
    assert sorted(bench.out()) == [10, 20]
    assert {p for p in actor.assignment if p.topic == IN} == {at(0), at(1)}
    actor.rest(frozenset())
    turns(bench, actor)
    assert sorted(bench.out()) == [10, 20, 30, 40, 50]


def test_partitions_that_come_while_it_rests_rest_too() -> None:
    bench = Bench(lambda s: s.map(lambda value: value * 10, name="work"), partitions=2)
    actor = bench.actor()
    actor.rest(actor.topics)
    bench.feed(1, 2)
    turns(bench, actor)
    assert actor.assignment
    assert bench.out() == []
    actor.rest(frozenset())
    turns(bench, actor)
    assert sorted(bench.out()) == [10, 20]


def test_a_topic_may_rest_alone() -> None:
    bench = Bench(lambda s: s.map(lambda value: value * 10, name="work"))
    actor = bench.actor()
    actor.rest(frozenset({"another"}))
    bench.feed(1)
    turns(bench, actor)
    assert bench.out() == [10]


def test_a_full_window_and_rest_do_not_cancel_each_other() -> None:
    bench = Bench(lambda s: s.map(lambda value: value * 10, name="work"))
    holds = bench.holds()
    holds._consumer.assign({at(): -2})
    consumer = holds._consumer
    bench.feed(1)
    holds.rest(frozenset({IN}))
    holds.fill()
    holds.ease()
    assert consumer.poll(10, 0.0) == []
    holds.fill()
    holds.rest(frozenset())
    assert consumer.poll(10, 0.0) == []
    holds.ease()
    assert len(consumer.poll(10, 0.0)) == 1
