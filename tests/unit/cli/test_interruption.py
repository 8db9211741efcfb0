"""Ctrl-C is one wherever it arrives."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from sage.cli import main as cli
from sage.errors import NotFound

Ending = Callable[[BaseException | None, bool], int]


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Ending:
    """The exit code of a program that gets Ctrl-C or does not, and ends with an error."""

    def end(error: BaseException | None, asked: bool) -> int:
        def run(*_: object) -> int:
            try:
                if asked:
                    signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                if error is None:
                    raise
            assert error is not None
            raise error

        monkeypatch.setattr(cli, "_run", run)
        return cli.main(["version"])

    return end


def test_it_is_told_in_a_word_and_exits_with_130(ending: Ending, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(None, True) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_library_that_puts_an_error_of_its_own_in_its_place_does_not_hide_it(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(TypeError("expected configuration property name as type unicode string"), True) == 130
    assert ending(SystemError("returned a result with an exception set"), True) == 130
    assert capsys.readouterr().err == "interrupted\n" * 2


def test_an_error_of_its_own_is_told_also_after_it(ending: Ending, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(NotFound("no topic 'x'"), True) == 4
    assert "no topic 'x'" in capsys.readouterr().err


def test_it_is_forgotten_by_the_next_program_and_leaves_no_handler_behind(ending: Ending) -> None:
    assert ending(None, True) == 130
    assert ending(TypeError("x"), False) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
