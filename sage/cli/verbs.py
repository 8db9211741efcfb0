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
    "bench": "How fast a topology is",
    "worker": "The processes that host what is deployed",
    "operators": "The operators that are installed",
    "connectors": "The sources and sinks that are installed",
    "topics": "Look into and write to Kafka topics",
    "groups": "Who reads what, and how far behind",
    "dlq": "Records that could not be processed",
    "state": "What stateful steps keep",
    "memory": "Collections of passages",
    "models": "Local models that need no account",
    "config": "Named clusters, and which one is in use",
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
            _verb("dev", "Run a topology while it is being written", "dev:dev"),
            _verb("doctor", "Check this machine, and say what to do", "doctor:doctor"),
        ),
    ),
    Section(
        "Pipelines",
        (
            _verb("topology validate", "Check a topology without running it", "topology:validate"),
            _verb("topology plan", "Show what deploying it would change", "topology_plan:plan"),
            _verb("topology explain", "Say why each step was fused, cut or parallelised", "topology:explain"),
            _verb("topology schema", "Print the JSON Schema of topology files", "topology:schema"),
            _verb("topology run", "Run a topology in this process", "topology_run:run"),
            _verb(
                "topology eval",
                "Measure its answers to a data set",
                "topology_eval:evaluate",
                "sage topology eval rag-qa.yaml --dataset golden.jsonl",
            ),
            _verb(
                "topology export", "Print it as YAML, Mermaid, AsyncAPI, Compose, Kubernetes, KEDA", "topology:export"
            ),
            _verb(
                "topology deploy",
                "Have the cluster's workers run it",
                "topology_deploy:deploy",
                "sage topology deploy rag.yaml --wait",
            ),
            _verb("topology list", "List what is deployed", "topology_look:list_topologies"),
            _verb("topology status", "Show its stages: rate, lag, retries, dead", "topology_look:status"),
            _verb("topology describe", "Show its version, code, stages and partitions", "topology_look:describe"),
            _verb("topology history", "Show what was done to it, and by whom", "topology_look:history"),
            _verb("topology rollback", "Have an earlier version run again", "topology_deploy:rollback"),
            _verb(
                "topology scale",
                "Say how many workers host a step",
                "topology_control:scale",
                "sage topology scale qa generate=3",
            ),
            _verb("topology pause", "Have it stand still", "topology_control:pause"),
            _verb("topology resume", "Have it run again", "topology_control:resume"),
            _verb("topology restart", "Start its steps anew, one by one", "topology_control:restart"),
            _verb("topology drain", "Have it finish what it has, and leave", "topology_control:drain"),
            _verb("topology wait", "Wait until workers are where they shall be", "topology_control:wait"),
            _verb("topology logs", "Print what workers logged", "topology_logs:logs"),
            _verb("topology delete", "Take it off the cluster", "topology_delete:delete"),
            _verb("bench run", "Put a topology under load and measure it", "bench:run", "sage bench run rag.yaml"),
            _verb(
                "bench compare",
                "Say whether it became slower",
                "bench:compare",
                "sage bench compare before.json now.json",
            ),
            _verb("worker run", "Host what is deployed, in this process", "worker:run"),
            _verb("worker list", "List the cluster's workers", "worker:list_workers"),
            _verb("worker describe", "Show what a worker hosts", "worker:describe"),
            _verb("worker drain", "Have a worker give away what it hosts", "worker:drain", "sage worker drain w1"),
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
            _verb("groups list", "List the groups with their lag", "groups:list_groups"),
            _verb("groups describe", "Show a group's lag per partition, per topic, in total", "groups:describe"),
            _verb(
                "groups reset",
                "Show or move where a group goes on",
                "groups:reset",
                "sage groups reset qa.retrieve --to earliest",
            ),
            _verb("dlq list", "List a topology's dead letters", "dead_letters:list_letters"),
            _verb("dlq show", "Show one dead letter whole", "dead_letters:show"),
            _verb("dlq replay", "Give dead letters to their step once more", "dead_letters_again:replay"),
            _verb("dlq purge", "Delete dead letters", "dead_letters_again:purge"),
            _verb("state show", "Show what a step keeps for a key", "state:show", "sage state show shop count ann"),
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
            _verb("config get-contexts", "List the named clusters", "config:get_contexts"),
            _verb("config current-context", "Print the one in use", "config:current_context"),
            _verb("config use-context", "Choose one", "config:use_context", "sage config use-context prod"),
            _verb(
                "config set-context",
                "Make or change one",
                "config:set_context",
                "sage config set-context prod -b k:9092",
            ),
            _verb("config delete-context", "Forget one", "config:delete_context", "sage config delete-context old"),
            _verb("config view", "Show which brokers commands talk to, and why", "config:view"),
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
