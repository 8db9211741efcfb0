"""What a broker can do, asked by one raw request, since librdkafka tells nobody.

A client that joins a group by KIP-848 on a broker without it gets neither an assignment nor an error, so the
protocol is never found out by trying. ``ApiVersions`` v3 is answered before authentication on every listener
and holds both facts: the api key of ``ConsumerGroupHeartbeat`` and the finalized feature ``group.version``.
"""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sage.errors import Unauthorized
from sage.kafka.config import bootstrap_addresses

_API_VERSIONS: Final = 18
_METADATA: Final = 3
_CONSUMER_GROUP_HEARTBEAT: Final = 68
_UNSUPPORTED_VERSION: Final = 35

_EMBEDDED_CLUSTER_ID: Final = "MkU3OEVBNTctOEUyRi00"
"""The one cluster id that every embedded broker has; real ones are random and 22 characters long."""


class ProbeFailed(Exception):  # noqa: N818 - turned into Unreachable by the caller, which knows the address
    """Nobody answered in Kafka's protocol; the message is the reason in a few words."""


@dataclass(frozen=True, slots=True)
class BrokerFeatures:
    """What the probe found.

    Attributes:
        has_consumer_protocol: the broker serves KIP-848 groups.
        is_embedded: it is the embedded broker, whose cooperative rebalances do not end.
    """

    has_consumer_protocol: bool
    is_embedded: bool


def probe(bootstrap_servers: str, config: Mapping[str, Any], *, timeout: float = 10.0) -> BrokerFeatures:
    """Ask the first broker that answers; tries all addresses until ``timeout`` seconds are over.

    Raises:
        ProbeFailed: none answered.
        Unauthorized: the TLS handshake was refused.
    """
    if config.get("ssl.keystore.location"):
        # Python's ssl reads no PKCS #12, and a broker that wants a certificate answers nobody without: the older
        # protocol works everywhere, and no embedded broker asks for certificates.
        return BrokerFeatures(has_consumer_protocol=False, is_embedded=False)
    deadline = time.monotonic() + timeout
    addresses = bootstrap_addresses(bootstrap_servers)
    reason = "no address"
    while True:
        for host, port in addresses:
            left = deadline - time.monotonic()
            try:
                return _ask(host, port, config, max(min(left, timeout / len(addresses)), 0.2))
            except ssl.SSLError as error:
                raise Unauthorized(f"{host}:{port}: the TLS handshake failed: {error.reason or error}") from error
            except socket.gaierror:
                reason = f"unknown host {host}"
            except ConnectionRefusedError:
                reason = "refused"
            except TimeoutError:
                reason = "no answer"
            except (OSError, struct.error, ValueError) as error:
                reason = getattr(error, "strerror", None) or "not a Kafka broker"
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeFailed(reason)
        # A broker that is starting refuses at first; a quarter second is a fair pace to knock at.
        time.sleep(min(0.25, left))


