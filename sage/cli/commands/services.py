"""``sage up``, ``sage down``, ``sage status``: the background services of a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sage.cli.options import COUNT, DEFAULT_DATA_DIR, PORT_RANGE, DataDir
from sage.cli.terminal import Column, Terminal, terminal
from sage.cli.text import milliseconds
from sage.services.service_set import ServiceSet, ServiceStatus
from sage.services.state import ServiceEntry, UpState

_COLUMNS = (
    Column("name", "SERVICE"),
    Column("state"),
    Column("address"),
    Column("model"),
    Column("pid", right=True),
    Column("up_seconds", "UP FOR", show=milliseconds),
    Column("started_by", "STARTED BY"),
    Column("capabilities", wide=True, show=lambda value: ", ".join(f"{key}={one}" for key, one in value.items())),
    Column("log", wide=True),
)

DEFAULT_MODEL = "local/smollm2"

_HINT = "nothing runs for {folder}; start with `sage up`"


def up(
    *,
    model: Annotated[
        str | None, Parameter(help="Serve this local chat model; else one that a topology of this folder names.")
    ] = None,
    broker_port: Annotated[
        int | None,
        Parameter(name=["--broker-port", "--port"], help="Else 19092, else a free one.", validator=PORT_RANGE),
    ] = None,
    memory_port: Annotated[int | None, Parameter(help="Else 19530, else a free one.", validator=PORT_RANGE)] = None,
    model_port: Annotated[int | None, Parameter(help="Else 18080, else a free one.", validator=PORT_RANGE)] = None,
    only: Annotated[
        list[str] | None, Parameter(help="Start these alone: broker, memory, model.", consume_multiple=False)
    ] = None,
    timeout: Annotated[float, Parameter(help="Seconds that each service has to answer.", validator=COUNT)] = 60.0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Start this folder's broker, memory server and, where a topology names one, local model. Joins those that run."""
    from sage import app
    from sage.operations.folder import chat_model_of

    shown = terminal()
    chosen = model or chat_model_of(Path.cwd())
    wanted = _wanted(only, with_model=chosen is not None)
    if "model" in wanted and chosen is None:
        chosen = DEFAULT_MODEL
    asked = {"broker": broker_port, "memory": memory_port, "model": model_port}
    began = time.monotonic()
    state = ServiceSet(data_dir).up(
        wanted,
        factories=app.service_factories(chosen, lambda done, total: _download(shown, chosen, done, total)),
        ports={name: port for name, port in asked.items() if port is not None},
        progress=shown.progress,
        timeout=timeout,
    )
    seconds = time.monotonic() - began
    if shown.is_structured:
        services = {name: _row(entry, "running") for name, entry in state.services.items()}
        shown.data({"services": services, "seconds": round(seconds, 3)})
    else:
        shown.line(f"{_summary(state)} | ready in {milliseconds(seconds)}")


def down(
    *,
    timeout: Annotated[
        float, Parameter(help="Seconds a service has to end by itself before it is killed.", validator=COUNT)
    ] = 60.0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Stop this folder's services. Their data stays."""
    shown = terminal()
    shown.progress("stopping")
    stopped = ServiceSet(data_dir).down(timeout=timeout)
    if shown.is_structured:
        shown.data({"stopped": stopped})
    elif stopped:
        shown.line(f"stopped {', '.join(stopped)}")
    else:
        shown.note(f"nothing ran for {data_dir}")


def status(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> int:
    """Show this folder's services: where they answer, since when, and whether they live. Exits 4 when one is dead."""
    shown = terminal()
    found = ServiceSet(data_dir).status()
    rows = [_row(one.entry, one.state) for one in found]
    shown.rows(rows, _COLUMNS, empty=_HINT.format(folder=data_dir))
    broken = [one for one in found if one.state != "running"]
    for one in broken:
        shown.error(_complaint(one, data_dir))
    return 4 if broken else 0


def _download(shown: Terminal, model: str | None, done: int, total: int) -> None:
    shown.bar(f"{model} (MB)", done // 10**6, total // 10**6)


def _wanted(only: list[str] | None, *, with_model: bool) -> list[str]:
    from sage.cli.flags import UsageError

    known = ("broker", "memory", "model")
    if only:
        names = [name for text in only for name in text.split(",")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(f"up: --only takes {', '.join(known)}; found {unknown[0]!r}")
        return names
    return list(known) if with_model else ["broker", "memory"]


def _summary(state: UpState) -> str:
    """``broker localhost:19092 | memory localhost:19530 | model local/smollm2 :18080``."""
    parts = []
    for name in ("broker", "memory", "model"):
        entry = state.services.get(name)
        if entry is None:
            continue
        if name == "model":
            parts.append(f"model {entry.capabilities.get('model', '')} :{entry.port}".replace("  ", " "))
        else:
            parts.append(f"{name} {_address(entry)}")
    return " | ".join(parts)


def _address(entry: ServiceEntry) -> str:
    return entry.address.replace("127.0.0.1", "localhost")


def _row(entry: ServiceEntry, state: str) -> dict[str, Any]:
    return {
        "name": entry.name,
        "state": state,
        "address": _address(entry),
        "port": entry.port,
        "model": entry.capabilities.get("model"),
        "pid": entry.pid,
        "up_seconds": round(max(0.0, time.time() - entry.started_at), 3) if state != "dead" else None,
        "started_by": entry.started_by,
        "capabilities": dict(entry.capabilities),
        "log": entry.log,
    }


def _complaint(one: ServiceStatus, data_dir: Path) -> str:
    from sage.services.service_set import dead_service

    return str(dead_service(one.entry, one.state, data_dir / "up.json"))
