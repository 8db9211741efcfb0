"""The options of every command, wherever they stand."""

from __future__ import annotations

import pytest

from sage.cli.flags import FORMATS, UsageError, parse_flags


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("spelling", ["-o {0}", "-o{0}", "--output {0}", "--output={0}"])
def test_every_spelling_of_the_format_is_understood(form: str, spelling: str) -> None:
    words = spelling.format(form).split()
    assert parse_flags(["topics", *words, "list"]).output == form
    assert parse_flags([*words, "topics", "list"]).rest == ("topics", "list")


def test_without_options_the_rest_is_all() -> None:
    flags = parse_flags(["topics", "tail", "-n", "3", "a"])
    assert flags.rest == ("topics", "tail", "-n", "3", "a")
    assert (flags.output, flags.output_given, flags.quiet, flags.debug, flags.no_input) == (
        "table", False, False, False, False,
    )  # fmt: skip


def test_switches_are_taken_out() -> None:
    flags = parse_flags(["up", "-q", "--debug", "--no-input", "-h"])
    assert flags.rest == ("up",)
    assert flags.quiet
    assert flags.debug
    assert flags.no_input
    assert flags.help


def test_after_two_dashes_words_are_the_commands_own() -> None:
    flags = parse_flags(["topics", "produce", "t", "--", "-q", "-o", "json"])
    assert flags.rest == ("topics", "produce", "t", "--", "-q", "-o", "json")
    assert flags.output == "table"


@pytest.mark.parametrize("words", [["-o"], ["-o", "xml"], ["--output=csv"], ["--output", ""]])
def test_an_unknown_format_is_refused_with_those_there_are(words: list[str]) -> None:
    with pytest.raises(UsageError, match="one of table, wide, json, yaml"):
        parse_flags(["topics", "list", *words])
