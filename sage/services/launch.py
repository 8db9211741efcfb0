"""Starting one service's process, and waiting until it answers its own protocol."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from sage.errors import DiskFull, SageError, ServiceFailed
from sage.model.service import ServiceCommand
from sage.services import processes
from sage.services.state import ServiceEntry, disk_error

_POLL = 0.05
_LOG_LIMIT = 10_000_000
_TAIL_BYTES = 8_192
_TAIL_LINES = 6


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that was just started.

    ``log_start`` is where its own output begins in the log file, which keeps what earlier ones wrote.
    """

    command: ServiceCommand
    process: subprocess.Popen[bytes]
    entry: ServiceEntry
    log: Path
    log_start: int


def launch(command: ServiceCommand, data_dir: Path, *, started_by: str, kept: bool) -> Launched:
    """Start the process, detached from this terminal and program, its output going to ``logs/<name>.log``.

    Raises:
        DiskFull: the log can't be written.
        ServiceFailed: the program can't be started at all.
    """
    log = data_dir / "logs" / f"{command.name}.log"
    try:
        log_start = _begin_log(log, command)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Not the user's folder: `python -m` would put that first on the service's import path.
                cwd=data_dir,
                env={**os.environ, **command.env},
                # Its own session: Ctrl-C at the terminal that ran `sage up` must not reach it.
                start_new_session=True,
            )
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES, errno.ENOEXEC}:
            raise ServiceFailed(
                f"the {command.name} did not start: cannot run {command.argv[0]} ({error.strerror}); see `sage doctor`",
            ) from error
        raise disk_error(error, data_dir) from error
    known = processes.identity(process.pid)
    entry = ServiceEntry(
        name=command.name,
        pid=process.pid,
        # Gone already: no process has this identity, and the wait for readiness says what it wrote.
        identity=known or "gone",
        host=command.host,
        port=command.port,
        log=str(log),
        capabilities=dict(command.capabilities),
        started_by=started_by,
        started_at=time.time(),
        kept=kept,
    )
    return Launched(command, process, entry, log, log_start)


def wait_ready(launched: Launched, *, timeout: float) -> None:
    """Wait until the service answers.

    Raises:
        DiskFull: it ended for want of space.
        ServiceFailed: it ended, or did not answer within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not launched.command.ready():
        code = launched.process.poll()
        if code is not None:
            raise failure(launched, f"ended with {_ending(code)}")
        if time.monotonic() >= deadline:
            raise failure(launched, f"did not answer on port {launched.command.port} within {timeout:.0f} s")
        time.sleep(_POLL)


def failure(launched: Launched, found: str) -> SageError:
    """The error for a service that did not come up, with the end of what it wrote."""
    name = launched.command.name
    tail = log_tail(launched.log, since=launched.log_start)
    if any("no space left" in line.lower() for line in tail):
        return DiskFull(
            f"no space is left on its disk, so the {name} ended; free some, then run the command again",
            where=str(launched.log.parent.parent),
        )
    last = f": {tail[-1].strip()}" if tail else ""
    return ServiceFailed(f"the {name} did not start: it {found}{last}; the whole log is {launched.log}", log_tail=tail)


def log_tail(log: Path, *, since: int = 0, lines: int = _TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log that are not blank, of what was written after the byte ``since``."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since, end - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple([line for line in text.splitlines() if line.strip()][-lines:])


def _begin_log(log: Path, command: ServiceCommand) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as file:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(f"--- {stamp} starting {command.name} on port {command.port}\n".encode())
        file.flush()
        return file.tell()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
