"""What a check comes to when the code that it looks at does its worst: it never ends without a word."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from sage.cluster.code import code_of
from sage.cluster.deployment import Deployment
from sage.cluster.status import Check
from sage.cluster.worker.checks import Checker, Policy
from sage.cluster.worker.inspector import Inspector
from sage.cluster.worker.topology_host import OpenWorld
from sage.graph.builder import StreamBuilder
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.world import World
from sage.state.in_memory import MemoryStores
from sage.testing.broker import InMemoryClients
from sage.testing.services import ScriptedServices
from sage.tracing.idle import IdleTracer
from tests.support.waiting import wait_until
from tests.unit.cluster.worker import steps


def deployment() -> Deployment:
    builder = StreamBuilder("t")
    builder.from_topic("in").map(steps.Fragile, name="work").to("out")
    plan = compile_plan(builder.build())
    return Deployment("t", 1, plan.to_json(), code=code_of(plan))


def make_world(plan: Plan) -> OpenWorld:
    loop = LoopThread()
    clients = InMemoryClients()
    world = World(clients, ScriptedServices(), IdleTracer(), SystemClock(), loop, {}, "w1", MemoryStores())
    return OpenWorld(world, loop.close)


def checked() -> tuple[Check, list[str]]:
    """What a deep look finds, and of which topologies the worker was told that there is something new."""
    changed: list[str] = []
    inspector = Inspector(Checker("w1", Policy(("tests",)), {}), make_world, changed.append)
    inspector.look(deployment(), deep=True)
    (found,) = wait_until(lambda: inspector.checks("t"), what="it is checked")
    wait_until(lambda: changed, what="the worker is told")
    return found, changed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(0), "its code ended the program (SystemExit(0))"),
        (SystemExit("no key"), "its code ended the program (SystemExit('no key'))"),
        (KeyboardInterrupt("not a user's"), "KeyboardInterrupt: not a user's"),
        (GeneratorExit("odd"), "GeneratorExit: odd"),
        (ValueError("plain"), "ValueError: plain"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_check_that_ends_in_whatever_way_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException, told: str
) -> None:
    def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(Checker, "check", fail)
    with caplog.at_level(logging.WARNING, "sage.cluster"):
        check, changed = checked()
    assert (check.kind, check.problems, changed) == ("unready", (told,), ["t"])
    assert f"t: version 1 can't run here: {told}" in caplog.text


def test_an_operator_that_ends_the_program_when_it_opens_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(self: object, ctx: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(steps.Fragile, "open", leave)
    check, _ = checked()
    assert (check.kind, check.problems) == ("unready", ("its code ended the program (SystemExit(3))",))


def test_a_check_that_ended_the_program_is_made_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def leave(self: object, wanted: Deployment) -> Check:
        looked.append(wanted.version)
        raise SystemExit(0)

    monkeypatch.setattr(Checker, "check", leave)
    monkeypatch.setattr("sage.cluster.worker.inspector.LOOK_AGAIN", 0.0)
    inspector = Inspector(Checker("w1", Policy(("tests",)), {}), make_world, lambda _: None)

    def looks_again() -> bool:
        inspector.look(deployment(), deep=False)
        return len(looked) > 1

    wait_until(looks_again, what="it is looked at again")


def test_another_deployment_of_the_same_number_is_looked_at_by_itself() -> None:
    inspector = Inspector(Checker("w1", Policy(("tests",)), {}), make_world, lambda _: None)
    first = deployment()
    unknown = replace(first, created_at=1, plan={**first.plan, "format": 99})
    inspector.look(unknown, deep=False)
    wait_until(lambda: [each.kind for each in inspector.checks("t")] == ["unready"], what="it can't run")
    inspector.look(replace(first, created_at=2), deep=False)
    wait_until(lambda: [each.kind for each in inspector.checks("t")] == [""], what="the other one can")


def test_a_plan_is_of_the_deployment_that_was_asked_for_and_not_of_its_namesake() -> None:
    checker = Checker("w1", Policy(("tests",)), {})
    first = deployment()
    renamed = {**first.plan, "memory": {"uri": "http://elsewhere:19530"}}
    assert checker.plan_of(first).topology.memory == first.plan["memory"]
    assert checker.plan_of(replace(first, plan=renamed, created_at=2)).topology.memory == renamed["memory"]
