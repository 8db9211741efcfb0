"""Named clusters of ``sage config``: which brokers, with which properties, under which control prefix.

They live in ``~/.config/sage/config.yaml``, or where ``SAGE_CONFIG`` says. Secrets are references (``env``, ``file``,
``command``), resolved when clients are made; a secret written out is refused, so that the file can be shown and kept.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from sage.errors import InvalidTopology, MissingVariable, NotFound, SageError
from sage.kafka.config import is_secret
from sage.model.secrets import remember_secret
from sage.spec.suggest import hint

CONFIG_VARIABLE: Final = "SAGE_CONFIG"

_COMMAND_TIMEOUT: Final = 30.0
_KINDS: Final = ("env", "file", "command")
_FIELDS: Final = ("bootstrap-servers", "control-prefix", "kafka")

Kind = Literal["env", "file", "command"]


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is: a variable, a file, or a command that prints it."""

    kind: Kind
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``env:NAME``, ``file:PATH`` or ``command:LINE``. Raises InvalidTopology."""
        kind, _, place = text.partition(":")
        if kind not in _KINDS or not place.strip():
            raise InvalidTopology("not a reference to a secret; give env:NAME, file:PATH or command:LINE")
        return cls(cast("Kind", kind), place.strip())

    def resolve(self, environ: Mapping[str, str]) -> str:
        """The secret itself.

        Raises:
            MissingVariable: the variable is not set.
            NotFound: the file or the program does not exist.
            SageError: the file can't be read, or the command failed; what it printed is not repeated.
        """
        if self.kind == "env":
            if self.place not in environ:
                raise MissingVariable(f"{self.place} is not set")
            return environ[self.place]
        return self._of_file() if self.kind == "file" else self._of_command(environ)

    def _of_file(self) -> str:
        try:
            return Path(self.place).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError as error:
            raise NotFound(f"no file {self.place}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise SageError(f"cannot read {self.place}: {error}") from error

    def _of_command(self, environ: Mapping[str, str]) -> str:
        try:
            done = subprocess.run(
                shlex.split(self.place),
                env=dict(environ),
                stdout=subprocess.PIPE,
                text=True,
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except FileNotFoundError as error:
            raise NotFound(f"no program for `{self.place}`") from error
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise SageError(f"`{self.place}` gave no secret: {type(error).__name__}") from error
        if done.returncode:
            raise SageError(f"`{self.place}` ended with exit code {done.returncode}")
        return done.stdout.rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class Context:
    """One cluster.

    Attributes:
        name: as ``sage config use-context`` takes it.
        bootstrap_servers: ``host:port``, separated by commas.
        control_prefix: of the control topics; empty is SAGE's own.
        kafka: librdkafka's properties; secrets as references.
    """

    name: str
    bootstrap_servers: str
    control_prefix: str = ""
    kafka: Mapping[str, str | Reference] = field(default_factory=dict)

    def properties(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The properties with their secrets.

        Raises:
            SageError: a secret can't be had; names the context and the property.
        """
        found = {}
        for name, value in self.kafka.items():
            try:
                found[name] = value.resolve(environ) if isinstance(value, Reference) else value
            except SageError as error:
                raise error.at(f"context {self.name!r} kafka.{name}") from error
            if isinstance(value, Reference):
                remember_secret(found[name])
        return found

    def as_dict(self) -> dict[str, Any]:
        """As the file holds it; references as ``env:NAME``."""
        return {
            "name": self.name,
            "bootstrap_servers": self.bootstrap_servers,
            "control_prefix": self.control_prefix,
            "kafka": {name: str(value) for name, value in self.kafka.items()},
        }


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts of a file, and the one that is used."""

    path: Path
    current: str | None = None
    all: Mapping[str, Context] = field(default_factory=dict)

    def get(self, name: str) -> Context:
        """Raises NotFound, with the nearest name."""
        if name not in self.all:
            raise NotFound(f"no context {name!r}; {hint(name, self.all, what='contexts')}", where=str(self.path))
        return self.all[name]

    def current_context(self) -> Context | None:
        """The one that is used; ``None`` where none was chosen. Raises NotFound where it is gone."""
        return None if self.current is None else self.get(self.current)

    def using(self, name: str) -> Contexts:
        """With another current one. Raises NotFound."""
        return replace(self, current=self.get(name).name)

    def with_context(self, context: Context) -> Contexts:
        """With one more, or another in its place. The first one becomes the current one."""
        return replace(self, all={**self.all, context.name: context}, current=self.current or context.name)

    def without(self, name: str) -> Contexts:
        """Without one; it is no more the current one either. Raises NotFound."""
        gone = self.get(name)
        kept = {one: context for one, context in self.all.items() if context != gone}
        return replace(self, all=kept, current=None if self.current == name else self.current)


def contexts_path(environ: Mapping[str, str]) -> Path:
    """``SAGE_CONFIG``, else ``sage/config.yaml`` in the user's folder of settings. Raises SageError for a ``~`` of
    nobody."""
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    named = Path(environ.get(CONFIG_VARIABLE) or f"{base}/sage/config.yaml")
    try:
        return named.expanduser()
    except RuntimeError as error:
        raise SageError(f"there is no such home folder; set {CONFIG_VARIABLE}", where=str(named)) from error


def read_contexts(environ: Mapping[str, str] | None = None) -> Contexts:
    """What the file holds; nothing where there is none.

    Raises:
        InvalidTopology: it is no YAML, has fields that don't exist, or a secret that is written out.
        SageError: it can't be read.
    """
    path = contexts_path(os.environ if environ is None else environ)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Contexts(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SageError(f"cannot be read: {error}", where=str(path)) from error
    try:
        return _parsed(path, text)
    except SageError as error:
        raise error.at(str(path)) from error


def write_contexts(contexts: Contexts) -> None:
    """Write the file whole or not at all, for its owner's eyes only.

    Raises:
        SageError: it can't be written.
    """
    document: dict[str, Any] = {"current-context": contexts.current, "contexts": {}}
    for context in contexts.all.values():
        document["contexts"][context.name] = {
            "bootstrap-servers": context.bootstrap_servers,
            **({"control-prefix": context.control_prefix} if context.control_prefix else {}),
            **({"kafka": {name: _written(value) for name, value in context.kafka.items()}} if context.kafka else {}),
        }
    unfinished = contexts.path.with_name(f"{contexts.path.name}.{os.getpid()}.part")
    try:
        contexts.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            _yaml().dump(document, out)
        unfinished.replace(contexts.path)
    except OSError as error:
        raise SageError(f"cannot be written: {error}", where=str(contexts.path)) from error


def checked_property(name: str, value: str) -> str:
    """A property that may be written out.

    Raises:
        InvalidTopology: it is a secret.
    """
    if is_secret(name):
        raise InvalidTopology(
            f"{name} is a secret, and is not written out here; refer to it as env:NAME, file:PATH or command:LINE"
        )
    return value


# -------------------------------------------------------------------------------------------- the file


def _parsed(path: Path, text: str) -> Contexts:
    from ruamel.yaml.error import YAMLError

    try:
        document = _yaml().load(text) or {}
    except YAMLError as error:
        raise InvalidTopology(f"is no YAML: {' '.join(str(error).split())}") from error
    entries = document.get("contexts") or {} if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(entries, Mapping):
        raise InvalidTopology("must hold `current-context` and `contexts`; see `sage config set-context --help`")
    _refuse_unknown(document, ("current-context", "contexts"), "")
    current = document.get("current-context")
    found = {str(name): _context(str(name), fields) for name, fields in entries.items()}
    return Contexts(path, None if current is None else str(current), found)


def _context(name: str, fields: Any) -> Context:
    place = f"contexts.{name}"
    if not isinstance(fields, Mapping) or not fields.get("bootstrap-servers"):
        raise InvalidTopology(f"{place}: bootstrap-servers is missing")
    _refuse_unknown(fields, _FIELDS, f"{place}.")
    kafka = fields.get("kafka") or {}
    if not isinstance(kafka, Mapping):
        raise InvalidTopology(f"{place}.kafka: must hold properties, name: value")
    return Context(
        name,
        str(fields["bootstrap-servers"]),
        str(fields.get("control-prefix") or ""),
        dict(_properties(f"{place}.kafka", kafka)),
    )


def _properties(place: str, kafka: Mapping[str, Any]) -> Iterator[tuple[str, str | Reference]]:
    for name, value in kafka.items():
        try:
            if isinstance(value, Mapping):
                (kind, where), *more = value.items()
                if more:
                    raise InvalidTopology("takes one of env, file and command")
                yield str(name), Reference.parse(f"{kind}:{where}")
            else:
                yield str(name), checked_property(str(name), _plain(value))
        except InvalidTopology as error:
            raise InvalidTopology(f"{place}.{name}: {error.message}") from error


def _refuse_unknown(fields: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in fields:
        if name not in known:
            raise InvalidTopology(f"{place}{name}: unknown field; {hint(str(name), known)}")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _written(value: str | Reference) -> Any:
    return {value.kind: value.place} if isinstance(value, Reference) else value


def _yaml() -> Any:
    from ruamel.yaml import YAML

    made = YAML()
    made.default_flow_style = False
    made.preserve_quotes = True
    return made
