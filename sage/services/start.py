"""Bringing a set of services up: join what answers, clear away what is dead, start what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sage.errors import FolderInUse, SageError
from sage.model.service import ServiceCommand
from sage.services import ports as port_choice
from sage.services import processes
from sage.services.ending import stop_entries
from sage.services.launch import Launched, launch, wait_ready
from sage.services.reservations import Reservations
from sage.services.state import ServiceEntry, UpState, User, write_state

Factory = Callable[[Path, int], ServiceCommand]
"""Makes the command of a service from the data folder and a port."""

Progress = Callable[[str], None]
"""Is told, in a few words, what is being waited for."""

_RECOVERY = 10.0


@dataclass
class Start:
    """One call of ``up``: what it found, what it started, and how it undoes that when something fails.

    The fields are the arguments of ``ServiceSet.up``; ``owner`` is ``None`` for ``sage up``.
    """

    data_dir: Path
    file: Path
    factories: Mapping[str, Factory]
    ports: Mapping[str, int]
    owner: int | None
    tell: Progress
    timeout: float
    _entries: dict[str, ServiceEntry] = field(default_factory=dict, init=False)
    _users: Mapping[int, User] = field(default_factory=dict, init=False)
    _reserved: Reservations = field(default_factory=Reservations, init=False)

    def run(self, wanted: Sequence[str], state: UpState) -> UpState:
        """Join or start every service of ``wanted``; the set as written to the file."""
        with self._reserved:
            return self._run(wanted, state)

    def _run(self, wanted: Sequence[str], state: UpState) -> UpState:
        self._entries, self._users = dict(state.services), state.users
        missing = [name for name in wanted if not self._join(name)]
        started: list[Launched] = []
        try:
            # All at once: the slowest decides how long it takes.
            for name in missing:
                started.append(self._launch(name, avoid=[one.command.port for one in started]))
            for index, launched in enumerate(started):
                started[index] = self._await(launched)
        except BaseException:
            # Also on Ctrl-C: a set is complete, or as it was before.
            stop_entries([launched.entry for launched in started], timeout=5.0)
            for launched in started:
                self._entries.pop(launched.command.name, None)
            self._write()
            raise
        if self.owner is not None:
            self._users = joined(state, self.owner).users
        return self._write()

    def _join(self, name: str) -> bool:
        """Whether the recorded service can be used; one that died or hangs is cleared away."""
        entry = self._entries.get(name)
        if entry is None:
            return False
        asked = self.ports.get(name)
        if not processes.is_same(entry.pid, entry.identity):
            self.tell(f"the {name} behind {self.file.name} is dead; starting it again")
            return False
        if asked is not None and asked != entry.port:
            raise FolderInUse(
                f"the {name} of this folder already runs on port {entry.port}, not {asked}; "
                "stop it with `sage down` to move it",
                where=str(self.data_dir),
            )
        command = self.factories[name](self.data_dir, entry.port)
        if self._is_another_model(command, entry):
            self.tell(f"the model server served {entry.capabilities['model']}; starting it again")
            stop_entries([entry], timeout=5.0)
            return False
        if not self._recovers(command, entry):
            self.tell(f"the {name} does not answer; starting it again")
            stop_entries([entry], timeout=5.0)
            return False
        if self.owner is None:
            self._entries[name] = replace(entry, kept=True)
        return True

    def _is_another_model(self, command: ServiceCommand, entry: ServiceEntry) -> bool:
        """Whether the server that runs serves another model than the one wanted, and may be replaced.

        Raises:
            FolderInUse: it serves others that count on it.
        """
        running, wanted = entry.capabilities.get("model"), command.capabilities.get("model")
        if running == wanted:
            return False
        if self.owner is not None and (entry.kept or set(self._users) - {self.owner}):
            raise FolderInUse(
                f"the model server of this folder serves {running} to others, not {wanted}; "
                "use that model, another --data-dir, or a base_url",
                where=str(self.data_dir),
            )
        return True

    def _recovers(self, command: ServiceCommand, entry: ServiceEntry) -> bool:
        deadline = time.monotonic() + _RECOVERY
        while not command.ready():
            if time.monotonic() >= deadline or not processes.is_same(entry.pid, entry.identity):
                return False
            time.sleep(0.05)
        return True

    def _launch(self, name: str, *, avoid: Sequence[int]) -> Launched:
        earlier = self._entries.get(name)
        port = port_choice.choose(
            name,
            asked=self.ports.get(name),
            earlier=None if earlier is None else earlier.port,
            avoid=avoid,
            is_free=self._reserved.take,
        )
        self.tell(f"starting the {name} on port {port}")
        started_by = "sage up" if self.owner is None else f"process {self.owner}"
        command = self.factories[name](self.data_dir, port)
        # What `sage up` asked to keep stays kept when a program starts it again after a crash.
        kept = self.owner is None or (earlier is not None and earlier.kept)
        launched = launch(command, self.data_dir, started_by=started_by, kept=kept)
        # Written before it answers: were this program killed now, the next one would find the process.
        self._entries[name] = launched.entry
        self._write()
        return launched

    def _await(self, launched: Launched) -> Launched:
        name, port = launched.command.name, launched.command.port
        self.tell(f"waiting for the {name}")
        try:
            wait_ready(launched, timeout=self.timeout)
        except SageError:
            lost_the_port = launched.process.poll() is not None and not port_choice.is_free(port)
            if name in self.ports or not lost_the_port:
                raise
            # Somebody took the free port between the choice and the start; nobody asked for this one.
            del self._entries[name]
            launched = self._launch(name, avoid=[port])
            wait_ready(launched, timeout=self.timeout)
        return launched

    def _write(self) -> UpState:
        state = UpState(self._entries, self._users)
        write_state(self.file, state)
        return state


def joined(state: UpState, owner: int) -> UpState:
    """The state with one more use by the process ``owner``."""
    known = processes.identity(owner)
    if known is None:
        raise SageError(f"process {owner} is gone, so it cannot use the services of this folder")
    earlier = state.users.get(owner)
    uses = earlier.uses + 1 if earlier is not None else 1
    return UpState(state.services, {**state.users, owner: User(known, uses)})
