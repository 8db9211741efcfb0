"""The machine's own time."""

from __future__ import annotations

import threading
import time


class SystemClock:
    """Real time."""

    def monotonic(self) -> float:
        """Seconds that never go back, whatever is done to the wall clock."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set, at most ``seconds``."""
        return event.wait(seconds)
