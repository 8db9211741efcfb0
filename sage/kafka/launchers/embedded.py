"""The embedded broker: noida-db's Kafka, one program of 12 MB, up in a few hundredths of a second.

It keeps everything in memory and writes a whole snapshot (topics, records, committed offsets, from one moment)
once a second when something has changed, and at SIGTERM. So ``kill -9`` rolls all of it back to one consistent
moment about a second earlier (later by the time that a large snapshot takes to write); SIGTERM loses nothing. It
has no setting that tightens this. A snapshot takes four to five times the records' bytes: this broker is for
development, demonstrations and tests, not for gigabytes.

Its fetches don't wait: it answers an idle consumer at once, 80,000 times a second, for a core each. And it never ends
a session. So it stands behind a relay (``relay.py``) that holds repeated fetches back, and takes members that died out
of their groups; the port is the relay's.

What else it lacks: KIP-848 groups, cooperative rebalances (the second member never gets its share, so groups are
eager here), commits while partitions are being revoked (refused: the next owner replays from the last commit),
topic ids, the refusal of names that differ only in ``.`` and ``_``, more than one node.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Final

from sage.errors import NotFound
from sage.kafka.probe import answers
from sage.model.service import ServiceCommand

HOST: Final = "127.0.0.1"


def embedded_broker_command(data_dir: Path, port: int) -> ServiceCommand:
    """How to start the embedded broker in the foreground.

    Args:
        data_dir: where its data lives; made when missing. One broker per folder.
        port: the port on 127.0.0.1.

    Raises:
        NotFound: the ``local`` extra isn't installed.
    """
    program = _program()
    data_dir.mkdir(parents=True, exist_ok=True)
    return ServiceCommand(
        name="broker",
        argv=(
            sys.executable, "-m", "sage.kafka.launchers.relay",
            "--port", str(port), "--data-dir", str(data_dir), str(program),
        ),
        host=HOST,
        port=port,
        ready=lambda: answers(HOST, port),
        capabilities={"group_protocol": "classic", "embedded": "true"},
    )  # fmt: skip


def _program() -> Path:
    """The binary inside the wheel: its Python wrapper would stand between a signal and the broker."""
    found = importlib.util.find_spec("noida_db")
    if found is None or found.origin is None:
        raise NotFound('the embedded broker is not installed; pip install "sage-streams[local]"')
    program = Path(found.origin).parent / ("noida-db.exe" if os.name == "nt" else "noida-db")
    if not program.is_file():
        raise NotFound(f'the embedded broker has no program at {program}; pip install "sage-streams[local]" again')
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    return program
