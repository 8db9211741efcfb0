"""Memory when processes die, folders are held, and nobody answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.errors import FolderInUse, Unreachable
from sage.memory import MemoryManager
from sage.memory.launcher import answers, memory_server_command
from sage.services.state import ServiceEntry, UpState, write_state
from tests.support.memory_server import MemoryServer, free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]

HOLDER = """
import sys
from sage.memory import MemoryManager
memory = MemoryManager(sys.argv[1])
collection = memory.create_collection("c", embedding_model="mock/16")
collection.create_index("some", filter={"n": 1})
collection.insert_many([f"text {n}" for n in range(500)], [{"n": n} for n in range(500)])
print("stored", flush=True)
sys.stdin.readline()
"""

WRITER = """
import sys
from sage.memory import MemoryManager
memory = MemoryManager(uri=sys.argv[1])
collection = memory.create_collection("shared", embedding_model="mock/16", exist_ok=True)
for n in range(20):
    collection.insert_many([f"{sys.argv[2]} {n} {k}" for k in range(10)])
    assert collection.retrieve(f"{sys.argv[2]} {n} 3", topk=1)
"""


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has memory open in a folder."""
    process = run(HOLDER, str(tmp_path / "memory"))
    assert process.stdout is not None
    assert process.stdout.readline() == "stored\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_server_comes_back_with_all_that_was_stored(server: MemoryServer) -> None:
    with MemoryManager(uri=server.uri) as memory:
        collection = memory.create_collection("c", embedding_model="mock/16")
        collection.create_index("even", filter={"even": True})
        ids = collection.insert_many([f"text {n}" for n in range(300)], [{"even": n % 2 == 0} for n in range(300)])
        memory.store_collection()
        ids += collection.insert_many([f"later {n}" for n in range(300)], [{"even": False}] * 300)
        collection.delete(ids[:10])
        server.end(signal.SIGKILL)
        with pytest.raises(Unreachable, match=r"cannot reach the memory at http://127\.0\.0\.1:\d+\. Start it with"):
            collection.retrieve("text 11")
        server.start()
        assert collection.count() == 590
        assert collection.retrieve("text 12", topk=1, index_name="even") == ["text 12"]
        assert len(collection.retrieve("text", topk=600, index_name="even")) == 145
        collection.insert("after", {"even": True})
    with MemoryManager(uri=server.uri) as memory:
        assert memory.connect_collection("c").count() == 591


def test_a_killed_process_leaves_a_folder_that_opens_with_all_that_was_stored(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.kill()
    holder.wait(10)
    assert (tmp_path / "memory" / "LOCK").exists()
    with MemoryManager(tmp_path / "memory") as memory:
        collection = memory.connect_collection("c")
        assert collection.count() == 500
        assert collection.retrieve("x", index_name="some") == ["text 1"]


def test_a_folder_held_by_another_process_is_said_so_with_its_id(
    holder: subprocess.Popen[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FolderInUse, match=f"process {holder.pid} holds this memory folder") as caught:
        MemoryManager(tmp_path / "memory").list_collections()
    assert str(tmp_path / "memory") in str(caught.value)
    assert "sage up" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_folder_of_a_running_server_is_reached_through_the_server(server: MemoryServer) -> None:
    folder = server.data_dir / "memory"
    with pytest.raises(FolderInUse):
        MemoryManager(folder).list_collections()
    entry = ServiceEntry("memory", server.process.pid, "x", server.command.host, server.command.port, str(server.log))
    write_state(server.data_dir / "up.json", UpState({"memory": entry}))
    with MemoryManager(folder) as here, MemoryManager(uri=server.uri) as there:
        here.create_collection("c", embedding_model="mock/16").insert("hello")
        assert there.connect_collection("c").retrieve("hello") == ["hello"]


def test_the_server_and_the_embedded_engine_keep_the_same_files(server: MemoryServer) -> None:
    with MemoryManager(uri=server.uri) as memory:
        memory.create_collection("c", embedding_model="mock/16").insert("hello")
    server.end()
    with MemoryManager(server.data_dir / "memory") as memory:
        assert memory.connect_collection("c").retrieve("hello") == ["hello"]
        memory.connect_collection("c").insert("again")
    server.start()
    with MemoryManager(uri=server.uri) as memory:
        assert sorted(memory.connect_collection("c").retrieve("hello")) == ["again", "hello"]


def test_two_managers_of_one_process_share_a_folder(tmp_path: Path) -> None:
    with MemoryManager(tmp_path / "memory") as one:
        one.create_collection("c", embedding_model="mock/16").insert("hello")
        with MemoryManager(str(tmp_path / "memory")) as two:
            assert two.connect_collection("c").retrieve("hello") == ["hello"]
        assert one.connect_collection("c").count() == 1


def test_two_processes_write_to_one_collection(server: MemoryServer) -> None:
    writers = [run(WRITER, server.uri, name) for name in ("red", "blue")]
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert (writer.returncode, out, err) == (0, "", "")
    with MemoryManager(uri=server.uri) as memory:
        assert memory.connect_collection("shared").count() == 400


def test_nobody_at_the_address_is_said_in_one_line_and_soon(capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        MemoryManager(uri=f"http://127.0.0.1:{free_port()}", token="user:secret").list_collections()
    assert time.monotonic() - started < 30
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert capfd.readouterr() == ("", "")


def test_ready_asks_the_server_and_not_just_its_port(tmp_path: Path, server: MemoryServer) -> None:
    assert server.command.ready()
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        port = silent.getsockname()[1]
        assert not answers("127.0.0.1", port, timeout=0.3)
        assert not memory_server_command(tmp_path, free_port()).ready()
        second = memory_server_command(server.data_dir / "memory", port)
    # The folder is the first server's: a second one ends instead of spoiling it.
    done = subprocess.run(
        second.argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **second.env}
    )
    assert done.returncode != 0
    assert "another process holds the lock" in done.stderr
    assert server.command.ready()
