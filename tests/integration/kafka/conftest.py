"""Each kind of stage, all in one topology: what holds for one must hold for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sage import Context, LocalEnvironment
from sage.ports import RawMessage
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, total_lag
from tests.support.waiting import wait_until

PARTITIONS = 4


@dataclass
class Stages:
    """A synchronous, an asynchronous and two stateful stages that each pass the records of ``source`` on.

    Attributes:
        kinds: their names; each writes to the topic ``target(kind)``.
    """

    env: LocalEnvironment
    broker: ApacheBroker
    source: str
    kinds: tuple[str, ...] = ("sync", "async", "state", "async-state")

    def target(self, kind: str) -> str:
        """The topic that this one writes to."""
        return f"{self.source}-{kind}"

    def build(self, work: Callable[[Any], Any] = lambda value: value) -> None:
        """Add the stages; each gives ``work`` of a record's value, one way or another."""

        async def wait(value: Any) -> Any:
            return work(value)

        def count(value: Any, ctx: Context) -> Iterator[Any]:
            ctx.state["n"] = ctx.state.get("n", 0) + 1
            yield work(value)

        async def count_slowly(value: Any, ctx: Context) -> AsyncIterator[Any]:
            ctx.state["n"] = ctx.state.get("n", 0) + 1
            yield work(value)

        records = self.env.from_topic(self.source)
        records.map(work, name="sync").to(self.target("sync"))
        records.map(wait, name="async", concurrency=8).to(self.target("async"))
        keyed = records.key_by(lambda value, ctx: ctx.key, name="keyed", partitions=PARTITIONS)
        keyed.process(count, name="state").to(self.target("state"))
        keyed.process(count_slowly, name="async-state", concurrency=8).to(self.target("async-state"))

    def written(self, kind: str) -> list[RawMessage]:
        """What came out of one of them."""
        return everything(self.broker.clients(), self.target(kind))

    def letters(self, kind: str) -> list[RawMessage]:
        """The dead letters of one of them."""
        letters = everything(self.broker.clients(), f"{self.env.topology.name}.dlq")
        return [each for each in letters if dict(each.headers() or ())["__connect.errors.stage"] == kind.encode()]

    def come_to_rest(self, timeout: float = 60.0) -> None:
        """Wait until no stage lags, as a stranger would count it."""
        clients = self.broker.clients()
        read = [(stage.group, i.topic) for stage in self.env.plan().stages for i in stage.inputs]

        def lags() -> dict[str, int]:
            return {group: total_lag(clients, group, topic, PARTITIONS) for group, topic in read}

        try:
            wait_until(lambda: not any(lags().values()), timeout=timeout, what="no stage lags")
        except AssertionError as error:
            raise AssertionError(f"{error}: {lags()}") from error


@pytest.fixture(params=["at_least_once", "exactly_once"])
def guarantee(request: pytest.FixtureRequest) -> str:
    """Both in turn."""
    return str(request.param)


@pytest.fixture
def stages(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, guarantee: Any
) -> Iterator[Stages]:
    """An environment of its own under each guarantee, and the name of a topic to read."""
    with LocalEnvironment(
        unique("kinds"), bootstrap_servers=apache_kafka.bootstrap_servers, data_dir=tmp_path, guarantee=guarantee
    ) as env:
        yield Stages(env, apache_kafka, unique("in"))
