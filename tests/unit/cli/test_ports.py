"""A number that no port can be is refused as what was typed wrong, before anything is started."""

from __future__ import annotations

import pytest

from sage.cli.main import main


@pytest.mark.parametrize(
    "words",
    [
        "worker run --health-port", "models serve local/smollm2 --port", "up --port", "up --broker-port",
        "up --memory-port", "up --model-port",
    ],
)  # fmt: skip
@pytest.mark.parametrize("number", ["65536", "99999", "-1"])
def test_a_number_that_is_no_port_is_2(words: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    *typed, option = words.split()
    assert main([*typed, f"{option}={number}"]) == 2
    said = capsys.readouterr().err
    assert number in said
    assert option.removeprefix("--") in said or "broker-port" in said
    assert "unexpected" not in said
