"""Which brokers a command or program talks to, and why those."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage.cluster.names import DEFAULT_PREFIX, PREFIX_VARIABLE, ControlTopics
from sage.errors import InvalidTopology, NotFound, SageError, Unreachable
from sage.ports import KafkaClients
from sage.services.service_set import ServiceSet
from sage.services.state import ServiceEntry
from sage.wiring.contexts import read_contexts

BOOTSTRAP_VARIABLE = "SAGE_BOOTSTRAP_SERVERS"


@dataclass(frozen=True)
class Brokers:
    """An address with where it was found.

    Attributes:
        address: ``host:port``, separated by commas.
        origin: the option, variable or file that named it; empty for an option.
        config: librdkafka's properties for all clients; may hold secrets.
        capabilities: what the launcher of an embedded broker wrote of it.
        control_prefix: of the control topics, where a context names one.
    """

    address: str
    origin: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    capabilities: Mapping[str, str] = field(default_factory=dict)
    control_prefix: str = ""

    @property
    def control_topics(self) -> ControlTopics:
        """The control topics there: ``SAGE_CONTROL_PREFIX`` wins over the context. Raises InvalidTopology."""
        return ControlTopics(os.environ.get(PREFIX_VARIABLE) or self.control_prefix or DEFAULT_PREFIX)

    def clients(self, extra: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None) -> KafkaClients:
        """Clients for these brokers.

        Args:
            extra: a topology's own tuning properties; the brokers' win over them.
            own: those of this process's command line or program, which win over all.
        """
        from sage.kafka.clients import ConfluentClients

        protocol = self.capabilities.get("group_protocol")
        return ConfluentClients(
            self.address,
            {**(extra or {}), **self.config, **(own or {})},
            group_protocol="classic" if protocol == "classic" else "consumer" if protocol == "consumer" else None,
            is_embedded=self.capabilities.get("embedded") == "true",
            origin=self.origin,
        )


def find_brokers(
    flag: str | None,
    data_dir: Path,
    kafka_config: Path | None = None,
    *,
    start: Callable[[], ServiceEntry] | None = None,
    contexts: bool = True,
) -> Brokers:
    """The brokers by flag, else ``SAGE_BOOTSTRAP_SERVERS``, else the current context's, else those of ``data_dir``.

    A context's properties go with its own brokers only: its password is not shown to others.

    Args:
        flag: the option of the command line.
        data_dir: the folder of the background services.
        kafka_config: a file of librdkafka properties; they win over a context's.
        start: starts the embedded broker where nothing else is named; ``None`` makes that an error.
        contexts: whether ``sage config`` is looked at.

    Raises:
        Unreachable: nothing is named, or the folder's own broker is dead.
        NotFound: the file of properties, or the current context, does not exist.
        SageError: a secret of the context can't be had.
    """
    config = read_properties(kafka_config) if kafka_config is not None else {}
    if flag:
        return Brokers(flag, "", config)
    variable = os.environ.get(BOOTSTRAP_VARIABLE)
    if variable:
        return Brokers(variable, BOOTSTRAP_VARIABLE, config)
    if config.get("bootstrap.servers"):
        return Brokers(str(config.pop("bootstrap.servers")), str(kafka_config), config)
    context = read_contexts().current_context() if contexts else None
    if context is not None:
        own = context.properties(os.environ)
        origin = f"context {context.name}"
        return Brokers(context.bootstrap_servers, origin, {**own, **config}, control_prefix=context.control_prefix)
    entry = start() if start is not None else ServiceSet(data_dir).find("broker")
    if entry is None:
        raise Unreachable(
            f"no broker is named and none runs for {data_dir}. Start one with `sage up`, "
            f"or give --bootstrap-servers, or set {BOOTSTRAP_VARIABLE}, or see `sage config`."
        )
    return Brokers(entry.address, f"{data_dir}/up.json", config, entry.capabilities)


def read_properties(path: Path) -> dict[str, Any]:
    """A file of ``name=value`` lines, as Kafka's own tools take it; ``#`` begins a comment line.

    Raises:
        NotFound: no such file.
        InvalidTopology: it is no text, or a line is neither.
        SageError: it can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "no such file"
        raise NotFound(
            f"{what}; --kafka-config wants a file of librdkafka properties, one name=value a line", where=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidTopology(f"not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from error
    except OSError as error:
        raise SageError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    found: dict[str, Any] = {}
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.strip():
            raise InvalidTopology("not a property; write name=value", where=f"{path}:{number}")
        found[name.strip()] = value.strip()
    return found
