"""``up.json``: whole or as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sage.errors import DiskFull, SageError
from sage.services.state import ServiceEntry, UpState, User, disk_error, read_state, write_state

ENTRY = ServiceEntry(
    "broker", 12, "boot:1", "127.0.0.1", 19092, "/x/broker.log", {"embedded": "true"}, "sage up", 1.5, True
)
STATE = UpState({"broker": ENTRY}, {7: User("boot:2", 2)})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "up.json"
    assert read_state(file) == UpState()
    write_state(file, STATE)
    assert read_state(file) == STATE
    assert ENTRY.address == "127.0.0.1:19092"


def test_an_empty_set_has_no_file(tmp_path: Path) -> None:
    file = tmp_path / "up.json"
    write_state(file, STATE)
    write_state(file, UpState(users={7: User("boot:2")}))
    assert not file.exists()


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "up.json"
    write_state(file, STATE)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no space is left"):
        write_state(file, UpState({"memory": ENTRY}))
    assert read_state(file) == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["up.json"]


def test_other_failures_name_folder_and_reason() -> None:
    error = disk_error(PermissionError(errno.EACCES, "Permission denied"), Path("/data"))
    assert str(error) == (
        "/data: cannot be written: Permission denied; check its owner and rights, or name another --data-dir [SAGE100]"
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"services": {"broker": {}}, "users": {}}', '{"services": {}}',
        '{"services": {"broker": {"pid": "x", "identity": "", "host": "", "port": 1, "log": ""}}, "users": {}}',
    ],
)  # fmt: skip
def test_a_file_of_another_program_is_not_read_as_ours(tmp_path: Path, text: str) -> None:
    file = tmp_path / "up.json"
    file.write_text(text)
    with pytest.raises(SageError, match="is not a file that this version of SAGE wrote"):
        read_state(file)
