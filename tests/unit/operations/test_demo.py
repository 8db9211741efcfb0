"""The typist of the demo: shows a command, runs that command, stops where it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage.operations import demo
from sage.operations.demo import Step, StepFailed, Typist, own_broker
from sage.version import __version__


def test_what_is_shown_is_what_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []
    typist = Typist(tmp_path, show=shown.append)
    typist.type(Step(("version",)))
    assert shown == ["sage version"]
    assert capfd.readouterr().out == f"sage {__version__}\n"
    assert typist.seconds["version"] > 0


def test_lines_can_be_made_readable_on_the_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Typist(tmp_path, show=lambda line: None).type(Step(("version",)), render=str.upper)
    assert capfd.readouterr().out == f"SAGE {__version__}\n"


def test_a_command_that_fails_ends_it_with_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typist = Typist(tmp_path, show=lambda line: None)
    with pytest.raises(StepFailed, match=r"`sage topology validate nope\.yaml` ended with exit code 4") as caught:
        typist.type(Step(("topology", "validate", "nope.yaml")))
    assert caught.value.exit_code == 4
    assert typist.seconds.keys() == {"validate"}
    assert "nope.yaml" in capfd.readouterr().err


def test_it_keeps_away_from_brokers_that_are_not_its_own() -> None:
    own = own_broker({"SAGE_BOOTSTRAP_SERVERS": "prod:9092", "HOME": "/h"})
    assert own == {"HOME": "/h", "SAGE_CONFIG": os.devnull}


def test_the_script_is_that_of_the_documentation() -> None:
    assert [step.typed for step in (demo.INIT, demo.UP, demo.INGEST, demo.RUN)] == [
        "sage init handbook --template rag-qa && cd handbook",
        "sage up",
        "sage memory ingest handbook docs/",
        "sage topology run rag-qa.yaml --until-idle",
    ]
