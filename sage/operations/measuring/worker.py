"""``python -m sage.operations.measuring.worker``: one process that runs an isolated topology until it is told to end.

It makes the isolated topology itself, from the same target: code needs no name by which another process could import
it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sage import app
from sage.errors import SageError
from sage.graph.topology import Topology
from sage.operations.isolation import isolated
from sage.operations.worker_processes import end_with_parent


def arguments(
    target: str, run: str, source: str, data_dir: Path, *, bootstrap_servers: str | None, kafka_config: Path | None
) -> list[str]:
    """The command line of one, after ``python``."""
    return [
        "-m", "sage.operations.measuring.worker", target, "--run", run, "--source", source,
        "--data-dir", str(data_dir),
        *(("--bootstrap-servers", bootstrap_servers) if bootstrap_servers else ()),
        *(("--kafka-config", str(kafka_config)) if kafka_config else ()),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--run", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--kafka-config", type=Path)
    options = parser.parse_args(words)
    end_with_parent()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        _work(options)
    except SageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _work(options: argparse.Namespace) -> None:
    found = app.load_target(options.target, environ=os.environ)
    topology = found if isinstance(found, Topology) else found.topology
    run = isolated(topology, options.run, source=options.source)
    environment = app.environment_for(
        run.topology if isinstance(found, Topology) else found.beside(run.topology),
        bootstrap_servers=options.bootstrap_servers, data_dir=options.data_dir, kafka_config=options.kafka_config,
        resume=True,
    )  # fmt: skip
    environment.redirect(read_only=True)
    with environment:
        environment.run_streaming()


if __name__ == "__main__":
    sys.exit(main())
