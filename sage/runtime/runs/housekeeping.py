"""What a running topology needs done now and then: looking for stages that stand still, trimming edges."""

from __future__ import annotations

import logging
import threading
import time

from sage.errors import SageError
from sage.runtime.runs.retention import Trimmer
from sage.runtime.runs.watchdog import Alarm, Watchdog

logger = logging.getLogger("sage.runtime")

LOOK_EVERY = 5.0
"""Seconds between two looks at the stages, at most."""

TRIM_EVERY = 60.0
"""Seconds between two trims."""


class Housekeeping:
    """A thread of its own, so that it looks also where everything else hangs."""

    def __init__(self, watchdog: Watchdog, trimmer: Trimmer, *, look_every: float = LOOK_EVERY) -> None:
        self._look_every = look_every
        self._watchdog = watchdog
        self._trimmer = trimmer
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sage-housekeeping", daemon=True)

    @property
    def alarms(self) -> list[Alarm]:
        """Stages that stand still now."""
        return list(self._watchdog.alarms.values())

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a call to the broker. Alarms that stand after it stand for good: what moved while the stages
        were drained has none."""
        self._stopping.set()
        self._thread.join(timeout=15.0)
        if self.alarms:
            self._look()

    def _run(self) -> None:
        trim_at = time.monotonic() + TRIM_EVERY
        while not self._stopping.wait(self._look_every):
            trims = time.monotonic() >= trim_at
            if trims:
                trim_at = time.monotonic() + TRIM_EVERY
            self._look(trims=trims)

    def _look(self, *, trims: bool = False) -> None:
        try:
            self._watchdog.look()
            if trims:
                self._trimmer.trim()
        except SageError as error:  # the brokers are away for a moment: the next look comes soon
            logger.info("housekeeping waits: %s", error)
        except Exception:  # it must not end: the next look may find what matters
            logger.exception("housekeeping failed, and goes on")
