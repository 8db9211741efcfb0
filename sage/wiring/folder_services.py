"""The background services of this process's data folder, joined or started as they are needed."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from sage.model.service import ServiceCommand
from sage.services.service_set import ServiceSet
from sage.services.start import Factory
from sage.services.state import ServiceEntry

logger = logging.getLogger("sage.services")


def factories(chat_model: str | None, progress: Callable[[int, int], None] | None = None) -> Mapping[str, Factory]:
    """How each service of a folder is started; ``chat_model`` is what the model server serves."""
    made: dict[str, Factory] = {"broker": _broker, "memory": _memory}
    if chat_model is not None:
        made["model"] = partial(_model, chat_model, progress)
    return made


def _broker(data_dir: Path, port: int) -> ServiceCommand:
    from sage.kafka.launchers.embedded import embedded_broker_command

    return embedded_broker_command(data_dir / "broker", port)


def _memory(data_dir: Path, port: int) -> ServiceCommand:
    from sage.memory.launcher import memory_server_command

    return memory_server_command(data_dir / "memory", port)


def _model(name: str, progress: Callable[[int, int], None] | None, data_dir: Path, port: int) -> ServiceCommand:
    from sage.llm.local.command import model_server_command
    from sage.llm.local.download import ensure_model

    del data_dir
    ensure_model(name, progress)
    return model_server_command(name, port)


class FolderServices:
    """This process as a user of a folder's services: joins once, leaves once."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._set = ServiceSet(data_dir)
        self._uses = 0

    def need(self, name: str, chat_model: str | None = None) -> ServiceEntry:
        """The service, started where it does not run. Raises what starting raises."""
        if not self._uses:
            atexit.register(self.leave)  # a program that dies of its own error leaves nothing running behind it
        state = self._set.up([name], factories=factories(chat_model), owner=os.getpid(), progress=logger.debug)
        self._uses += 1
        return state.services[name]

    def leave(self) -> None:
        """Give back what was needed; what only this process used ends."""
        atexit.unregister(self.leave)
        while self._uses:
            self._uses -= 1
            self._set.leave(os.getpid())
