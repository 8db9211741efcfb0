"""Which port a service gets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sage.errors import PortTaken
from sage.services import ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def free() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((ports.HOST, 0))
        return int(probe.getsockname()[1])


def test_the_usual_port_is_taken_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = free()
    monkeypatch.setattr(ports, "PREFERRED", {"broker": usual})
    assert ports.choose("broker", asked=None) == usual


def test_another_is_found_when_somebody_has_it(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(ports, "PREFERRED", {"broker": taken})
    found = ports.choose("broker", asked=None)
    assert found != taken
    assert ports.is_free(found)


def test_the_port_it_had_before_comes_first(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(ports, "PREFERRED", {"broker": free()})
    earlier = free()
    assert ports.choose("broker", asked=None, earlier=earlier) == earlier
    assert ports.choose("broker", asked=None, earlier=taken) == ports.PREFERRED["broker"]


def test_services_of_one_start_do_not_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = free()
    monkeypatch.setattr(ports, "PREFERRED", {"memory": usual})
    assert ports.choose("memory", asked=None, avoid=[usual]) != usual
    with pytest.raises(PortTaken):
        ports.choose("memory", asked=usual, avoid=[usual])


def test_the_one_asked_for_is_given_or_refused(taken: int) -> None:
    wanted = free()
    assert ports.choose("model", asked=wanted) == wanted
    with pytest.raises(PortTaken, match=f"port {taken}, asked for as the model's, is in use"):
        ports.choose("model", asked=taken)


def test_a_listener_answers_and_nobody_does_not(taken: int) -> None:
    assert ports.answers(ports.HOST, taken)
    assert not ports.answers(ports.HOST, free(), timeout=0.2)
