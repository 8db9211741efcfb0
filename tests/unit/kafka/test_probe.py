"""The probe: what it makes of a broker's bytes, and of a stranger's."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sage.errors import Unauthorized
from sage.kafka.probe import BrokerFeatures, ProbeFailed, answers, probe
from tests.support.brokers import free_port


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def api_versions(keys: Sequence[int], group_version: int | None) -> bytes:
    """An ApiVersions v3 answer, with more tags and features than we ask for."""
    body = struct.pack(">h", 0) + varint(len(keys) + 1)
    body += b"".join(struct.pack(">hhh", key, 0, 1) + b"\x00" for key in keys) + struct.pack(">i", 0)
    names = [b"metadata.version"] if group_version is None else [b"metadata.version", b"group.version"]
    features = varint(len(names) + 1)
    for name in names:
        features += varint(len(name) + 1) + name + struct.pack(">hh", group_version or 0, 0) + b"\x00"
    tags = {0: b"\x01", 1: struct.pack(">q", 5), 2: features}
    return body + varint(len(tags)) + b"".join(varint(tag) + varint(len(data)) + data for tag, data in tags.items())


def metadata(cluster_id: str) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack(">h", len(value)) + value.encode()

    broker = struct.pack(">i", 1) + text("localhost") + struct.pack(">i", 9092) + struct.pack(">h", -1)
    return struct.pack(">ii", 0, 1) + broker + text(cluster_id) + struct.pack(">ii", 1, 0)


@contextmanager
def server(*bodies: bytes | None, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answers each connection's requests with these bodies; ``None`` closes it instead."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the listener is closed: the test is over
            while True:
                plain, _ = listener.accept()
                with plain, suppress(ssl.SSLError), tls.wrap_socket(plain, server_side=True) if tls else plain as made:
                    answer_all(made, bodies)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def answer_all(connection: socket.socket, bodies: Sequence[bytes | None]) -> None:
    for body in bodies:
        head = receive(connection, 4)
        if len(head) < 4 or body is None:
            return
        request = receive(connection, int.from_bytes(head, "big"))
        connection.sendall(struct.pack(">i", len(body) + 4) + request[4:8] + body)


@pytest.mark.parametrize(
    ("keys", "group_version", "expected"),
    [
        ((0, 18, 68), 1, True),
        ((0, 18, 68), 0, False),  # the request is known, and the feature is not switched on
        ((0, 18, 68), None, False),
        ((0, 18), 1, False),
    ],
)
def test_kip_848_needs_the_request_and_the_feature(
    keys: Sequence[int], group_version: int | None, expected: bool
) -> None:
    with server(api_versions(keys, group_version), metadata("x" * 22)) as address:
        assert probe(address, {}) == BrokerFeatures(has_consumer_protocol=expected, is_embedded=False)


def test_the_embedded_broker_is_known_by_its_cluster_id() -> None:
    with server(api_versions((18,), None), metadata("MkU3OEVBNTctOEUyRi00")) as address:
        assert probe(address, {}).is_embedded


def test_an_old_broker_that_refuses_the_version_is_classic() -> None:
    with server(struct.pack(">hi", 35, 0), metadata("x" * 22)) as address:
        assert not probe(address, {}).has_consumer_protocol


def test_a_broker_that_wants_credentials_is_probed_all_the_same() -> None:
    with server(api_versions((68,), 1), None) as address:
        assert probe(address, {}).has_consumer_protocol


def test_a_stranger_is_told_from_a_broker() -> None:
    with server(b"HTTP/1.1 400 Bad Request") as address, pytest.raises(ProbeFailed, match="not a Kafka broker"):
        probe(address, {}, timeout=0.3)


def test_nobody_is_told_from_a_stranger() -> None:
    with pytest.raises(ProbeFailed, match="refused"):
        probe(f"127.0.0.1:{free_port()}", {}, timeout=0.3)
    with pytest.raises(ProbeFailed, match=r"unknown host no-such-host\.invalid"):
        probe("no-such-host.invalid:9092", {}, timeout=0.3)


def test_a_silent_listener_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ProbeFailed, match="no answer"):
            probe(f"127.0.0.1:{port}", {}, timeout=0.3)
        assert not answers("127.0.0.1", port, timeout=0.2)


def test_the_next_address_is_asked_when_one_refuses() -> None:
    with server(api_versions((68,), 1), metadata("x" * 22)) as address:
        assert probe(f"127.0.0.1:{free_port()},{address}", {}).has_consumer_protocol


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate to test TLS with")
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "certificate.pem", folder / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=sage-test"]
    outputs = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run([*request, *outputs], check=True, capture_output=True)
    return made


def test_tls_is_spoken_with_librdkafkas_settings(certificate: tuple[Path, Path]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    known = {"security.protocol": "SSL", "ssl.ca.location": str(certificate[0])}
    unchecked = {"security.protocol": "SASL_SSL", "enable.ssl.certificate.verification": "false"}
    for config in (known, unchecked):
        with server(api_versions((68,), 1), metadata("x" * 22), tls=tls) as address:
            assert probe(address, config).has_consumer_protocol
    with (
        server(api_versions((68,), 1), tls=tls) as address,
        pytest.raises(Unauthorized, match="TLS handshake"),
    ):
        probe(address, {"security.protocol": "SSL"})
