"""What the processes of `sage worker run --processes` are started with."""

from __future__ import annotations

import pytest

from sage.cli.commands.worker import _without

OPTIONS = {"--processes", "-p", "--id"}


@pytest.mark.parametrize("given", [("-p", "4"), ("-p4",), ("-p=4",), ("--processes", "4"), ("--processes=4",)])
def test_a_process_is_not_told_to_start_others_however_it_was_written(given: tuple[str, ...]) -> None:
    words = ["worker", "run", *given, "--id", "pair", "--label", "disk=large", "-b", "k:9092"]
    assert _without(words, OPTIONS) == ["worker", "run", "--label", "disk=large", "-b", "k:9092"]