def answers(host: str, port: int, *, timeout: float = 1.0) -> bool:
    """Whether a Kafka broker speaks at this address; never raises."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            _api_versions(connection)
    except (OSError, struct.error, ValueError):
        return False
    return True


def _ask(host: str, port: int, config: Mapping[str, Any], timeout: float) -> BrokerFeatures:
    protocol = str(config.get("security.protocol", "plaintext")).lower()
    with socket.create_connection((host, port), timeout) as plain:
        plain.settimeout(timeout)
        connection = plain if "ssl" not in protocol else _tls(config).wrap_socket(plain, server_hostname=host)
        with connection:
            features = _api_versions(connection)
            # Without credentials a SASL listener answers nothing else; the embedded broker has no SASL.
            is_embedded = "sasl" not in protocol and _cluster_id(connection) == _EMBEDDED_CLUSTER_ID
    return BrokerFeatures(has_consumer_protocol=features, is_embedded=is_embedded)


def _tls(config: Mapping[str, Any]) -> ssl.SSLContext:
    """The TLS settings of librdkafka in the words of the ssl module."""
    authority = config.get("ssl.ca.location")
    folder = authority is not None and Path(str(authority)).is_dir()
    context = ssl.create_default_context(
        cafile=None if folder or not authority or authority == "probe" else str(authority),
        capath=str(authority) if folder else None,
        cadata=config.get("ssl.ca.pem"),
    )
    if str(config.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    if str(config.get("enable.ssl.certificate.verification", True)).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    password = config.get("ssl.key.password")
    if certificate := config.get("ssl.certificate.location"):
        context.load_cert_chain(certificate, config.get("ssl.key.location"), password)
    elif texts := [str(config[name]) for name in ("ssl.certificate.pem", "ssl.key.pem") if config.get(name)]:
        # It reads from files only; this one is its owner's alone, and gone at once.
        with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="utf-8") as file:
            file.write("\n".join(texts))
            file.flush()
            context.load_cert_chain(file.name, password=password)
    return context


def _api_versions(connection: socket.socket) -> bool:
    """Whether KIP-848 groups are there: the request is known and the feature that guards it is switched on."""
    software = b"".join(_compact(text) for text in (b"sage", b"1"))
    answer = request(connection, _API_VERSIONS, 3, b"\x00" + software + b"\x00")
    reader = _Reader(answer)
    error = reader.integer(">h")
    if error == _UNSUPPORTED_VERSION:  # an old broker answers in version 0, whatever was asked
        return False
    if error != 0:
        raise ValueError("not an answer of a Kafka broker")
    keys = set()
    for _ in range(reader.varint() - 1):
        keys.add(reader.integer(">h"))
        reader.skip(4)
        reader.skip_tags()
    reader.skip(4)  # throttle time
    if _CONSUMER_GROUP_HEARTBEAT not in keys:
        return False
    for _ in range(reader.varint()):
        tag, size = reader.varint(), reader.varint()
        if tag == 2:
            return _group_version(_Reader(reader.take(size))) >= 1
        reader.skip(size)
    return False


def _group_version(reader: _Reader) -> int:
    """The finalized level of the feature ``group.version``; 0 when it isn't there."""
    for _ in range(reader.varint() - 1):
        name = reader.take(reader.varint() - 1)
        highest = reader.integer(">h")
        reader.skip(2)
        reader.skip_tags()
        if name == b"group.version":
            return highest
    return 0


def _cluster_id(connection: socket.socket) -> str | None:
    """The cluster id from a ``Metadata`` v4 request for no topics; ``None`` from a broker that wants credentials."""
    try:
        answer = request(connection, _METADATA, 4, struct.pack(">i?", 0, False))
    except ConnectionError:
        return None
    reader = _Reader(answer)
    reader.skip(4)  # throttle time
    for _ in range(reader.integer(">i")):
        reader.skip(4)  # node id
        reader.text()  # host
        reader.skip(4)  # port
        reader.text()  # rack
    return reader.text()


def request(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    """The body of the answer to one request. Raises OSError, ValueError where it is none of Kafka's protocol."""
    client = b"sage-probe"
    message = struct.pack(">hhih", key, version, 1, len(client)) + client + body
    connection.sendall(struct.pack(">i", len(message)) + message)
    (size,) = struct.unpack(">i", _receive(connection, 4))
    if not 4 <= size <= 1 << 20:
        raise ValueError("not an answer of a Kafka broker")
    answer = _receive(connection, size)
    if answer[:4] != struct.pack(">i", 1):
        raise ValueError("not an answer of a Kafka broker")
    return answer[4:]


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("closed the connection")
        received += part
    return bytes(received)


def _compact(text: bytes) -> bytes:
    return bytes([len(text) + 1]) + text


class _Reader:
    """Reads Kafka's primitive types from the front of a buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if size < 0 or len(taken) < size:
            raise ValueError("not an answer of a Kafka broker")
        self._at += size
        return taken

    def skip(self, size: int) -> None:
        self.take(size)

    def integer(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return int(value)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def text(self) -> str | None:
        size = self.integer(">h")
        return None if size < 0 else self.take(size).decode()

    def skip_tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())
