"""The verbs of deployed topologies, typed against workers of this process and a broker in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.cli.commands import topology_look
from sage.errors import Unreachable
from sage.operations.cluster import Cluster
from tests.support.waiting import wait_until
from tests.unit.cli import memory_broker
from tests.unit.cli.conftest import Outcome, Sage
from tests.unit.cluster.worker.town import TOPICS, Town

PIPELINES = "tests.unit.cli.pipelines"
FIRST, SECOND = f"{PIPELINES}:first", f"{PIPELINES}:second"


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    made = Town()
    memory_broker.use(monkeypatch, made.clients, TOPICS)
    made.topic("numbers", 2)
    yield made
    made.close()


@pytest.fixture
def typed(sage: Sage) -> Sage:
    """``typed("list")`` is ``sage topology list``, which must succeed."""

    def call(*words: str, **options: Any) -> Outcome:
        found = sage("topology", *words, **options)
        assert found.code == 0, found
        return found

    return call


def data(outcome: Outcome) -> Any:
    return json.loads(outcome.out)


def test_from_the_first_deploy_to_the_last_trace(typed: Sage, sage: Sage, town: Town) -> None:
    town.worker("w1")
    town.feed("numbers", 1, 2)
    done = typed("deploy", FIRST, "--wait", "-m", "the first")
    assert done.out == "deployed calc v1\n"
    assert "+ 3 steps" in done.err
    assert "  work 1/1" in done.err.splitlines()
    town.until_out("results", [2, 4])

    assert typed("deploy", FIRST).out == "calc v1 runs already; nothing changed\n"
    (row,) = data(typed("list", "-o", "json"))
    assert (row["name"], row["version"], row["state"], row["health"], row["ready"], row["workers"]) == (
        "calc", 1, "running", "ok", 1, ["w1"],
    )  # fmt: skip
    assert typed("list").out.splitlines()[1].split()[:6] == ["calc", "1", "running", "ok", "1/1", "1"]

    second = typed("deploy", SECOND, "--wait", "-o", "json")
    assert (data(second)["version"], data(second)["diff"]["restarts"]) == (2, ["work"])
    town.feed("numbers", 3)
    town.until_out("results", [2, 4, 9])

    assert typed("rollback", "calc", "--wait").out == "rolled back to calc v1\n"
    town.feed("numbers", 4)
    town.until_out("results", [2, 4, 8, 9])

    history = data(typed("history", "calc", "-o", "json"))
    assert [(each["version"], each["stored"]) for each in history[-1:]] == [(0, False)]
    assert [each["reason"] for each in history if each["version"]][-1] == "the first"
    assert history[0]["reason"] == "rollback to version 1"

    refused = sage("topology", "delete", "calc")
    assert (refused.code, refused.err) == (2, "sage: Delete calc? Say so with --yes\n")
    assert typed("delete", "calc", "-y").out.startswith("deleted calc; its topics, offsets and state stay")
    assert data(typed("list", "-o", "json")) == []
    assert [row["state"] for row in data(typed("list", "--all", "-o", "json"))] == ["deleted"]
    wait_until(lambda: not town.said("calc").get("w1"), what="the worker has left")
    purged = typed("delete", "calc", "--purge", "-y", "-o", "json")
    assert "calc.dlq" in data(purged)["purged"]["topics"]
    assert not [name for name in town.clients.topics() if name.startswith("calc.")]
    assert "results" in town.clients.topics(), "written by `to`: not its own"
    assert typed("list", "--all").err.startswith("nothing is deployed")


def test_pausing_scaling_restarting_and_draining(typed: Sage, town: Town) -> None:
    town.worker("w1")
    town.worker("w2")
    typed("deploy", FIRST, "--wait")
    assert typed("scale", "calc", "work=1", "--wait").out == "calc v1 running (scale work=1)\n"
    assert len(town.states("work", "calc")) == 1
    assert typed("scale", "calc", "work=2", "--wait").code == 0
    assert len(town.states("work", "calc")) == 2

    assert typed("pause", "calc", "--wait").out == "calc v1 paused\n"
    town.feed("numbers", 5)
    status = data(typed("status", "calc", "-o", "json"))
    (stage,) = status["stages"]
    assert (status["state"], stage["state"], stage["lag"], stage["eta"]) == ("paused", "paused", 1, None)
    assert typed("resume", "calc").out == "calc v1 running\n"
    town.until_out("results", [10])

    restarted = typed("restart", "calc", "work", "--wait", "-o", "json")
    assert (data(restarted)["state"], data(restarted)["settled"]) == ("running", True)
    assert typed("wait", "calc").out.startswith("calc v1 running")
    assert typed("drain", "calc").out == "calc v1 drained\n"
    assert typed("wait", "calc").out == "calc v1 drained\n"
    assert typed("resume", "calc", "--wait").code == 0
    town.feed("numbers", 6)
    town.until_out("results", [10, 12])


def test_a_worker_is_told_to_drain_and_to_take_work_on_again(sage: Sage, town: Town) -> None:
    town.worker("w1")
    town.worker("w2")
    assert sage("topology", "deploy", FIRST, "--wait").code == 0
    wait_until(lambda: len(town.states("work", "calc")) == 2, what="both host it")
    told = sage("worker", "drain", "w1", "-o", "json")
    assert (told.code, data(told)) == (0, {"worker": "w1", "drain": True})
    wait_until(lambda: list(town.states("work", "calc")) == ["w2"], what="the other has it all")
    assert sage("worker", "drain", "w1", "--undo").out == "worker w1 takes work on again\n"
    wait_until(lambda: len(town.states("work", "calc")) == 2, what="both host it again")
    assert sage("worker", "drain", "w9").code == 4


def test_a_watched_status_is_shown_again_and_again_until_ctrl_c(
    typed: Sage, sage: Sage, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.worker("w1")
    typed("deploy", FIRST, "--wait")

    def pause_it() -> None:
        town.deployer.pause("calc")
        wait_until(lambda: town.said("calc")["w1"]["work"].state == "paused", what="it is paused")

    def lose_the_brokers_once() -> None:
        refresh = Cluster.refresh

        def away(cluster: Cluster) -> None:
            monkeypatch.setattr(Cluster, "refresh", refresh)
            raise Unreachable("no broker answers")

        monkeypatch.setattr(Cluster, "refresh", away)

    def watch(*words: str, between: tuple[Callable[[], object], ...]) -> Outcome:
        happens = list(between)

        def pause(seconds: float) -> None:
            if not happens:
                raise KeyboardInterrupt
            happens.pop(0)()

        monkeypatch.setattr(topology_look, "_pause", pause)
        return sage("topology", "status", "calc", "--watch", *words)

    found = watch("-o", "json", between=(pause_it, lose_the_brokers_once, lambda: None))
    assert found.code == 130
    looks = [json.loads(line) for line in found.out.splitlines()]
    assert [(look["state"], look["stages"][0]["state"]) for look in looks] == [
        ("running", "running"), ("paused", "paused"), ("paused", "paused"),
    ]  # fmt: skip
    assert "looking again: no broker answers" in found.err

    table = watch(between=(lambda: None,))
    assert table.out.count("calc v1 paused, ok; 1 worker") == 2
    assert table.out.count("STAGE") == 2


def test_status_shows_each_stage_and_who_has_which_partition(typed: Sage, town: Town) -> None:
    town.worker("w1")
    typed("deploy", f"{PIPELINES}:counting", "--wait")
    town.feed("numbers", *range(10))
    wait_until(lambda: data(typed("status", "counts", "-o", "json"))["stages"][-1]["read"] == 10, what="all is read")
    first, *lines = typed("status", "counts").out.splitlines()
    assert first == "counts v1 running, ok; 1 worker"
    assert lines[0].split()[:5] == ["STAGE", "STATE", "WORKERS", "RATE/S", "LAG"]
    assert {line.split()[1] for line in lines[1:]} == {"running"}
    assert {line.split()[2] for line in lines[1:]} == {"1/1"}

    shown = typed("describe", "counts").out
    assert "tests.unit.cli.pipelines:count=" in shown
    assert "key_by  numbers:0        w1" in shown
    described = data(typed("describe", "counts", "-o", "json"))
    assert (described["version"], described["desired"]["revision"]) == (1, described["desired"]["revision"])


def test_a_plan_is_compared_saved_and_deployed(typed: Sage, sage: Sage, town: Town, tmp_path: Path) -> None:
    town.worker("w1")
    fresh = typed("plan", FIRST)
    assert "work" in fresh.out
    assert fresh.err.startswith("calc is not deployed: + 3 steps")
    assert TOPICS.topologies in town.clients.topics(), "the worker made it"
    assert sage("topology", "plan", FIRST, "--detailed-exitcode").code == 2

    typed("deploy", FIRST, "--wait")
    assert sage("topology", "plan", FIRST, "--detailed-exitcode").code == 0
    assert typed("plan", FIRST).out == "no changes: calc v1 is this\n"
    changed = sage("topology", "plan", SECOND, "--detailed-exitcode", "--save", "second.json")
    assert (changed.code, changed.out[0]) == (2, "~")
    assert "rolling restart of 1 step" in changed.out
    assert typed("deploy", "--plan", "second.json").out == "deployed calc v2\n"

    stale = sage("topology", "deploy", "--plan", "second.json")
    assert (stale.code, stale.out) == (1, "")
    assert "changed meanwhile" in stale.err
    assert data(typed("plan", SECOND, "-o", "json"))["diff"]["changes"] == []


def test_a_saved_plan_whose_code_has_changed_since_is_refused(sage: Sage, town: Town, tmp_path: Path) -> None:
    assert sage("topology", "plan", FIRST, "--save", "p.json").code == 0
    document = json.loads((tmp_path / "p.json").read_text())
    document["code"][f"{PIPELINES}:double"] = "0000"
    (tmp_path / "p.json").write_text(json.dumps(document))
    found = sage("topology", "deploy", "--plan", "p.json")
    assert (found.code, found.out) == (1, "")
    assert "the code has changed since this plan was saved" in found.err
    (tmp_path / "p.json").write_text("{}")
    assert "is no saved plan" in sage("topology", "deploy", "--plan", "p.json").err


def test_what_would_leave_something_behind_needs_its_flag(typed: Sage, sage: Sage, town: Town) -> None:
    town.worker("w1")
    typed("deploy", FIRST, "--wait")
    other = f"{PIPELINES}:without_the_step"
    assert "refused by deploy without --allow-orphans" in typed("plan", other).err
    refused = sage("topology", "deploy", other, "--wait")
    assert (refused.code, refused.out) == (1, "")
    assert "--allow-orphans" in refused.err
    assert typed("deploy", other, "--wait", "--allow-orphans").out == "deployed calc v2\n"


@pytest.mark.parametrize(
    ("before", "after", "flag"),
    [("narrow", "wide", "--repartition"), ("totals", "spelt", "--allow-state-change")],
)
def test_what_moves_or_changes_state_needs_its_flag(
    typed: Sage, sage: Sage, town: Town, before: str, after: str, flag: str
) -> None:
    town.worker("w1")
    typed("deploy", f"{PIPELINES}:{before}", "--wait")
    changed = f"{PIPELINES}:{after}"
    other_flags = {"--repartition", "--allow-state-change", "--allow-orphans"} - {flag}
    assert f"refused by deploy without {flag}" in typed("plan", changed).err
    refused = sage("topology", "deploy", changed, "--wait", *sorted(other_flags))
    assert (refused.code, refused.out) == (1, "")
    assert flag in refused.err
    assert f"needs {flag}" in refused.err
    done = typed("deploy", changed, "--wait", flag)
    assert "deployed" in done.out
    assert f"; allowed by {flag}" in done.err
    assert "needs" not in done.err


def test_a_lambda_is_refused_where_it_stands(sage: Sage, town: Town) -> None:
    found = sage("topology", "deploy", f"{PIPELINES}:with_a_lambda")
    assert (found.code, found.out) == (3, "")
    assert "workers cannot import a lambda" in found.err
    assert "[SAGE401]" in found.err


def test_without_workers_a_deploy_waits_in_vain_and_says_so(typed: Sage, sage: Sage, town: Town) -> None:
    town.topic("numbers", 2)
    found = sage("topology", "deploy", FIRST, "--wait", "--timeout", "100ms")
    assert (found.code, found.out) == (4, "")
    assert "no worker is online to check it; start one with `sage worker run`" in found.err
    assert data(typed("list", "-o", "json")) == [], "the candidate was taken back"
    typed("deploy", FIRST)
    status = sage("topology", "status", "calc")
    assert status.code == 1
    assert "no worker is online" in status.err
    assert sage("topology", "wait", "calc", "--timeout", "100ms").code == 5


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("status", "nope"), 4, "no topology 'nope' is deployed"),
        (("describe", "nope"), 4, "no topology 'nope' is deployed"),
        (("describe", "calc", "--version", "9"), 4, "no version 9 of calc; there are: 1"),
        (("history", "nope"), 4, "no topology 'nope' is deployed"),
        (("rollback", "calc"), 1, "there is no version before 1"),
        (("rollback", "calc", "--to", "7"), 4, "no version 7 of calc"),
        (("scale", "calc"), 2, "STEP=N"),
        (("scale", "calc", "work"), 2, "STEP=N wants a step and a number; found 'work'"),
        (("scale", "calc", "work=²"), 2, "STEP=N wants a step and a number; found 'work=²'"),
        (("scale", "calc", "work=2", "--wait", "--timeout", "²"), 2, "--timeout"),
        (("scale", "calc", "wrok=2"), 3, "no step 'wrok'; did you mean work?"),
        (("scale", "calc", "work=0"), 3, "at least one worker"),
        (("pause", "nope"), 4, "no topology 'nope' is deployed"),
        (("restart", "calc", "nope"), 3, "no step 'nope'"),
        (("drain", "nope"), 4, "no topology 'nope' is deployed"),
        (("wait", "nope"), 4, "no topology 'nope' is deployed"),
        (("delete", "nope", "-y"), 4, "no topology 'nope' is deployed"),
        (("deploy",), 2, "give a TARGET or --plan FILE"),
        (("deploy", FIRST, "--timeout", "soon"), 2, "--timeout: 'soon' is not a duration"),
        (("deploy", "--plan", "nope.json"), 4, "no file nope.json"),
        (("plan", FIRST, "--offline", "--detailed-exitcode"), 2, "--offline does not"),
    ],
)
def test_what_is_wrong_is_one_line(
    typed: Sage, sage: Sage, town: Town, words: tuple[str, ...], code: int, says: str
) -> None:
    typed("deploy", FIRST)
    found = sage("topology", *words)
    assert (found.code, found.out) == (code, "")
    assert says in found.err
    assert len(found.err.splitlines()) == 1


def test_where_nothing_was_ever_deployed(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_broker.use(monkeypatch)
    found = sage("topology", "status", "calc")
    assert (found.code, found.err) == (
        4,
        "calc: is not deployed on in-memory: nothing ever was; `sage topology deploy TARGET` does it [SAGE203]\n",
    )
    assert sage("topology", "list").err.startswith("nothing is deployed")
