"""A signal may come in the middle of anything; nothing that is called after it may hang."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from sage.environments.local import LocalEnvironment

ROUNDS = 300


class Hung(Exception):  # noqa: N818 - what has happened
    """Nothing came back in time."""


@pytest.fixture(autouse=True)
def alarms() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def ring(error: type[BaseException], seconds: float) -> None:
    """Have a signal raise this after a while, wherever the main thread is then."""

    def rung(number: int, frame: FrameType | None) -> None:
        raise error

    signal.signal(signal.SIGALRM, rung)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def test_an_environment_that_is_interrupted_while_it_stops_can_still_be_closed() -> None:
    chance, interrupted = random.Random(3), 0
    for _ in range(ROUNDS):
        environment = LocalEnvironment("t")
        try:
            ring(KeyboardInterrupt, chance.uniform(1e-6, 30e-6))
            while True:
                environment.stop()
        except KeyboardInterrupt:
            interrupted += 1
        ring(Hung, 20.0)
        environment.abandon()
        environment.stop()
        environment.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert interrupted == ROUNDS
