"""``sage up``, ``status``, ``down`` with small real services."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage import app
from sage.services import processes
from sage.services.service_set import ServiceSet
from tests.unit.cli.conftest import Sage
from tests.unit.services.tcp_service import ask, factory


@pytest.fixture(autouse=True)
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceSet]:
    def factories(model: str | None, progress: object = None) -> dict[str, object]:
        made: dict[str, object] = {"broker": factory("broker"), "memory": factory("memory")}
        if model is not None:
            made["model"] = factory("model")
        return made

    monkeypatch.setattr(app, "service_factories", factories)
    made = ServiceSet(tmp_path / ".sage")
    yield made
    made.down(timeout=2)


def test_up_starts_a_model_where_a_topology_of_the_folder_names_one(sage: Sage, tmp_path: Path) -> None:
    assert set(json.loads(sage("up", "-o", "json").out)["services"]) == {"broker", "memory"}
    (tmp_path / "rag.yaml").write_text("config: {model: local/smollm2}\n")
    line = sage("up").out
    assert re.fullmatch(r"broker localhost:\d+ \| memory localhost:\d+ \| model :\d+ \| ready in \S+ m?s\n", line), line
    assert sage("down").out == "stopped model, memory, broker\n"


def test_a_model_can_be_asked_for(sage: Sage) -> None:
    found = json.loads(sage("up", "--only", "model", "--model", "local/smollm2", "-o", "json").out)
    assert list(found["services"]) == ["model"]
    assert ask(found["services"]["model"]["port"]) == found["services"]["model"]["pid"]


def test_how_long_a_service_is_up_is_seconds_for_programs_and_a_text_for_people(sage: Sage) -> None:
    assert sage("up").code == 0
    for row in json.loads(sage("status", "-o", "json").out):
        assert 0 <= row["up_seconds"] < 600
    title, *lines = sage("status").out.splitlines()
    assert "UP FOR" in title
    assert all(re.search(r" \d[\d.]* m?s ", line) for line in lines), lines


def test_status_of_a_dead_service_is_4_and_says_what_to_do(sage: Sage, services: ServiceSet) -> None:
    assert sage("up").code == 0
    entry = services.status()[0].entry
    processes.kill(entry.pid, entry.identity)
    found = sage("status")
    assert found.code == 4
    assert [line.split()[1] for line in found.out.splitlines()[1:]] == ["dead", "running"]
    assert f"up.json: dead broker behind it: {entry.address}" in found.err
    assert "start it again with `sage up`" in found.err
    assert len(found.err.splitlines()) == 1


def test_a_service_that_fails_shows_its_log(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "service_factories", lambda model, progress=None: {"broker": factory(mode="fail")})
    found = sage("up", "--only", "broker")
    assert found.code == 1
    assert found.err.splitlines()[0] == "  | reading its files"
    assert found.err.rstrip().endswith("[SAGE214]")


def test_another_data_folder_is_another_set(sage: Sage, tmp_path: Path) -> None:
    assert sage("up", "--only", "broker", "--data-dir", "other").code == 0
    try:
        assert json.loads(sage("status", "-o", "json").out) == []
        assert len(json.loads(sage("status", "-o", "json", "--data-dir", "other").out)) == 1
    finally:
        ServiceSet(tmp_path / "other").down(timeout=2)
