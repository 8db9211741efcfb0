"""One operator's session, typed command by command: deploys, scales, kills, upgrades, rolls back, replays dead letters,
deletes; on Apache Kafka with worker processes, under load, and every order is counted at the end.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.cluster.terminal import PATIENCE, Terminal
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until

USERS = 40
BAD_EVERY = 60

STEPS = """
def strict(value):
    if value["bad"]:
        raise ValueError("a bad order")
    return value


def lenient(value):
    return value


def count(value, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    if ctx.state["n"] == 1:
        ctx.logger.info("the first order of %s", value["user"])
    yield {"user": value["user"], "n": ctx.state["n"], "order": value["order"], "release": RELEASE}
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: exactly_once
defaults: {{partitions: 4}}
steps:
  read: {{source: topic, config: {{topic: {name}-orders}}}}
  clean: {{map: "shop_steps:{clean}", from: read}}
  keyed: {{key_by: user, from: clean}}
  count: {{process: "shop_steps:count", from: keyed}}
  out: {{sink: topic, from: count, config: {{topic: {name}-counts}}}}
"""


class Session(Terminal):
    """A folder to type in, the workers that it started, and the orders that come in meanwhile."""

    def __init__(self, folder: Path, broker: ApacheBroker, name: str) -> None:
        super().__init__(folder, broker, name, code="shop_steps")
        self.write("strict")
        self._feeder = threading.Thread(target=self._feed, name="orders", daemon=True)
        self._enough = threading.Event()
        self.fed = 0

    def write(self, clean: str, release: int = 1) -> None:
        """The topology and its code, as somebody edits them."""
        self.shell.write("shop_steps.py", STEPS.replace("RELEASE", str(release)))
        self.shell.write("shop.yaml", TOPOLOGY.format(name=self.name, clean=clean))

    def close(self) -> None:
        self._enough.set()
        super().close()

    # ------------------------------------------------------------------------------------ orders

    def feed(self) -> None:
        self._feeder.start()

    def _feed(self) -> None:
        """Orders come in for as long as the session lasts."""
        producer = self.broker.clients().producer()
        while not self._enough.wait(0.25):
            for number in range(self.fed, self.fed + 10):
                order = {"order": number, "user": f"u{number % USERS}", "bad": number % BAD_EVERY == 0}
                producer.produce(f"{self.name}-orders", orjson.dumps(order))
            assert producer.flush(60) == 0
            self.fed += 10
        producer.close()

    def until_counted(self, at_least: int) -> None:
        """Wait until work goes on: so many orders more have come out."""
        wait_until(lambda: self.written() >= at_least, timeout=PATIENCE, what=f"{at_least} are counted")

    def written(self) -> int:
        topics = {row["name"]: row["records"] for row in self.data("topics", "list")}
        return int(topics.get(f"{self.name}-counts", 0))

    def until_all_is_done(self) -> None:
        self._enough.set()
        self._feeder.join(PATIENCE)
        assert not self._feeder.is_alive()

        def lags() -> dict[str, int]:
            groups = [f"{self.name}.{stage}" for stage in ("clean", "count")]
            return {group: self.data("groups", "describe", group)["lag"] for group in groups}

        try:
            wait_until(lambda: not any(lags().values()), timeout=PATIENCE, what="no group lags")
        except AssertionError as error:
            said = [self("topology", "status", self.name, "-o", "wide", code=None).out]
            said += [self("groups", "describe", group).out for group in lags()]
            raise AssertionError("\n".join([str(error), *said, self.logs()])) from error

    def counted(self) -> list[dict[str, Any]]:
        out = self("topics", "tail", f"{self.name}-counts", "--from-beginning", "-o", "json").out
        return [json.loads(line)["value"] for line in out.splitlines()]


@pytest.fixture
def session(tmp_path: Path, apache_kafka: ApacheBroker, unique: Callable[[str], str]) -> Iterator[Session]:
    made = Session(tmp_path, apache_kafka, unique("shop"))
    yield made
    made.close()


def test_a_session_from_the_first_deploy_to_the_last_trace(session: Session) -> None:
    _deploys(session)
    _scales(session)
    _kills(session)
    _upgrades_and_rolls_back(session)
    _pauses(session)
    _rolls_new_code_out(session)
    session.until_all_is_done()
    _replays(session)
    _every_order_is_counted_once(session)
    _looks_back(session)
    _deletes(session)


def _deploys(session: Session) -> None:
    name = session.name
    session("topics", "create", f"{name}-orders", "-p", "4")
    assert session("topology", "list").err.startswith("nothing is deployed")
    for worker in ("w1", "w2", "w3"):
        session.start(worker)
    session.until_online("w1", "w2", "w3")
    assert session.data("topology", "plan", "shop.yaml", "--detailed-exitcode", code=2)["diff"]["created"]
    deployed = session("topology", "deploy", "shop.yaml", "--wait", "--timeout", "90s", "-m", "first")
    assert deployed.out == f"deployed {name} v1\n"
    assert session.data("topology", "status", name)["health"] == "ok"
    session.feed()
    session.until_counted(100)


def _scales(session: Session) -> None:
    session("topology", "scale", session.name, "clean=1", "count=2", "--wait")
    _check_workers(session, clean=1, count=2)
    session("topology", "scale", session.name, "clean=3", "count=3", "--wait")
    _check_workers(session, clean=3, count=3)


def _kills(session: Session) -> None:
    """The others take over; another one comes."""
    session.kill("w1")
    session.until_online("w2", "w3")
    session("topology", "wait", session.name)
    session.until_counted(session.written() + 50)
    session.start("w4")
    session.until_online("w2", "w3", "w4")
    session("topology", "wait", session.name)


def _upgrades_and_rolls_back(session: Session) -> None:
    name = session.name
    session.write("lenient")
    plan = session("topology", "plan", "shop.yaml", "--save", "plan.json", "--detailed-exitcode", code=2)
    assert "clean" in plan.out
    assert "rolling restart" in plan.out
    assert session("topology", "deploy", "--plan", "plan.json", "--wait").out == f"deployed {name} v2\n"
    assert session("topology", "rollback", name, "--wait").out == f"rolled back to {name} v1\n"
    session.end("w3")
    session("topology", "wait", name)


def _pauses(session: Session) -> None:
    name = session.name
    assert session("topology", "pause", name, "--wait").out == f"{name} v1 paused\n"
    assert {stage["state"] for stage in session.data("topology", "status", name)["stages"]} == {"paused"}
    written, fed = session.written(), session.fed
    wait_until(lambda: session.fed > fed + 50, what="orders come in")
    assert session.written() == written, "nothing flows while it is paused"
    session("topology", "resume", name, "--wait")
    session.until_counted(written + 50)


def _rolls_new_code_out(session: Session) -> None:
    """The module changes on disk: workers are started anew one by one, and those that have it run the next version."""
    name = session.name
    session.write("strict", release=2)
    session.end("w2")
    session.start("w5")
    session.until_online("w4", "w5")
    wait_until(lambda: session.problems("w5"), timeout=PATIENCE, what="w5 says that its code is another")
    assert all("differs" in problem for problem in session.problems("w5"))
    session.until_counted(session.written() + 50)
    deployed = session("topology", "deploy", "shop.yaml", "--wait", "--timeout", "90s")
    assert deployed.out == f"deployed {name} v3\n"
    assert "shop_steps.py has changed since it was loaded; restart this worker (on worker w4)" in deployed.err
    _check_workers(session, clean=1, count=1)
    session.end("w4")
    session.start("w6")
    session.until_online("w5", "w6")
    session("topology", "wait", name)
    _check_workers(session, clean=2, count=2)
    session.until_counted(session.written() + 50)


def _replays(session: Session) -> None:
    """What died of the strict step is replayed under a lenient one."""
    dead = session.data("dlq", "list", session.name, "-n", "10000")
    assert dead, "some bad orders came while version 1 ran"
    assert {letter["step"] for letter in dead} == {"clean"}
    session.write("lenient", release=2)
    session("topology", "deploy", "shop.yaml", "--wait")
    assert session.data("dlq", "replay", session.name)["replayed"] == len(dead)
    session.until_all_is_done()


def _looks_back(session: Session) -> None:
    history = session.data("topology", "history", session.name)
    assert history[0]["version"] == 4
    assert history[-1]["reason"] == "check of version 1"
    out = session("topology", "logs", session.name, "--since", "1h", "-o", "json").out
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["topology"] for line in lines} == {session.name}
    assert {"w1", "w2", "w3"} <= {line["worker"] for line in lines}, "what runs on each machine is told in one place"
    of_step = Counter(line["message"] for line in lines if line["step"] == "count" and line["logger"] != "sage.cluster")
    assert {f"the first order of u{number}" for number in range(USERS)} <= set(of_step), "what a step logs is there too"


def _deletes(session: Session) -> None:
    """Drained, and nothing is left behind."""
    name = session.name
    assert session("topology", "drain", name, "--wait").out == f"{name} v4 drained\n"
    session("topology", "delete", name, "--purge", "--yes")
    names = {row["name"] for row in session.data("topics", "list")}
    assert not [topic for topic in names if topic.startswith(f"{name}.")]
    assert session.data("groups", "list", f"{name}.") == []
    assert session("topology", "list", "--all").err.startswith("nothing is deployed")
    for worker in list(session.workers):
        session.end(worker)


def _check_workers(session: Session, **ready: int) -> None:
    status = session.data("topology", "status", session.name)
    assert {stage["stage"]: stage["ready"] for stage in status["stages"]} == ready, (status, session.online())


def _every_order_is_counted_once(session: Session) -> None:
    counted = session.counted()
    assert {each["release"] for each in counted} == {1, 2}
    orders = Counter(each["order"] for each in counted)
    assert not set(range(session.fed)) - set(orders), "these are lost"
    assert not [order for order, times in orders.items() if times > 1]
    for number in range(USERS):
        mine = sorted(each["n"] for each in counted if each["user"] == f"u{number}")
        assert mine == list(range(1, len(mine) + 1)), f"the state of u{number} was lost or counted twice"
