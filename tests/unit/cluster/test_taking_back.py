"""A deploy that fails after the workers were given its version to check leaves nothing that is "checking" for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from sage.cluster import changes, deploying
from sage.cluster.deployer import Deployer
from sage.cluster.deploying import Wanted
from sage.cluster.desired import Desired
from sage.cluster.session import ControlSession
from sage.errors import ChangeRefused, Conflict, DeadlineExceeded, Forbidden, NotFound, TransientFailure, Unreachable
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients
from tests.unit.cluster.pipelines import asking

EVERY_KIND = [
    Forbidden("ann may not create topics"),
    Unreachable("nobody answers"),
    TransientFailure("not now"),
    OverflowError("signed integer is greater than maximum"),
    KeyboardInterrupt(),
    SystemExit(3),
]

VERBS: dict[str, Callable[[Deployer], object]] = {
    "scale": lambda deployer: deployer.scale("qa", {"ask": 2}),
    "restart": lambda deployer: deployer.restart("qa"),
    "rollback": lambda deployer: deployer.rollback("qa"),
    "pause": lambda deployer: deployer.pause("qa"),
    "resume": lambda deployer: deployer.resume("qa"),
    "drain": lambda deployer: deployer.drain("qa"),
    "stop": lambda deployer: deployer.stop("qa"),
}


@pytest.fixture
def clients() -> InMemoryClients:
    made = InMemoryClients()
    made.admin().create([TopicSpec("qa-in", 4)])
    return made


@pytest.fixture
def ann(clients: InMemoryClients) -> Deployer:
    return Deployer(clients, who="ann@laptop")


def check(deployer: Deployer, **config: Any) -> int:
    """What ``check_on_workers`` leaves when all is well there; the revision to deploy upon."""
    wanted = Wanted.of(asking(config=config))
    with deployer.session("qa") as session:
        deployer._deploying(session, wanted, (), 0.0, lambda _: None).candidate()
        assert session.pointer is not None
        return session.pointer.revision


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def written(deployer: Deployer) -> tuple[dict[str, tuple[int, int | None]], list[int]]:
    """The pointers (version, candidate), and the versions of ``qa``."""
    log = deployer.look()
    try:
        return {name: (each.version, each.candidate) for name, each in log.pointers.items()}, log.versions("qa")
    finally:
        log.close()


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_whatever_a_deploy_fails_of_nothing_is_left_being_checked(
    ann: Deployer, monkeypatch: pytest.MonkeyPatch, error: BaseException, is_running: bool
) -> None:
    if is_running:
        ann.deploy(asking())
    before = written(ann)
    revision = check(ann, top_k=3)
    monkeypatch.setattr(deploying, "prepare_topics", raising(error))
    with pytest.raises(type(error)) as told:
        ann.deploy(asking(config={"top_k": 3}), expected=revision)
    assert told.value is error
    assert written(ann) == before


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_a_check_that_ends_in_whatever_way_is_taken_back(
    ann: Deployer, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr("sage.cluster.deployer.wait_for_checks", raising(error))
    with pytest.raises(type(error)) as told:
        ann.check_on_workers(asking())
    assert told.value is error
    assert written(ann) == ({}, [])


def test_where_it_cannot_be_taken_back_the_first_error_is_told(
    ann: Deployer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    revision = check(ann)
    monkeypatch.setattr(deploying, "prepare_topics", raising(Forbidden("ann may not create topics")))
    monkeypatch.setattr(ann, "look", raising(Unreachable("nobody answers")))
    with caplog.at_level(logging.WARNING, "sage.cluster"), pytest.raises(Forbidden, match="may not create"):
        ann.deploy(asking(), expected=revision)
    assert "qa: it could not be taken back, and may still be being checked: nobody answers" in caplog.text


def test_what_was_written_and_could_not_be_read_back_is_not_taken_back(
    ann: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = check(ann)
    monkeypatch.setattr("sage.cluster.session.ControlSession._see", raising(Unreachable("it can't be read back")))
    with pytest.raises(Unreachable):
        ann.deploy(asking(), expected=revision)
    assert written(ann) == ({"qa": (1, None)}, [1])


def test_what_has_begun_stays_to_be_gone_on_with(ann: Deployer, monkeypatch: pytest.MonkeyPatch) -> None:
    ann.deploy(asking())
    check(ann, top_k=3)
    held = ann.change("qa", lambda current: changes.hold(current, 2, ("ask",), ()))
    monkeypatch.setattr(deploying, "prepare_topics", raising(Unreachable("nobody answers")))
    with pytest.raises(Unreachable):
        ann.deploy(asking(config={"top_k": 3}), expected=held.revision)
    assert written(ann) == ({"qa": (1, 2)}, [1, 2])


def test_another_plans_check_is_left_to_whoever_asked_for_it(ann: Deployer, monkeypatch: pytest.MonkeyPatch) -> None:
    check(ann, top_k=3)
    monkeypatch.setattr(deploying, "prepare_topics", raising(Unreachable("nobody answers")))
    with pytest.raises(Unreachable):
        ann.deploy(asking(config={"top_k": 4}))
    assert written(ann) == ({"qa": (0, 1)}, [1])


def test_who_lost_to_another_deployer_takes_nothing_back(ann: Deployer, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = check(ann)
    monkeypatch.setattr(deploying, "prepare_topics", raising(Conflict("another deployer took over")))
    with pytest.raises(Conflict):
        ann.deploy(asking(), expected=revision)
    assert written(ann) == ({"qa": (0, 1)}, [1])


def test_a_deploy_that_fails_unchecked_cuts_nobody_off(
    ann: Deployer, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[ControlSession] = []

    def another_comes(*_: object) -> None:
        came.append(Deployer(clients, who="bob@desk").session("qa"))
        raise DeadlineExceeded("too long")

    monkeypatch.setattr(deploying, "prepare_topics", another_comes)
    with pytest.raises(DeadlineExceeded):
        ann.deploy(asking())
    with came[0] as bobs:
        assert bobs.point(Desired("qa", 0)).changed_by == "bob@desk"


@pytest.mark.parametrize("top_k", [3, 4], ids=["the same plan", "another plan"])
def test_a_deploy_that_fails_cuts_off_nobody_who_has_written_since(
    ann: Deployer, clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch, top_k: int
) -> None:
    check(ann, top_k=3)
    bob = Deployer(clients, who="bob@desk")
    came: list[ControlSession] = []

    def another_comes(*_: object) -> None:
        session = bob.session("qa")
        wanted = Wanted.of(asking(config={"top_k": top_k}))
        bob._deploying(session, wanted, (), 0.0, lambda _: None).candidate()
        came.append(session)
        raise KeyboardInterrupt

    monkeypatch.setattr(deploying, "prepare_topics", another_comes)
    with pytest.raises(KeyboardInterrupt):
        ann.deploy(asking(config={"top_k": 3}))
    with came[0] as bobs:
        assert bobs.point(Desired("qa", 0)).changed_by == "bob@desk"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_what_was_never_deployed_says_so(ann: Deployer, verb: str) -> None:
    check(ann)
    with pytest.raises(ChangeRefused, match="not been deployed yet: its first version is being checked") as told:
        VERBS[verb](ann)
    assert told.value.where == "qa"


def test_whoever_looks_at_what_was_never_deployed_is_told_so(ann: Deployer) -> None:
    check(ann)
    with pytest.raises(NotFound, match="not been deployed yet: its first version is being checked"):
        ann.wait_settled("qa", 1.0)
    log = ann.look()
    with pytest.raises(NotFound, match="not been deployed yet: its first version is being checked"):
        log.deployment("qa", 0)
    ann.deploy(asking())
    with pytest.raises(NotFound, match="no version 0 of qa; there are: 1"):
        ann.look().deployment("qa", 0)
