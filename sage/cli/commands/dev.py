"""``sage dev``: a topology while it is being written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import terminal


def dev(
    target: Annotated[
        str | None,
        Parameter(
            name="TARGET", help="A YAML file, file.py:attribute, package.module:attribute; else the folder's only one."
        ),
    ] = None,
    /,
    *,
    watch: Annotated[bool, Parameter(name=["--watch", "-w"], help="Start it again when a file changes.")] = False,
    from_beginning: Annotated[bool, Parameter(help="Sources start afresh each time.")] = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Run a topology with this folder's services until Ctrl-C. A file that is wrong leaves the old one running.

    With --watch it is checked and started again when a .py, .yaml or .env file of this folder changes. Offsets stay,
    so it goes on where it was.
    """
    from sage.errors import NotFound
    from sage.operations.development import LOOK_EVERY, Development, only_topology
    from sage.operations.watching import snapshot

    _take_the_topology_along()
    name = target or only_topology(Path.cwd())
    file = Path(name.partition(":")[0])
    if file.suffix and not file.is_file():
        raise NotFound(f"no file {file} in {Path.cwd()}")
    common = _common(data_dir, bootstrap_servers, kafka_config)
    again = ["--from-beginning"] if from_beginning else []
    with _Services(data_dir, bootstrap_servers, kafka_config):
        if not watch:
            return _until_its_end(_started(["topology", "run", name, *common, *again]))
        work = Development(
            start=lambda: _started(["topology", "run", name, *common, *again]),
            is_valid=lambda: _started(["topology", "validate", name], out=subprocess.DEVNULL).wait() == 0,
            take=lambda: snapshot(Path.cwd(), [file.absolute()] if file.suffix else []),
            note=terminal().note,
        )
        pause = threading.Event()
        try:
            while True:
                work.look()
                pause.wait(LOOK_EVERY)
        except KeyboardInterrupt:
            work.wait()  # the terminal has sent it the same signal
            raise
        finally:
            work.stop()


def _take_the_topology_along() -> None:
    """End in order at SIGTERM, and when the terminal goes away: else the topology's process would stay behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else `nohup` would not be heeded
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))


class _Services:
    """What every start of the topology would else start and stop again: the broker, and the chat model."""

    def __init__(self, data_dir: Path, bootstrap_servers: str | None, kafka_config: Path | None) -> None:
        from sage.wiring.folder_services import FolderServices

        self._folder = FolderServices(data_dir)
        self._asked = (bootstrap_servers, data_dir, kafka_config)

    def __enter__(self) -> None:
        from sage import app
        from sage.errors import Unreachable
        from sage.operations.folder import chat_model_of

        terminal().progress("starting services")
        try:
            own = app.brokers(*self._asked).origin.endswith("up.json")
        except Unreachable:
            own = True
        if own:
            self._folder.need("broker")
        model = chat_model_of(Path.cwd())
        if model is not None:
            self._folder.need("model", model)

    def __exit__(self, *error: object) -> None:
        self._folder.leave()


def _until_its_end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _started(arguments: list[str], out: int | None = None) -> subprocess.Popen[bytes]:
    flags = terminal().flags
    common = [*(("--quiet",) if flags.quiet else ()), *(("--debug",) if flags.debug else ())]
    return subprocess.Popen(
        [sys.executable, "-m", "sage", *arguments, *common], stdin=subprocess.DEVNULL, stdout=out, env=os.environ
    )


def _common(data_dir: Path, bootstrap_servers: str | None, kafka_config: Path | None) -> list[str]:
    return [
        *("--data-dir", str(data_dir)),
        *(("--bootstrap-servers", bootstrap_servers) if bootstrap_servers else ()),
        *(("--kafka-config", str(kafka_config)) if kafka_config else ()),
    ]
