"""What ``up.json`` says: which services a folder has, where they answer, and who uses them."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sage.errors import DiskFull, SageError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service that was started.

    Attributes:
        name: ``broker``, ``memory`` or ``model``.
        pid, identity: the process, and the text that tells it from a later one with the same id.
        host, port: where it listens.
        log: the file that its output goes to.
        capabilities: what clients must know of it, such as ``{"group_protocol": "classic"}``.
        started_by: ``sage up``, or the program that needed it.
        started_at: seconds since the epoch.
        kept: true when ``sage up`` asked for it: it then outlives the programs that use it.
    """

    name: str
    pid: int
    identity: str
    host: str
    port: int
    log: str
    capabilities: Mapping[str, str] = field(default_factory=dict)
    started_by: str = ""
    started_at: float = 0.0
    kept: bool = False

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class User:
    """A program that joined the services, and how many times it did (once per environment)."""

    identity: str
    uses: int = 1


@dataclass(frozen=True, slots=True)
class UpState:
    """The services of a folder by name, and the programs that joined them by process id."""

    services: Mapping[str, ServiceEntry] = field(default_factory=dict)
    users: Mapping[int, User] = field(default_factory=dict)


def read_state(path: Path) -> UpState:
    """What ``path`` holds; empty where there is no file.

    Raises:
        SageError: the file is there and can't be read as one that SAGE wrote.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        services = {name: _entry(name, fields) for name, fields in data["services"].items()}
        users = {int(pid): User(**user) for pid, user in data["users"].items()}
    except FileNotFoundError:
        return UpState()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SageError(
            f"is not a file that this version of SAGE wrote ({type(error).__name__}: {error}); "
            "stop the services in it by hand and delete it",
            where=str(path),
        ) from error
    return UpState(services, users)


def _entry(name: str, fields: Mapping[str, Any]) -> ServiceEntry:
    for number in ("pid", "port"):
        if type(fields[number]) is not int:
            raise TypeError(f"{number} of {name} is {fields[number]!r}")
    return ServiceEntry(name=name, **fields)


def write_state(path: Path, state: UpState) -> None:
    """Replace ``path`` in one step, so that a reader sees the old set or the new one; an empty set removes it.

    Raises:
        DiskFull: there is no space left.
    """
    if not state.services:
        path.unlink(missing_ok=True)
        return
    services = {name: _without_name(entry) for name, entry in state.services.items()}
    users = {str(pid): asdict(user) for pid, user in state.users.items()}
    data = {"format": FORMAT, "services": services, "users": users}
    try:
        _replace(path, json.dumps(data, indent=2) + "\n")
    except OSError as error:
        raise disk_error(error, path.parent) from error


def disk_error(error: OSError, folder: Path) -> SageError:
    """What an operating-system error under ``folder`` means to a user."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull("no space is left on its disk; free some, then run the command again", where=str(folder))
    reason = error.strerror or type(error).__name__
    return SageError(
        f"cannot be written: {reason}; check its owner and rights, or name another --data-dir", where=str(folder)
    )


def _without_name(entry: ServiceEntry) -> dict[str, Any]:
    fields = asdict(entry)
    del fields["name"]
    return fields


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".up-", suffix=".json")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
