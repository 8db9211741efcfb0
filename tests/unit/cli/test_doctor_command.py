"""``sage doctor --fix`` types what it would advise, and looks again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from sage.operations import doctor, doctor_fixes
from sage.operations.doctor import Finding
from tests.unit.cli.conftest import Sage


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was typed; whatever it was, it mends everything."""
    done: list[tuple[str, ...]] = []

    def run(command: Sequence[str]) -> int:
        done.append(tuple(command))
        return 0

    def diagnose(world: doctor.World) -> Iterator[Finding]:
        del world
        yield Finding("python", "ok", "3.11")
        yield Finding("broker", "ok" if done else "fail", "1234", "sage up", () if done else ("sage", "up"))

    monkeypatch.setattr(doctor_fixes, "run", run)
    monkeypatch.setattr(doctor, "diagnose", diagnose)
    return done


def test_without_fix_nothing_is_typed(sage: Sage, typed: list[tuple[str, ...]]) -> None:
    found = sage("doctor")
    assert (found.code, typed) == (1, [])
    assert found.err == "1 of 2 checks failed\n"


def test_with_fix_it_is_typed_and_everything_is_looked_at_again(sage: Sage, typed: list[tuple[str, ...]]) -> None:
    found = sage("doctor", "--fix")
    assert (found.code, typed, found.err) == (0, [("sage", "up")], "$ sage up\n")
    assert [line.split()[0] for line in found.out.splitlines()] == ["ok", "fail", "ok", "ok"]
    again = sage("doctor", "--fix", "-o", "json")
    assert [finding["state"] for finding in json.loads(again.out)] == ["ok", "ok"]
    assert again.err == "nothing here that --fix can mend\n"


def test_rights_are_not_mended(sage: Sage) -> None:
    found = sage("doctor", "--fix", "--prefix", "qa")
    assert (found.code, found.out) == (2, "")
    assert "rights are given by an administrator" in found.err
