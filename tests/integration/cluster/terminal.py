"""A folder to type ``sage`` in, with worker processes that have the code in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sage.cluster.names import PREFIX_VARIABLE
from tests.integration.cli.conftest import Shell, Typed
from tests.integration.cluster.workers import DRAIN, MARGIN
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until

PATIENCE = 120.0


class Terminal:
    """Commands, and the workers that were started by them.

    Args:
        folder: where it is typed; modules there can be imported by workers.
        broker: Apache Kafka.
        name: of the topology; control topics are named after it.
        code: the module that workers may run.
    """

    def __init__(self, folder: Path, broker: ApacheBroker, name: str, code: str) -> None:
        variables = {"SAGE_BOOTSTRAP_SERVERS": broker.bootstrap_servers, PREFIX_VARIABLE: f"control-{name}"}
        self.shell = Shell(folder, variables)
        self.broker = broker
        self.name = name
        self.code = code
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def __call__(self, *words: str, code: int | None = 0) -> Typed:
        found = self.shell(*words, timeout=PATIENCE + 60)
        assert code in {None, found.code}, f"sage {' '.join(words)}\n{found}\n{self.logs()}"
        return found

    def data(self, *words: str, code: int = 0) -> Any:
        """What a command says as JSON."""
        return json.loads(self(*words, "-o", "json", code=code).out)

    # ------------------------------------------------------------------------------------ workers

    def start(self, worker: str, *options: str, **variables: str) -> None:
        """A worker, with variables that it alone has."""
        with (self.shell.folder / f"{worker}.log").open("ab") as log:
            self.workers[worker] = subprocess.Popen(
                [sys.executable, "-m", "sage", "worker", "run", "--id", worker, "--allow-code", self.code,
                 "--data-dir", f".{worker}", *options],
                cwd=self.shell.folder, env={**self.shell.environment(), **variables}, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def online(self) -> list[str]:
        return [row["worker"] for row in self.data("worker", "list") if row["state"] == "online"]

    def until_online(self, *workers: str) -> None:
        wait_until(lambda: self.online() == list(workers), timeout=PATIENCE, what=f"{workers} are online")

    def problems(self, worker: str) -> list[str]:
        """Why it can't run what is deployed, as it says."""
        described = self.data("worker", "describe", worker)
        return [line for each in described["problems"] for line in each["problems"]]

    def end(self, worker: str) -> None:
        """SIGTERM: it drains in time and exits 0."""
        process = self.workers.pop(worker)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DRAIN + MARGIN) == 0, self.logs()

    def kill(self, worker: str) -> None:
        """kill -9."""
        process = self.workers.pop(worker)
        process.kill()
        process.wait(20)

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.shell.folder.glob("*.log"))

    def close(self) -> None:
        """End the workers."""
        for worker in list(self.workers):
            self.kill(worker)
