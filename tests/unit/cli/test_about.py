"""``sage version`` and ``sage completion``."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from sage.version import __version__
from tests.unit.cli.conftest import Sage


def test_the_version_is_one_line(sage: Sage) -> None:
    assert sage("version").out == sage("--version").out == f"sage {__version__}\n"


def test_as_json_it_names_what_sage_stands_on(sage: Sage) -> None:
    found = json.loads(sage("version", "-o", "json").out)
    assert found["sage"] == __version__
    assert found["confluent-kafka"]


def test_the_bash_script_is_bash(sage: Sage) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    script = sage("completion", "bash").out
    subprocess.run([bash, "-n"], input=script, text=True, check=True, timeout=30)
