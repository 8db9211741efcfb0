"""Each check says what it found and what to do."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sage.cluster.names import ControlTopics
from sage.errors import InvalidTopology, Unreachable
from sage.operations import doctor
from sage.operations.doctor import Finding, World, diagnose
from sage.services import ports, processes
from sage.services.service_set import ServiceSet
from sage.testing.broker import InMemoryClients
from tests.unit.services.tcp_service import factory


@dataclass(frozen=True)
class FakeBrokers:
    """Brokers in memory."""

    address: str = "in-memory"
    origin: str = "SAGE_BOOTSTRAP_SERVERS"

    @property
    def control_topics(self) -> ControlTopics:
        return ControlTopics()

    def clients(self) -> InMemoryClients:
        return InMemoryClients()


@dataclass(frozen=True)
class Model:
    name: str
    path: Path | None


def world(data_dir: Path, *, facts: Mapping[str, str] | None = None, models: Sequence[Model] = ()) -> World:
    return World(
        data_dir=data_dir,
        brokers=FakeBrokers,
        broker_facts=lambda _: facts or {"group_protocol": "classic"},
        models=lambda: models,
    )


def by_check(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_every_finding_that_is_not_well_says_what_to_do(tmp_path: Path) -> None:
    for finding in diagnose(world(tmp_path, models=[Model("local/x", None)])):
        assert finding.found
        if finding.state in {"warn", "fail"}:
            assert finding.advice, finding


def test_an_old_python_fails() -> None:
    assert doctor.python((3, 10, 4)).state == "fail"
    assert doctor.python().state in {"ok", "warn"}


def test_a_stranger_in_our_package_is_found() -> None:
    found = doctor.owner({"sage": ["sage-streams", "isage"]})
    assert found.state == "fail"
    assert found.found.startswith("isage also installs")
    assert "pip uninstall isage" in found.advice
    assert doctor.owner({"sage": ["sage-streams"]}).state == "ok"


def test_an_editable_install_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda name: "1.0")
    assert "editable" in doctor.owner({"other": ["other"]}).found
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    assert doctor.owner({"other": ["other"]}).state == "warn"


@pytest.mark.parametrize(("free", "state"), [(10**10, "ok"), (5 * 10**8, "warn"), (10**6, "fail")])
def test_disk_space_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: _Usage(free))
    assert doctor.disk(tmp_path / "not" / "there").state == state


@dataclass(frozen=True)
class _Usage:
    free: int


def test_a_dead_service_fails_and_a_living_one_is_well(tmp_path: Path) -> None:
    services = ServiceSet(tmp_path)
    entry = services.up(["broker"], factories={"broker": factory()}).services["broker"]
    try:
        assert by_check(list(doctor.services(tmp_path)))["broker"].state == "ok"
        processes.kill(entry.pid, entry.identity)
        found = by_check(list(doctor.services(tmp_path)))["broker"]
        assert (found.state, found.advice.split(";")[0]) == ("fail", "sage up")
        assert "is dead" in found.found
    finally:
        services.down(timeout=2)


def test_a_usual_port_that_somebody_has_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(ports, "PREFERRED", {"broker": taken.getsockname()[1]})
        (found,) = doctor.services(tmp_path)
    assert found.state == "warn"
    assert "(broker) taken by other programs" in found.found


def test_brokers_that_do_not_answer_fail_and_none_at_all_is_a_warning(tmp_path: Path) -> None:
    def none() -> FakeBrokers:
        raise Unreachable("no broker is named")

    class Silent(FakeBrokers):
        def clients(self) -> InMemoryClients:
            raise Unreachable("cannot reach localhost:1 (refused)")

    there = world(tmp_path)
    found = by_check(list(doctor.brokers(there)))
    assert (found["kafka"].state, found["groups"].state) == ("ok", "ok")
    assert "SAGE_BOOTSTRAP_SERVERS" in found["kafka"].found
    (warned,) = doctor.brokers(World(tmp_path, none, there.broker_facts, there.models))
    assert (warned.state, warned.advice) == ("warn", "start one with `sage up`")

    def broken() -> FakeBrokers:
        raise InvalidTopology("must hold `current-context` and `contexts`", where="/home/ann/config.yaml")

    (warned,) = doctor.brokers(World(tmp_path, broken, there.broker_facts, there.models))
    assert warned.found == "/home/ann/config.yaml: must hold `current-context` and `contexts`"
    assert warned.advice == "mend that file, or name brokers with -b"
    (failed,) = doctor.brokers(World(tmp_path, Silent, there.broker_facts, there.models))
    assert failed.state == "fail"
    assert failed.found == "cannot reach localhost:1 (refused) [SAGE201]"


@pytest.mark.parametrize(
    ("facts", "state", "says"),
    [
        ({"group_protocol": "consumer", "min_session_timeout_ms": "6000"}, "ok", "after 6 s at the earliest"),
        ({"group_protocol": "consumer", "min_session_timeout_ms": "45000"}, "warn", "after 45 s at the earliest"),
        ({"group_protocol": "consumer"}, "info", "45 s by default"),
        ({"group_protocol": "classic"}, "ok", "classic protocol"),
        ({"group_protocol": "classic", "embedded": "true"}, "info", "stay its own until it is started again"),
    ],
)
def test_the_real_bound_of_a_takeover_is_printed(
    tmp_path: Path, facts: Mapping[str, str], state: str, says: str
) -> None:
    found = by_check(list(doctor.brokers(world(tmp_path, facts=facts))))["groups"]
    assert found.state == state
    assert says in found.found


def test_a_model_that_is_not_here_can_be_pulled(tmp_path: Path) -> None:
    found = list(doctor.models(lambda: [Model("local/a", tmp_path / "a.gguf"), Model("local/b", None)]))
    assert [one.state for one in found] == ["ok", "warn"]
    assert found[1].advice == "sage models pull local/b"


def test_tools_of_the_tests_are_information_only() -> None:
    found = list(doctor.tools())
    assert {one.state for one in found} == {"info"}
    assert {one.check for one in found} == {"java", "mvn", "go"}


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "noida-db" else "1.0")
    found = by_check(list(doctor.packages()))
    assert found["packages"].state == "ok"
    assert found["local extra"].state == "warn"
    assert "the embedded broker" in found["local extra"].found
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    assert by_check(list(doctor.packages()))["packages"].state == "fail"
