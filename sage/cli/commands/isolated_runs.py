"""What ``sage topology eval`` and ``sage bench run`` share: runs beside the real topology, and their end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.interruption import interrupt
from sage.cli.terminal import terminal
from sage.errors import SageError

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.graph.topology import Topology
    from sage.operations.isolation import Isolated

Source = Annotated[
    str | None, Parameter(help="The source step in whose place the records come in; needed where there are several.")
]

Keep = Annotated[bool, Parameter(help="Leave the run's topics and groups, to look into them.")]


def topology_of(found: Topology | LocalEnvironment) -> Topology:
    """The frozen graph of what a target names. Raises InvalidTopology."""
    from sage.graph.topology import Topology

    return found if isinstance(found, Topology) else found.topology


def environment_of(
    found: Topology | LocalEnvironment, run: Isolated, *, bootstrap_servers: str | None, data_dir: Path,
    kafka_config: Path | None,
) -> LocalEnvironment:  # fmt: skip
    """An environment of an isolated topology, on the brokers and with the settings of the original.

    Raises:
        InvalidTopology, MissingVariable: it can't run here: told before anything is started or made.
    """
    from sage import app
    from sage.graph.topology import Topology
    from sage.operations.topologies import check

    check(run.topology, os.environ, secrets=True)
    environment = app.environment_for(
        run.topology if isinstance(found, Topology) else found.beside(run.topology),
        bootstrap_servers=bootstrap_servers, data_dir=data_dir, kafka_config=kafka_config, resume=False,
    )  # fmt: skip
    environment.redirect(read_only=True)
    return environment


@contextmanager
def removed_after(environment: LocalEnvironment, name: str, data_dir: Path, *, keep: bool) -> Iterator[None]:
    """Remove a run's topics and groups when the block is over, however it ends; ``keep`` says where they are instead.

    SIGTERM ends the block as Ctrl-C does, so that nothing is left behind then either.

    Raises:
        Unreachable, Unauthorized: before the block begins, where nobody answers or we are refused.
    """
    admin = environment.clients.admin()
    try:
        admin.list_topics()
    finally:
        admin.close()
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except BaseException:
        try:
            _remove(environment, name, data_dir, keep=keep)
        except SageError as error:  # what ended the run is what counts
            terminal().note(f"not all topics and groups that begin with {name}. are removed: {error.message}")
        raise
    else:
        _remove(environment, name, data_dir, keep=keep)
    finally:
        signal.signal(signal.SIGTERM, before)


def _remove(environment: LocalEnvironment, name: str, data_dir: Path, *, keep: bool) -> None:
    from sage.operations.isolation import remove_run

    shown = terminal()
    if keep:
        shown.note(f"kept: topics and groups that begin with {name}.; `sage dlq list {name}`, `sage topics list`")
        return
    shown.progress("removing the run's topics")
    remove_run(environment.clients, name, data_dir)
