"""What ``sage doctor --fix`` would type, and that it types it with this installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.errors import Unreachable
from sage.operations import doctor, doctor_fixes
from sage.operations.doctor import Finding
from sage.services import processes
from sage.services.service_set import ServiceSet
from tests.unit.operations.test_doctor import Model, world
from tests.unit.services.tcp_service import factory


def fixes(*findings: Finding) -> list[str]:
    return [" ".join(command) for command in doctor_fixes.commands(findings)]


def test_a_dead_service_is_started_again(tmp_path: Path) -> None:
    services = ServiceSet(tmp_path)
    entry = services.up(["broker"], factories={"broker": factory()}).services["broker"]
    try:
        assert fixes(*doctor.services(tmp_path)) == []
        processes.kill(entry.pid, entry.identity)
        assert fixes(*doctor.services(tmp_path)) == [f"sage up --only broker --data-dir {tmp_path}"]
    finally:
        services.down(timeout=2)


def test_a_missing_model_is_pulled_and_one_that_is_here_is_not() -> None:
    found = doctor.models(lambda: [Model("local/a", Path("/a/a.gguf")), Model("local/b", None)])
    assert fixes(*found) == ["sage models pull local/b"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no broker is named and none runs for .sage. Start one with `sage up`", 1),
        ("up.json: dead broker behind it", 0),
    ],
)
def test_a_broker_is_started_only_where_none_is_named(tmp_path: Path, message: str, expected: int) -> None:
    def none() -> doctor.Brokers:
        raise Unreachable(message)

    there = world(tmp_path)
    found = doctor.brokers(doctor.World(tmp_path, none, there.broker_facts, there.models))
    assert len(fixes(*found)) == expected


def test_settings_that_are_open_to_others_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert list(doctor.settings(path)) == []
    assert list(doctor.settings(None)) == []
    path.write_text("{}")
    path.chmod(0o644)
    (finding,) = doctor.settings(path)
    assert (finding.state, finding.fix) == ("warn", ("chmod", "600", str(path)))
    assert doctor_fixes.run(finding.fix) == 0
    (finding,) = doctor.settings(path)
    assert (finding.state, finding.fix) == ("ok", ())


def test_each_command_is_typed_once_and_what_is_well_needs_none() -> None:
    fix = ("sage", "up")
    assert fixes(Finding("a", "fail", "x", fix=fix), Finding("b", "warn", "x", fix=fix)) == ["sage up"]
    assert fixes(Finding("a", "ok", "x", fix=fix), Finding("b", "fail", "x")) == []


def test_sage_is_this_installations(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor_fixes.run(("sage", "version", "-o", "json")) == 0
    assert '"sage-streams"' in capfd.readouterr().err
    assert doctor_fixes.run(("sage", "nonsense")) == 2
