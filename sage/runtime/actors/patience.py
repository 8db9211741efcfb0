"""Questions to a broker that may be away for minutes: asked until there is an answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from sage.errors import TransientFailure, Unreachable
from sage.ports import Clock

logger = logging.getLogger("sage.runtime")
T = TypeVar("T")

RETRY_DELAY = 0.2
"""Seconds between two questions to a broker that does not answer."""

_NEVER = threading.Event()


def patiently(question: Callable[[], T], *, where: str, clock: Clock, stopping: threading.Event) -> T:
    """The answer. A worker outlives the absence of all brokers, so it asks for as long as it takes.

    Args:
        question: what to ask; may be asked several times.
        where: topology and step, for the log.
        stopping: set when nobody wants the answer any more.

    Raises:
        TransientFailure, Unreachable: no answer, and the actor is asked to stop.
    """
    while True:
        try:
            return question()
        except (TransientFailure, Unreachable) as error:
            if stopping.is_set():
                raise
            logger.info("%s: asking the broker again: %s", where, error)
            clock.wait(_NEVER, RETRY_DELAY)
