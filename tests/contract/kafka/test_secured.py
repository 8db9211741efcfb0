"""Every way of librdkafka to log in works with SAGE's clients, and a refusal says what was refused and by whom."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12

from sage.errors import Forbidden, SageError, Unauthorized
from sage.kafka.clients import ConfluentClients
from sage.kafka.launchers.apache import missing_tools
from sage.model.partition import TopicPartition
from sage.ports import DeliveryFailure, KafkaClients, TopicSpec
from tests.support.records import everything
from tests.support.secured_kafka import PASSWORD, SecuredKafka
from tests.support.waiting import wait_until

WAYS = [
    ("SASL_SSL", "SCRAM-SHA-512"), ("SASL_SSL", "SCRAM-SHA-256"), ("SASL_SSL", "PLAIN"), ("SASL_SSL", "OAUTHBEARER"),
    ("SASL_PLAINTEXT", "SCRAM-SHA-512"), ("SASL_PLAINTEXT", "PLAIN"), ("SSL", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    if reason := missing_tools():
        pytest.skip(f"NOT TESTED ON APACHE KAFKA: {reason}")
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), ("ann", "bob"))
    kafka.start()
    try:
        kafka.make_users("ann", "bob")
        for user in ("ann", "certified"):
            for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID):
                kafka.allow(user, kind, "ann-", AclOperation.ALL, prefixed=True)
        yield kafka
    finally:
        kafka.stop()


def clients_of(login: dict[str, Any]) -> KafkaClients:
    config = dict(login)
    return ConfluentClients(config.pop("bootstrap.servers"), config)


@pytest.mark.parametrize(("protocol", "mechanism"), WAYS)
def test_records_pass_in_a_transaction_and_come_back(
    secured: SecuredKafka, protocol: str, mechanism: str, unique: Any
) -> None:
    clients = clients_of(secured.login(protocol, mechanism, "ann"))
    topic = unique("ann-topic")
    admin = clients.admin()
    assert admin.create([TopicSpec(topic)]) == [topic]
    admin.close()
    producer = clients.producer(transactional_id=unique("ann-writer"))
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"hello")
    producer.commit_transaction()
    producer.close()
    assert [message.value() for message in everything(clients, topic)] == [b"hello"]


@pytest.fixture
def identity_provider() -> Iterator[tuple[str, list[str]]]:
    """The address of an OpenID Connect token endpoint that knows ann's application, and what it was sent."""
    asked: list[str] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append(sent)
            name, _, secret = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).partition(b":")
            now = int(time.time())
            claims = {"sub": "ann", "iat": now, "exp": now + 300, "scope": "kafka"}
            parts = ({"alg": "none", "typ": "JWT"}, claims)
            texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
            known = (name, secret) == (b"ann-application", PASSWORD.encode())
            answer = {"access_token": ".".join([*texts, ""])} if known else {"error": "invalid_client"}
            body = json.dumps(answer).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            del format, arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token", asked
    server.shutdown()
    server.server_close()


def of_identity_provider(secured: SecuredKafka, address: str, secret: str) -> dict[str, Any]:
    login = secured.login("SASL_SSL", "OAUTHBEARER", "ann")
    for name in ("enable.sasl.oauthbearer.unsecure.jwt", "sasl.oauthbearer.config"):
        del login[name]
    return login | {
        "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.token.endpoint.url": address,
        "sasl.oauthbearer.client.id": "ann-application", "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.scope": "kafka",
    }  # fmt: skip


def test_an_identity_provider_gives_the_token_and_a_refusal_of_it_is_told_without_the_secret(
    secured: SecuredKafka, identity_provider: tuple[str, list[str]], unique: Any
) -> None:
    address, asked = identity_provider
    clients = clients_of(of_identity_provider(secured, address, PASSWORD))
    topic = unique("ann-topic")
    assert clients.admin().create([TopicSpec(topic)]) == [topic]
    producer = clients.producer()
    producer.produce(topic, b"hello")
    assert producer.flush(20) == 0
    producer.close()
    assert [message.value() for message in everything(clients, topic)] == [b"hello"]
    assert "grant_type=client_credentials" in asked[0]
    with pytest.raises(Unauthorized) as refused:
        clients_of(of_identity_provider(secured, address, "wrong-horse")).admin().list_topics()
    assert "wrong-horse" not in str(refused.value)


