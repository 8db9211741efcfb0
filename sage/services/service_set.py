"""The background services of one data folder: one set, whoever asks for it.

``sage up`` starts services that stay until ``sage down``. A program that needs them joins what is there and starts
what is missing; what programs started by themselves ends with the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from sage.errors import Unreachable
from sage.services import processes
from sage.services.ending import ServiceState, in_stop_order, state_of, stop_entries
from sage.services.lock import folder_lock
from sage.services.start import Factory, Progress, Start, joined
from sage.services.state import ServiceEntry, UpState, User, disk_error, read_state, write_state

_LOCK_TIMEOUT = 180.0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A recorded service and how it is: ``running``, ``silent`` (lives, doesn't answer) or ``dead``."""

    entry: ServiceEntry
    state: ServiceState


class ServiceSet:
    """The services of ``data_dir`` (``.sage``), recorded in its ``up.json``.

    Every change is made under a lock on the folder, so two programs that start at once share one set.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.file = self.data_dir / "up.json"

    def up(
        self,
        wanted: Sequence[str],
        *,
        factories: Mapping[str, Factory],
        ports: Mapping[str, int] | None = None,
        owner: int | None = None,
        progress: Progress | None = None,
        timeout: float = 60.0,
    ) -> UpState:
        """Make every service of ``wanted`` answer: join those that do, start the others; returns the whole set.

        Args:
            wanted: names of services.
            factories: how each is started.
            ports: ports asked for by name; others are chosen.
            owner: the process that uses them, counted until ``leave``; ``None`` is ``sage up``: they stay.
            progress: is told what is waited for.
            timeout: seconds that each service has to answer.

        Raises:
            PortTaken: a port that was asked for is in use.
            ServiceFailed: a service did not start; those started by this call are stopped again.
            FolderInUse: a service of this folder already runs on another port than the one asked for.
            DiskFull: nothing more can be written under the folder.
        """
        tell = progress or _say_nothing
        self._make_folder()
        with self._locked(tell):
            start = Start(
                data_dir=self.data_dir,
                file=self.file,
                factories=factories,
                ports=ports or {},
                owner=owner,
                tell=tell,
                timeout=timeout,
            )
            return start.run(wanted, self._load())

    def down(self, *, timeout: float = 60.0) -> list[str]:
        """Stop every service, whoever uses it; returns their names. Each has ``timeout`` seconds to end by itself."""
        if not self.file.exists():
            return []
        with self._locked(_say_nothing):
            state = read_state(self.file)
            entries = in_stop_order(state.services.values())
            living = [entry.name for entry in entries if processes.is_same(entry.pid, entry.identity)]
            stop_entries(entries, timeout=timeout)
            write_state(self.file, UpState())
            return living

    def join(self, owner_pid: int) -> UpState:
        """Count ``owner_pid`` as a user of what is there, without starting anything."""
        self._make_folder()
        with self._locked(_say_nothing):
            state = joined(self._load(), owner_pid)
            write_state(self.file, state)
            return state

    def leave(self, owner_pid: int, *, timeout: float = 60.0) -> list[str]:
        """Take back one ``join`` of ``owner_pid``; after the last user, stop what no ``sage up`` asked to keep.

        Returns the names of the services stopped.
        """
        if not self.file.exists():
            return []
        with self._locked(_say_nothing):
            state = self._load()
            users = dict(state.users)
            user = users.pop(owner_pid, None)
            if user is not None and user.uses > 1:
                users[owner_pid] = replace(user, uses=user.uses - 1)
            ending = [] if users else in_stop_order(e for e in state.services.values() if not e.kept)
            stop_entries(ending, timeout=timeout)
            gone = {entry.name for entry in ending}
            kept = {name: entry for name, entry in state.services.items() if name not in gone}
            write_state(self.file, UpState(kept, users))
            return [entry.name for entry in ending]

    def status(self) -> list[ServiceStatus]:
        """Every recorded service and how it is, in the order broker, memory, model."""
        entries = reversed(in_stop_order(read_state(self.file).services.values()))
        return [ServiceStatus(entry, state_of(entry)) for entry in entries]

    def users(self) -> list[int]:
        """Process ids of the programs that use the services now."""
        return sorted(_living(read_state(self.file).users))

    def find(self, name: str) -> ServiceEntry | None:
        """The recorded service ``name``, or ``None`` where the folder has none.

        Raises:
            Unreachable: it is recorded, and its process is gone or does not answer.
        """
        entry = read_state(self.file).services.get(name)
        if entry is None:
            return None
        state = state_of(entry)
        if state == "running":
            return entry
        raise dead_service(entry, state, self.file)

    def _load(self) -> UpState:
        state = read_state(self.file)
        return UpState(state.services, _living(state.users))

    def _make_folder(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.data_dir) from error

    def _locked(self, tell: Progress) -> AbstractContextManager[None]:
        return folder_lock(
            self.data_dir / "up.lock",
            timeout=_LOCK_TIMEOUT,
            on_wait=lambda: tell("waiting for another program that starts or stops these services"),
        )


def dead_service(entry: ServiceEntry, state: ServiceState, file: Path) -> Unreachable:
    """The error for a service that ``file`` records and that is not there any more, or does not answer."""
    found = f"its process {entry.pid} is gone" if state == "dead" else f"process {entry.pid} does not answer"
    return Unreachable(
        f"dead {entry.name} behind it: {entry.address}, {found}; start it again with `sage up` (log: {entry.log})",
        where=str(file),
    )


def _living(users: Mapping[int, User]) -> dict[int, User]:
    return {pid: user for pid, user in users.items() if processes.is_same(pid, user.identity)}


def _say_nothing(text: str) -> None:
    del text
