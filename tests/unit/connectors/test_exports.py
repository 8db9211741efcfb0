import subprocess
import sys

import pytest

import sage_connectors


def test_every_connector_is_imported_by_its_name_only_when_used() -> None:
    for name in sage_connectors.__all__:
        assert getattr(sage_connectors, name).__name__ == name
    code = "import sys, sage_connectors; print([m for m in sys.modules if m.startswith('sage_connectors.')])"
    environ = {"PYTHONPATH": ".:connectors"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert out.stdout.strip() == "[]"


def test_a_name_that_nobody_has_is_an_error() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        sage_connectors.Nothing  # noqa: B018 - looking is the test