@pytest.mark.parametrize("form", ["files", "texts", "keystore"])
def test_a_certificate_is_taken_in_every_form_also_by_members_of_a_group(
    secured: SecuredKafka, form: str, unique: Any, tmp_path: Path
) -> None:
    login = secured.login("SSL")
    certificate, key = Path(login["ssl.certificate.location"]), Path(login["ssl.key.location"])
    if form != "files":
        del login["ssl.certificate.location"], login["ssl.key.location"]
    if form == "texts":
        login |= {"ssl.certificate.pem": certificate.read_text(), "ssl.key.pem": key.read_text()}
    elif form == "keystore":
        login |= {"ssl.keystore.location": str(tmp_path / "own.p12"), "ssl.keystore.password": PASSWORD}
        (tmp_path / "own.p12").write_bytes(keystore(certificate, key))
    clients = clients_of(login)
    topic = unique("ann-certified")
    clients.admin().create([TopicSpec(topic)])
    producer = clients.producer()
    producer.produce(topic, b"hello")
    assert producer.flush(20) == 0
    producer.close()
    consumer = clients.consumer(unique("ann-group"))
    consumer.subscribe([topic], Quiet())
    found: list[bytes | None] = []

    def came() -> bool:
        found.extend(message.value() for message in consumer.poll(10, 0.5))
        return bool(found)

    wait_until(came, timeout=60, what="the member reads the record")
    consumer.close()
    assert found == [b"hello"]


class Quiet:
    """A member that does nothing when partitions come and go."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        del partitions

    on_revoked = on_lost = on_assigned


def keystore(certificate: Path, key: Path) -> bytes:
    """Both as PKCS #12 under the tests' password."""
    (own, *chain) = x509.load_pem_x509_certificates(certificate.read_bytes())
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey)
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    return pkcs12.serialize_key_and_certificates(b"own", private, own, chain or None, encryption)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_named_at_once_and_not_shown(secured: SecuredKafka, mechanism: str) -> None:
    clients = clients_of(secured.login("SASL_SSL", mechanism, "ann", "wrong-horse"))
    with pytest.raises(Unauthorized) as refused:
        clients.admin().list_topics()
    assert "wrong-horse" not in str(refused.value)


def test_a_broker_whose_certificate_nobody_vouches_for_is_not_talked_to(secured: SecuredKafka) -> None:
    login = secured.login("SASL_SSL", "SCRAM-SHA-512", "ann")
    del login["ssl.ca.location"]
    with pytest.raises(SageError) as refused:
        clients_of(login).admin().list_topics()
    assert PASSWORD not in str(refused.value)
    assert "certificate" in str(refused.value)


def test_what_an_account_may_not_do_is_refused_by_name(secured: SecuredKafka, unique: Any) -> None:
    ann, bob = (clients_of(secured.login("SASL_SSL", "SCRAM-SHA-512", user)) for user in ("ann", "bob"))
    topic = unique("ann-topic")
    ann.admin().create([TopicSpec(topic)])
    with pytest.raises(Unauthorized):
        bob.admin().create([TopicSpec(unique("bob-topic"))])
    with pytest.raises(Unauthorized):
        bob.admin().end_offsets([TopicPartition(topic, 0)])
    with pytest.raises(Unauthorized):
        written_by(bob, topic)
    assert not everything(ann, topic)


def test_a_transaction_that_may_not_write_says_so_instead_of_being_sent_again_for_ever(
    secured: SecuredKafka, unique: Any
) -> None:
    topic = unique("ann-topic")
    clients_of(secured.login("SASL_SSL", "SCRAM-SHA-512", "ann")).admin().create([TopicSpec(topic)])
    secured.allow("bob", ResourceType.TOPIC, topic, AclOperation.READ)
    secured.allow("bob", ResourceType.TRANSACTIONAL_ID, "bob-", AclOperation.WRITE, prefixed=True)
    bob = clients_of(secured.login("SASL_SSL", "SCRAM-SHA-512", "bob"))
    producer = bob.producer(transactional_id=unique("bob-writer"))
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"no")
    with pytest.raises(Forbidden, match=f"lacks Write on topic {topic} at"):
        producer.flush(20)
    producer.close(0.0)


def written_by(clients: KafkaClients, topic: str) -> None:
    """Write one record. Raises what the client raises, or Unauthorized for a report that says so."""
    producer = clients.producer()
    failures: list[DeliveryFailure | None] = []
    try:
        producer.produce(topic, b"no", on_delivery=lambda failure, *_: failures.append(failure))
        producer.flush(20)
    finally:
        producer.close()
    (failure,) = failures
    if failure is not None:
        assert not failure.retriable
        raise Unauthorized(failure.reason)
