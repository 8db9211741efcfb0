"""What keeps a deployment from running on a worker, and what a worker lets topologies do."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from sage.cluster.code import changed_files, code_of
from sage.cluster.deployment import Deployment
from sage.cluster.worker.checks import Checker, Policy, Refused, open_operators
from sage.graph.builder import StreamBuilder
from sage.operators import QAPromptor
from sage.plan.planner import compile_plan
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.world import World
from sage.state.in_memory import MemoryStores
from sage.testing.broker import InMemoryClients
from sage.testing.services import ScriptedServices
from sage.tracing.idle import IdleTracer
from tests.unit.cluster.worker import steps


def deployed(build: Callable[[Any], Any], *, kafka: dict[str, Any] | None = None, **more: Any) -> Deployment:
    builder = StreamBuilder("qa")
    if kafka:
        builder.kafka = kafka
    build(builder.from_topic("in"))
    plan = compile_plan(builder.build())
    return Deployment("qa", 1, plan.to_json(), code=code_of(plan), **more)


def sources(left: str, right: str) -> Deployment:
    """Two sources of one topology, with these values for the label ``disk``."""
    builder = StreamBuilder("qa")
    builder.from_source(steps.Numbers, name="left", labels={"disk": left}).to("left-out")
    builder.from_source(steps.Numbers, name="right", labels={"disk": right}).to("right-out")
    plan = compile_plan(builder.build(), source_tasks={"left": ["0", "1"], "right": ["0", "1"]})
    return Deployment("qa", 1, plan.to_json(), code=code_of(plan))


def kinds(policy: Policy, deployment: Deployment, **environ: str) -> tuple[str, str]:
    check = Checker("w1", policy, environ).check(deployment)
    return check.kind, "\n".join(check.problems)


@pytest.mark.parametrize(
    ("allowed", "kind"),
    [((), "refused"), (("test",), "refused"), (("tests",), ""), (("tests.unit.cluster.worker.steps",), "")],
)
def test_code_runs_where_its_module_or_one_above_it_is_allowed(allowed: tuple[str, ...], kind: str) -> None:
    assert kinds(Policy(allowed), deployed(lambda s: s.map(steps.times_ten, name="work")))[0] == kind


def test_what_is_installed_as_an_entry_point_needs_no_leave() -> None:
    assert kinds(Policy(), deployed(lambda s: s.map(QAPromptor, name="prompt"))) == ("", "")
    with pytest.raises(Refused):
        Policy().load("os:system", "operator")


def test_a_variable_needs_leave_and_a_value() -> None:
    made = deployed(lambda s: s.map(steps.Keyed, {"api_key": "${SERVICE_KEY}"}, name="work"))
    kind, problems = kinds(Policy(("tests",)), made, SERVICE_KEY="x")
    assert (kind, "--allow-env SERVICE_KEY" in problems) == ("refused", True)
    allowed = Policy(("tests",), ("SERVICE_KEY",))
    kind, problems = kinds(allowed, made)
    assert (kind, "SERVICE_KEY is not set (on worker w1)" in problems) == ("unready", True)
    assert kinds(allowed, made, SERVICE_KEY="x") == ("", "")
    assert allowed.environ({"SERVICE_KEY": "x", "AWS_SECRET": "y"}) == {"SERVICE_KEY": "x"}


@pytest.mark.parametrize(
    "reference",
    [
        f"{steps.__name__}:SecretStr", "tests.chaos.worker:os.system", "tests.chaos.worker:time.sleep",
        "tests.chaos.worker:asyncio",
    ],
)  # fmt: skip
def test_what_an_allowed_module_imports_is_not_allowed_with_it(reference: str) -> None:
    with pytest.raises(Refused, match="may not run on this worker: it is code of"):
        Policy(("tests",)).load(reference, "operator")


@pytest.mark.parametrize("place", ["/any/path/shop.py", "../shop.py", "below/shop.py"])
def test_a_file_elsewhere_is_not_allowed_by_its_name(place: str) -> None:
    with pytest.raises(Refused, match="a file must lie in the folder"):
        Policy(("shop",)).load(f"{place}:work", "operator")


@pytest.mark.parametrize(
    "name",
    [
        "bootstrap.servers", "group.id", "sasl.password", "transactional.id", "ssl.ca.location",
        "enable.ssl.certificate.verification", "https.ca.location", "enable.sasl.oauthbearer.unsecure.jwt",
    ],
)  # fmt: skip
def test_a_topology_cannot_set_what_is_the_workers_own(name: str) -> None:
    made = deployed(lambda s: s.map(steps.times_ten, name="work"))
    plan = {**made.plan, "kafka": {name: "x"}}
    kind, problems = kinds(Policy(("tests",)), Deployment("qa", 1, plan, made.code))
    assert (kind, f"kafka.{name}" in problems) == ("refused", True)


def test_other_code_than_was_deployed_is_told() -> None:
    made = deployed(lambda s: s.map(steps.times_ten, name="work"))
    name = f"{steps.__name__}:times_ten"
    other = Deployment("qa", 1, made.plan, {**made.code, name: "0123"})
    kind, problems = kinds(Policy(("tests",)), other)
    assert (kind, f"{name} differs" in problems) == ("incompatible", True)


def test_sources_whose_labels_contradict_each_other_run_nowhere_and_are_told() -> None:
    policy = Policy(("tests",))
    assert kinds(policy, sources("a", "a")) == ("", "")
    kind, problems = kinds(policy, sources("a", "b"))
    assert (kind, "source 'right' wants workers with the label disk=b" in problems) == ("refused", True)


def test_a_problem_is_published_with_its_place_and_its_code() -> None:
    made = deployed(lambda s: s.map(steps.Keyed, {"api_key": "${SERVICE_KEY}"}, name="work"))
    check = Checker("w1", Policy(("tests",), ("SERVICE_KEY",)), {}).check(made)
    (part,) = check.parts
    assert (part.code, part.message) == ("SAGE301", "SERVICE_KEY is not set (on worker w1). Set it there.")
    assert part.where.endswith('step "work"')
    assert check.problems == (f"{part.where}: {part.message} [SAGE301]",)


def test_what_the_caller_runs_is_not_looked_for_here() -> None:
    made = deployed(lambda s: s.map(steps.times_ten, name="work"), caller=("work",))
    assert kinds(Policy(), made) == ("", "")


def test_a_file_that_changed_since_it_was_loaded_is_not_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "changing_code.py"
    file.write_text("def work(value):\n    return value\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("changing_code")
    try:
        builder = StreamBuilder("qa")
        builder.from_topic("in").map(module.work, name="work")
        plan = compile_plan(builder.build())
        assert changed_files(plan) == []
        later = file.stat().st_mtime + 10
        os.utime(file, (later, later))
        assert changed_files(plan) == [], "it was only written again"
        file.write_text("def work(value):\n    return [value]\n")
        assert changed_files(plan) == [file]
    finally:
        del sys.modules["changing_code"]


@pytest.mark.parametrize("broken", ["", "no collection of that name"])
def test_a_candidates_operators_are_opened_and_closed_again(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.Fragile, "broken", broken)
    made = deployed(lambda s: s.map(steps.Fragile, name="work"))
    plan = Checker("w1", Policy(("tests",)), {}).plan_of(made)
    loop = LoopThread()
    clients = InMemoryClients()
    world = World(clients, ScriptedServices(), IdleTracer(), SystemClock(), loop, {}, "w1", MemoryStores())
    problems = loop.call(open_operators(made, plan, world))
    loop.close()
    assert len(problems) == bool(broken)
    assert all(broken in each.message for each in problems)


def test_a_module_that_ends_the_program_is_a_problem_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving_code.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = deployed(lambda s: s.map(steps.times_ten, name="work"))
    plan = orjson.loads(orjson.dumps(made.plan).replace(f"{steps.__name__}:times_ten".encode(), b"leaving_code:f"))
    kind, problems = kinds(Policy(("leaving_code",)), Deployment("qa", 1, plan, {}))
    assert kind == "unready"
    assert "importing leaving_code ended the program (sys.exit(0))" in problems
    assert "test_checks.py" in problems.partition("importing")[0], "the step's place"
