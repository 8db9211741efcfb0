"""A first signal drains, a second one ends at once, whenever it comes."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sage.cli.commands import topology_run
from sage.cli.commands.topology_run import draining
from sage.environments.local import LocalEnvironment

DRAINING, NOT_DRAINED = (
    "draining; press Ctrl-C again to end at once",
    "not drained: what was not committed is read again",
)


class Desk:
    """A terminal and an environment; the second signal comes during one of their calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, during: str) -> None:
        self.calls: list[str] = []
        self._during = during
        monkeypatch.setattr(topology_run, "terminal", lambda: SimpleNamespace(note=self._called))
        monkeypatch.setattr(topology_run.logging, "disable", lambda: None)

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if what == self._during:
            raise KeyboardInterrupt

    def stop(self) -> None:
        self._called("stop")

    def abandon(self) -> None:
        self._called("abandon")

    def interrupted(self) -> None:
        with draining(cast(LocalEnvironment, self)):
            raise KeyboardInterrupt


def test_a_first_signal_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, during="nothing")
    with pytest.raises(KeyboardInterrupt):
        desk.interrupted()
    assert desk.calls == [DRAINING, "stop"]


@pytest.mark.parametrize("during", [DRAINING, "stop"])
def test_a_second_signal_ends_at_once_also_while_the_first_is_being_answered(
    during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(monkeypatch, during)
    with pytest.raises(KeyboardInterrupt):
        desk.interrupted()
    assert desk.calls[-2:] == ["abandon", NOT_DRAINED]


def test_a_terminal_that_goes_away_drains_however_often_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell says it as well as the kernel: the second one is nobody who has lost patience."""
    desk = Desk(monkeypatch, during="nothing")

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        desk.calls.append("stop")

    monkeypatch.setattr(desk, "stop", stop)
    before = signal.getsignal(signal.SIGHUP)
    with draining(cast(LocalEnvironment, desk)):
        os.kill(os.getpid(), signal.SIGHUP)
        pytest.fail("it went on")
    assert desk.calls == [DRAINING, "stop"]
    assert signal.getsignal(signal.SIGHUP) == before


def test_who_was_started_to_outlive_its_terminal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with draining(cast(LocalEnvironment, Desk(monkeypatch, during="nothing"))):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_was_abandoned_is_not_drained_when_the_environment_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = LocalEnvironment("t")
    environment._run = cast(Any, SimpleNamespace(stop=lambda timeout: pytest.fail("it was drained")))
    environment.abandon()
    environment.close()
