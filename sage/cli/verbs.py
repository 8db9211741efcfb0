"""The table of verbs: what can be typed, what it does in one line, and the function that does it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_COMMANDS = "sage.cli.commands"


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    Attributes:
        path: the words typed, such as ``("topology", "run")``.
        summary: one line for the help.
        target: ``module:function``, imported when the verb runs.
        example: what to type, said to whoever left out an argument that it needs.
    """

    path: tuple[str, ...]
    summary: str
    target: str
    example: str = ""

    @property
    def words(self) -> str:
        """The words as typed after ``sage``."""
        return " ".join(self.path)


@dataclass(frozen=True, slots=True)
class Section:
    """Verbs that belong together in the help."""

    title: str
    verbs: tuple[Verb, ...]


GROUPS = {
    "topology": "Check, explain and run pipelines",
    "operators": "The operators that are installed",
    "connectors": "The sources and sinks that are installed",
    "topics": "Look into and write to Kafka topics",
    "dlq": "Records that could not be processed",
    "memory": "Collections of passages",
    "models": "Local models that need no account",
}


def _verb(words: str, summary: str, target: str, example: str = "") -> Verb:
    return Verb(tuple(words.split()), summary, f"{_COMMANDS}.{target}", example)


SECTIONS = (
    Section(
        "Start here",
        (
            _verb("demo", "Questions, documents and answers over Kafka, in one go", "demo:demo"),
            _verb("init", "Make a starter project", "init:init", "sage init handbook"),
            _verb("up", "Start this folder's broker, memory server and local model", "services:up"),
            _verb("down", "Stop them", "services:down"),
            _verb("status", "Show them", "services:status"),
            _verb("doctor", "Check this machine, and say what to do", "doctor:doctor"),
        ),
    ),
    Section(
        "Pipelines",
        (
            _verb("topology validate", "Check a topology without running it", "topology:validate"),
            _verb("topology plan", "Show the stages and topics that it becomes", "topology:plan"),
            _verb("topology explain", "Say why each step was fused, cut or parallelised", "topology:explain"),
            _verb("topology schema", "Print the JSON Schema of topology files", "topology:schema"),
            _verb("topology run", "Run a topology in this process", "topology_run:run"),
            _verb("topology export", "Print it as YAML or as a Mermaid diagram", "topology:export"),
            _verb("operators list", "List the operators", "components:list_operators"),
            _verb("operators describe", "Show an operator's options", "components:describe_operator"),
            _verb("connectors list", "List the sources and sinks", "components:list_connectors"),
            _verb("connectors describe", "Show a source's or sink's options", "components:describe_connector"),
        ),
    ),
    Section(
        "Data",
        (
            _verb("topics list", "List the topics", "topics:list_topics"),
            _verb("topics describe", "Show a topic's partitions, offsets and lag", "topics:describe"),
            _verb("topics create", "Make a topic", "topics:create"),
            _verb("topics tail", "Print a topic's records", "topics:tail"),
            _verb("topics produce", "Write records from arguments or standard input", "topics:produce"),
            _verb("dlq list", "List a topology's dead letters", "dead_letters:list_letters"),
            _verb("dlq show", "Show one dead letter whole", "dead_letters:show"),
            _verb("memory create", "Make a collection", "memory:create"),
            _verb("memory list", "List the collections", "memory:list_collections"),
            _verb("memory describe", "Show a collection", "memory:describe"),
            _verb("memory ingest", "Read documents into a collection", "memory:ingest"),
            _verb("memory search", "Find the passages nearest to a question", "memory:search"),
            _verb("memory export", "Print a collection as JSON lines", "memory:export"),
            _verb("memory delete", "Delete a collection", "memory:delete"),
            _verb("models list", "List the local models", "models:list_models"),
            _verb("models pull", "Make a local model ready to use", "models:pull"),
            _verb("models serve", "Serve a local model over the OpenAI protocol", "models:serve"),
        ),
    ),
    Section(
        "This program",
        (
            _verb("version", "Print the version", "about:version"),
            _verb("completion", "Print a completion script for bash, zsh or fish", "about:completion"),
        ),
    ),
)

VERBS: dict[tuple[str, ...], Verb] = {verb.path: verb for section in SECTIONS for verb in section.verbs}


def in_group(group: str) -> list[Verb]:
    """The verbs of a group, in the table's order."""
    return [verb for verb in VERBS.values() if verb.path[0] == group and len(verb.path) > 1]


def names_at(path: tuple[str, ...]) -> list[str]:
    """The words that can follow ``path``, without doubles."""
    return _unique(verb.path[len(path)] for verb in VERBS.values() if verb.path[: len(path)] == path != verb.path)


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
