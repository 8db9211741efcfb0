"""What ``sage dev`` does: a topology in a process of its own, started anew when its files change."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from sage.errors import InvalidTopology, NotFound
from sage.operations.folder import topology_files
from sage.operations.watching import Snapshot

LOOK_EVERY: Final = 0.4
"""Seconds between two looks at the files; two that are equal end a change, so that a save in parts is one change."""

DRAIN_SECONDS: Final = 30.0

_SHOWN: Final = 3


class Process(Protocol):
    """The topology's process, as ``subprocess.Popen`` is one."""

    def poll(self) -> int | None:
        """Its exit code once it has ended."""
        ...

    def send_signal(self, sig: int, /) -> None:
        """Ask it to drain."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises ``subprocess.TimeoutExpired``."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Development:
    """A running topology and the files that it is made of. ``look`` is called again and again.

    Args:
        start: starts the topology.
        is_valid: checks it, and tells the person what is wrong.
        take: looks at the files.
        note: tells the person what happens.
    """

    def __init__(
        self,
        *,
        start: Callable[[], Process],
        is_valid: Callable[[], bool],
        take: Callable[[], Snapshot],
        note: Callable[[str], None],
    ) -> None:
        self._start, self._is_valid, self._take, self._note = start, is_valid, take, note
        self._running = take()
        self._last = self._running
        self._process: Process | None = start() if is_valid() else None
        if self._process is None:
            note("waiting for a change")

    def look(self) -> None:
        """Notice a process that has ended, and files that have changed and settled."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            self._note(f"ended with exit code {code}; waiting for a change")
        found = self._take()
        has_settled, self._last = found == self._last, found
        changed = found.changed_since(self._running)
        if not changed or not has_settled:
            return
        self._running = found
        if not self._is_valid():
            going = "the topology as it was goes on" if self._process is not None else "waiting for another change"
            self._note(f"{_names(changed)} changed; {going}")
            return
        self._note(f"{_names(changed)} changed; starting again")
        self.stop()
        self._process = self._start()

    def stop(self) -> None:
        """Have it drain; end it where it takes longer than it may."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        self.wait(process)

    def wait(self, process: Process | None = None) -> None:
        """Wait for one that was asked to end, by us or by the terminal's Ctrl-C."""
        from subprocess import TimeoutExpired

        process = process or self._process
        if process is None:
            return
        try:
            process.wait(DRAIN_SECONDS)
        except TimeoutExpired:
            self._note(f"did not drain within {DRAIN_SECONDS:.0f} s; killed: what it had in hand is read again")
            process.kill()
            process.wait()


def only_topology(folder: Path) -> str:
    """The one topology file of a folder.

    Raises:
        NotFound: there is none.
        InvalidTopology: there are several.
    """
    found = topology_files(folder)
    if not found:
        raise NotFound(f"no topology file in {folder}; name one, or make one with `sage init`")
    if len(found) > 1:
        raise InvalidTopology(f"several topologies in {folder}; name one: {', '.join(one.name for one in found)}")
    return found[0].name


def _names(changed: list[Path]) -> str:
    shown = ", ".join(path.name for path in changed[:_SHOWN])
    return shown if len(changed) <= _SHOWN else f"{shown} and {len(changed) - _SHOWN} more"
