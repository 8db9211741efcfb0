"""Apache Kafka as it stands in companies: TLS, accounts with passwords or certificates, ACLs that allow nothing else.

Clients of the plain listener are the administrator; it serves the brokers themselves and what tests set up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sage.kafka.launchers.apache import ApacheKafka, free_ports
from sage.operations.rights import Right

PASSWORD = "correct-horse"

SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}


class SecuredKafka:
    """One node with a listener for each way to log in.

    Args:
        folder: for keys and certificates.
        users: accounts with a password, for SCRAM and PLAIN.
    """

    def __init__(self, folder: Path, users: tuple[str, ...]) -> None:
        self._folder = folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        self._write("broker", authority.issue_cert("127.0.0.1", "localhost"))
        self._write("certified", authority.issue_cert("client@sage.test", common_name="certified"))
        self._ports = dict(zip(("SASL_SSL", "SASL_PLAINTEXT", "SSL"), free_ports(3), strict=True))
        self.cluster = ApacheKafka(settings=self._settings(users))

    def _write(self, name: str, issued: trustme.LeafCert) -> None:
        issued.private_key_pem.write_to_path(self._folder / f"{name}.key.pem")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self._folder / f"{name}.cert.pem").write_bytes(chain)
        # Kafka wants the key as PKCS #8, and the chain in the same file.
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self._folder / f"{name}.pem").write_bytes(plain + chain)

    def _settings(self, users: tuple[str, ...]) -> dict[str, str]:
        found = {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,"
            "SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self._folder / "ca.pem"),
            "listener.name.ssl.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([a-z]+).*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        }
        for listener in ("listener.name.sasl_ssl", "listener.name.sasl_plaintext"):
            found[f"{listener}.sasl.enabled.mechanisms"] = ",".join(("PLAIN", "OAUTHBEARER", *SCRAM))
            for mechanism, module in _login_modules(users).items():
                found[f"{listener}.{mechanism.lower()}.sasl.jaas.config"] = module
        return found

    def start(self) -> None:
        """Start it, and make the SCRAM accounts' passwords known."""
        listeners = {name: f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()}
        self.cluster.add_listeners(listeners)
        self.cluster.start_all()

    def stop(self) -> None:
        """Stop it."""
        self.cluster.stop()

    def make_users(self, *users: str) -> None:
        """Give them the password, for both kinds of SCRAM."""
        changes = [
            UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for user in users
            for mechanism in SCRAM.values()
        ]
        admin = self._admin()
        for change in changes:  # one a request: Kafka takes each user once
            for future in admin.alter_user_scram_credentials([change]).values():
                future.result(30)

    def allow(
        self, user: str, kind: ResourceType, name: str, *operations: AclOperation, prefixed: bool = False
    ) -> None:
        """Allow ``user`` these on one resource, or on all whose names begin so."""
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        rules = [
            AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        admin = self._admin()  # held while its answers are awaited
        for future in admin.create_acls(rules).values():
            future.result(30)

    def grant(self, user: str, rights: Iterable[Right]) -> None:
        """Allow ``user`` what a table of rights says."""
        for right in rights:
            kind = ResourceType[right.kind.replace("-", "_").upper()]
            operations = [AclOperation[one.upper()] for one in right.operations]
            self.allow(user, kind, right.name, *operations, prefixed=right.prefixed)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.cluster.bootstrap_servers})

    def login(self, protocol: str, mechanism: str = "", user: str = "", password: str = PASSWORD) -> dict[str, Any]:
        """librdkafka's properties for a way to log in, the brokers included."""
        found: dict[str, Any] = {
            "bootstrap.servers": f"127.0.0.1:{self._ports[protocol]}",
            "security.protocol": protocol,
        }
        if "SSL" in protocol.split("_"):
            found["ssl.ca.location"] = str(self._folder / "ca.pem")
        if protocol == "SSL":
            found |= {
                "ssl.certificate.location": str(self._folder / "certified.cert.pem"),
                "ssl.key.location": str(self._folder / "certified.key.pem"),
            }
        elif mechanism == "OAUTHBEARER":
            found |= {
                "sasl.mechanism": mechanism,
                "enable.sasl.oauthbearer.unsecure.jwt": True,
                "sasl.oauthbearer.config": f"principal={user} scope=kafka",
            }
        else:
            found |= {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password}
        return found

    def properties(self, login: Mapping[str, Any], path: Path) -> Path:
        """A file of them, as ``--kafka-config`` takes it."""
        path.write_text("".join(f"{name}={_text(value)}\n" for name, value in login.items()), encoding="utf-8")
        path.chmod(0o600)
        return path


def _login_modules(users: tuple[str, ...]) -> dict[str, str]:
    """How the broker knows its clients, by mechanism."""
    package = "org.apache.kafka.common.security"
    passwords = " ".join(f'user_{name}="{PASSWORD}"' for name in users)
    bearer = 'OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"'
    return {
        "PLAIN": f"{package}.plain.PlainLoginModule required {passwords};",
        "OAUTHBEARER": f"{package}.oauthbearer.{bearer};",
        **dict.fromkeys(SCRAM, f"{package}.scram.ScramLoginModule required;"),
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
