"""Exactly-once on the embedded broker belongs to one process at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.errors import FolderInUse, InvalidTopology
from sage.wiring.single_worker import LOCK, SingleWorker

OTHER = """
import sys
from pathlib import Path
from sage.wiring.single_worker import SingleWorker
right = SingleWorker(Path(sys.argv[1]), "qa")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the right to the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_what_to_do(tmp_path: Path, elsewhere: subprocess.Popen[str]) -> None:
    with pytest.raises(FolderInUse, match="run one, or use Apache Kafka") as caught:
        SingleWorker(tmp_path, "qa")
    assert caught.value.exit_code == 3


def test_a_process_that_was_killed_has_no_right_any_more(tmp_path: Path, elsewhere: subprocess.Popen[str]) -> None:
    elsewhere.kill()
    elsewhere.wait()
    SingleWorker(tmp_path, "qa").release()


def test_the_topologies_of_one_process_share_it_and_each_has_it_once(tmp_path: Path) -> None:
    first, second = SingleWorker(tmp_path, "qa"), SingleWorker(tmp_path, "other")
    with pytest.raises(InvalidTopology, match="this process runs it exactly_once already") as caught:
        SingleWorker(tmp_path, "qa")
    assert caught.value.exit_code == 3
    first.release()
    first.release()
    again = SingleWorker(tmp_path, "qa")
    second.release()
    again.release()


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    right = SingleWorker(tmp_path / "new" / ".sage", "qa")
    assert (tmp_path / "new" / ".sage" / LOCK).exists()
    right.release()
