"""The same work in other libraries; run by the interpreter of a virtual environment of their own.

``python tests/bench/peers.py NAME SERVERS SOURCE TARGET``; nothing of SAGE is imported here.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any


def quix_map(servers: str, source: str, target: str) -> None:
    """One map, at least once."""
    _quix(servers, source, target, lambda frame: frame.apply(_mark))


def quix_count(servers: str, source: str, target: str) -> None:
    """A count per key, in RocksDB with a changelog."""
    _quix(servers, source, target, lambda frame: frame.apply(_count, stateful=True))


def _quix(servers: str, source: str, target: str, step: Any) -> None:
    from quixstreams import Application

    app = Application(
        broker_address=servers, consumer_group=f"quix-{target}", auto_offset_reset="earliest",
        commit_interval=1.0, state_dir=tempfile.mkdtemp(prefix="quix-"), loglevel="ERROR",
    )  # fmt: skip
    frame = app.dataframe(app.topic(source, value_deserializer="json"))
    step(frame).to_topic(app.topic(target, value_serializer="json"))
    app.run()


def _mark(value: dict[str, Any]) -> dict[str, Any]:
    value["seen"] = True
    return value


def _count(value: dict[str, Any], state: Any) -> dict[str, Any]:
    n = state.get("n", 0) + 1
    state.set("n", n)
    return {"id": value["id"], "n": n}


def faust_map(servers: str, source: str, target: str) -> None:
    """One map, at least once."""
    import faust

    app = faust.App(
        f"faust-{target}", broker=f"kafka://{servers}", value_serializer="json", web_enabled=False,
        datadir=tempfile.mkdtemp(prefix="faust-"), consumer_auto_offset_reset="earliest", topic_partitions=4,
        loglevel="ERROR",
    )  # fmt: skip
    came, out = app.topic(source), app.topic(target)

    @app.agent(came)
    async def mark(stream: Any) -> None:
        async for value in stream:
            value["seen"] = True
            await out.send(value=value)

    sys.argv = ["faust", "worker", "--without-web", "-l", "error"]
    app.main()


PROGRAMS = {"quix": quix_map, "quix-count": quix_count, "faust": faust_map}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
