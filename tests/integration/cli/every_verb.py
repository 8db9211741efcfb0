"""What is typed for each verb of the table, so that each has something to show."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = """
def check(value):
    if value["n"] < 0:
        raise ValueError("less than nothing")
    return value


def same(value):
    return value


def count(value, ctx):
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield {**value, "count": ctx.state["n"]}


def answer(value):
    return {**value, "answer": "twenty days"}
"""

WALK = """
version: 1
name: walk
defaults: {{partitions: 2}}
steps:
  read: {{source: topic, config: {{topic: walk-in}}}}
  check: {{map: "walk_steps:{check}", from: read, retry: {{attempts: 1}}}}
  keyed: {{key_by: user, from: check}}
  count: {{process: "walk_steps:count", from: keyed}}
  out: {{sink: topic, from: count, config: {{topic: walk-out}}}}
"""

ANSWER = """
version: 1
name: {name}
steps:
  read: {{source: {source}}}
  answer: {{map: "walk_steps:{step}", from: read}}
  out: {{sink: topic, from: answer, config: {{topic: {name}-out}}}}
"""

FILES = {
    "walk_steps.py": STEPS,
    "walk-1.yaml": WALK.format(check="same"),
    "walk.yaml": WALK.format(check="check"),
    "qa.yaml": ANSWER.format(name="qa", source="topic, config: {topic: walk-in}", step="answer"),
    "gone-json.yaml": ANSWER.format(name="gone-json", source="topic, config: {topic: walk-in}", step="same"),
    "gone-yaml.yaml": ANSWER.format(name="gone-yaml", source="topic, config: {topic: walk-in}", step="same"),
    "stuck.yaml": ANSWER.format(name="stuck", source="topic, config: {topic: walk-in}", step="same").replace(
        "walk_steps", "unknown_to_workers"
    ),
    "unknown_to_workers.py": STEPS,
    "golden.jsonl": '{"query": "how many?", "expected": "twenty days"}\n{"query": "who?", "expected": "nobody"}\n',
    "records.jsonl": "".join(f'{{"n": {number}}}\n' for number in range(50)),
    "wrong.yaml": "version: 1\nname: wrong\nsteps:\n  read: {source: topik}\n",
    "leave.md": "# Leave\n\nNew staff get 20 days of leave.\n",
}


@dataclass(frozen=True)
class Case:
    """One command line after the verb's own words, once for JSON and once for YAML; ``FORM`` becomes the form and
    ``WORKER`` the worker's name.

    Attributes:
        again: typed the second time, where the same would do something else.
        does: it changes something: the second answer has the same fields and lengths, and other values.
        stream: records: a line of JSON each, a document of YAML each.
        codes: the exit codes that are right.
    """

    words: str = ""
    again: str | None = None
    does: bool = False
    stream: bool = False
    codes: tuple[int, ...] = (0,)


CASES: dict[str, Case] = {
    "init": Case("starter-FORM"),
    "up": Case("--only broker --data-dir spare-FORM", does=True),
    "down": Case("--data-dir spare-FORM"),
    "status": Case(),
    "doctor": Case(codes=(0, 1)),
    "topology validate": Case("walk.yaml"),
    "topology plan": Case("walk-1.yaml"),
    "topology explain": Case("walk.yaml"),
    "topology schema": Case(),
    "topology run": Case("qa.yaml --until-idle", does=True),
    "topology eval": Case("qa.yaml --dataset golden.jsonl"),
    "topology export": Case("walk.yaml --format k8s"),
    "topology deploy": Case("gone-FORM.yaml --wait"),
    "topology list": Case(),
    "topology status": Case("walk"),
    "topology describe": Case("walk"),
    "topology history": Case("walk"),
    "topology rollback": Case("walk --to 1", again="walk --to 2", does=True),
    "topology scale": Case("walk count=1", does=True),
    "topology pause": Case("walk", does=True),
    "topology resume": Case("walk", does=True),
    "topology restart": Case("walk check", does=True),
    "topology drain": Case("gone-FORM"),
    "topology wait": Case("walk"),
    "topology logs": Case("walk", stream=True),
    "topology delete": Case("gone-FORM --purge --yes"),
    "bench run": Case("qa.yaml --input records.jsonl --save FORM.json", does=True),
    "bench compare": Case("json.json yaml.json", codes=(0, 1)),
    "worker list": Case(),
    "worker describe": Case("WORKER"),
    "worker drain": Case("WORKER", again="WORKER --undo", does=True),
    "operators list": Case(),
    "operators describe": Case("dense_retriever"),
    "connectors list": Case(),
    "connectors describe": Case("file"),
    "topics list": Case(),
    "topics describe": Case("walk-out"),
    "topics create": Case("made-FORM -p 2"),
    "topics tail": Case("walk-out --from-beginning", stream=True),
    "topics produce": Case("made-FORM one two --partition 0"),
    "groups list": Case(),
    "groups describe": Case("walk.count"),
    "groups reset": Case("qa.answer --to earliest"),
    "dlq list": Case("walk"),
    "dlq show": Case("walk"),
    "dlq replay": Case("walk --dry-run"),
    "dlq purge": Case("walk --yes", does=True),
    "state show": Case("walk count ann"),
    "memory create": Case("made-FORM"),
    "memory list": Case(),
    "memory describe": Case("made-json"),
    "memory ingest": Case("read-FORM leave.md"),
    "memory search": Case("read-json leave"),
    "memory export": Case("read-json", stream=True),
    "memory delete": Case("made-FORM --yes"),
    "models list": Case(),
    "models pull": Case(),
    "config get-contexts": Case(),
    "config current-context": Case(),
    "config use-context": Case("main"),
    "config set-context": Case("made-FORM -b localhost:9092 --secret sasl.password=env:PASSWORD"),
    "config delete-context": Case("made-FORM --yes"),
    "config view": Case(),
    "version": Case(),
}

NOT_DATA: dict[str, str] = {
    "demo": "types other commands into a folder of its own; test_demo and test_demo_crash read its JSON",
    "dev": "runs a topology until Ctrl-C; what is printed is its terminal sink's",
    "worker run": "runs until SIGTERM and prints nothing; what it does is in topology status and logs",
    "models serve": "serves until Ctrl-C and prints nothing",
    "completion": "prints a script for a shell",
}

WRONG: tuple[tuple[str, int], ...] = (
    ("init .", 1),
    ("up --only brokers", 2),
    ("dev nope.yaml", 4),
    ("doctor --role worker", 2),
    ("topology validate wrong.yaml", 3),
    ("topology plan nope.yaml", 4),
    ("topology explain wrong.yaml", 3),
    ("topology run nope.yaml", 4),
    ("topology eval nope.yaml --dataset golden.jsonl", 4),
    ("topology eval qa.yaml --dataset nope.jsonl", 4),
    ("topology export wrong.yaml", 3),
    ("topology deploy wrong.yaml", 3),
    ("topology deploy walk.yaml --wait --timeout soon", 2),
    ("topology status nope", 4),
    ("topology describe walk --version 9", 4),
    ("topology history nope", 4),
    ("topology rollback walk --to 9", 4),
    ("topology scale walk nope=1", 3),
    ("topology pause nope", 4),
    ("topology resume nope", 4),
    ("topology restart walk nope", 3),
    ("topology restart stuck --wait --timeout 1ms", 5),
    ("topology wait stuck --timeout 1ms", 5),
    ("topology drain nope", 4),
    ("topology wait nope", 4),
    ("topology logs walk --since soon", 2),
    ("topology delete nope --yes", 4),
    ("topology delete walk", 2),
    ("bench run nope.yaml", 4),
    ("bench compare nope.json nope.json", 4),
    ("worker run --label nope", 2),
    ("worker describe nope", 4),
    ("worker drain nope", 4),
    ("operators describe nope", 3),
    ("connectors describe nope", 3),
    ("topics describe nope", 4),
    ("topics create no/pe", 3),
    ("topics tail nope", 4),
    ("topics produce nope x", 4),
    ("groups describe nope", 4),
    ("groups reset nope --to earliest", 4),
    ("groups reset walk.check --to earliest --execute --yes", 1),
    ("dlq list nope", 4),
    ("dlq show walk 9:9", 4),
    ("dlq replay nope", 4),
    ("dlq purge nope --yes", 4),
    ("state show walk check ann", 4),
    ("state show walk count nobody", 4),
    ("memory create walked", 1),
    ("memory describe nope", 4),
    ("memory ingest walked nope", 4),
    ("memory search nope leave", 4),
    ("memory export nope", 4),
    ("memory delete nope --yes", 4),
    ("memory delete walked", 2),
    ("models pull nope", 3),
    ("models serve nope", 3),
    ("config use-context nope", 4),
    ("config set-context nope", 2),
    ("config delete-context nope --yes", 4),
    ("completion tcsh", 2),
    ("topics list --kafka-config .", 4),
    ("topics list --kafka-config walk_steps.py", 3),
    ("topology export walk.yaml --to .", 1),
    ("topology export walk.yaml --to nowhere/x", 1),
    ("topology export walk.yaml --format k8s --replicas -1", 2),
    ("topology export walk.yaml --format keda --brokers=", 2),
    (f"topology scale walk count={'9' * 22}", 2),
    ("topology scale walk count=99999999999", 2),
    ("topics create x1 -p 99999999999", 2),
    ("topics create x1 --replication-factor 99999", 2),
    (f"topics produce walk-in x --partition {'9' * 14}", 2),
    ("topics tail walk-in --partition -1", 2),
    ("dlq list walk -n 0", 2),
    ("dlq replay walk --rate nan", 2),
    ("dlq replay walk --rate inf", 2),
    ("topology status walk --watch --interval 0", 2),
    (f"topology status walk --watch --interval {'9' * 14}d", 2),
    (f"topology wait walk --timeout {'9' * 14}d", 2),
    (f"groups reset walk.count --to {'9' * 23}d", 2),
    ("topology logs nope", 4),
    ("topology logs nope --follow", 4),
    ("topology logs walk --step nope", 4),
    ("topology logs walk --worker nope", 4),
    ("worker run --drain-timeout soon", 2),
    ("bench run qa.yaml --rate inf", 2),
    (f"down --data-dir {'a' * 300}", 1),
    ("chat walk", 2),
)
"""What goes wrong, and the exit code that is documented for it."""

VOLATILE = {"age", "cpu", "eta", "found", "memory", "rate", "seconds", "up_seconds"}
"""Fields that are ages, loads, or found by a doctor: they differ between two looks."""
