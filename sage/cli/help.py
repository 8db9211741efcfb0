"""The help of ``sage`` and of its groups, printed from the table of verbs without importing any of them."""

from __future__ import annotations

from sage.cli.verbs import GROUPS, SECTIONS, Verb, in_group

GLOBAL_OPTIONS = (
    ("-o, --output FORMAT", "table, wide, json or yaml"),
    ("-q, --quiet", "no progress, only data and errors"),
    ("--no-input", "never ask"),
    ("--debug", "show the traceback of an error"),
    ("-h, --help", "this help, or that of a command"),
)


def root_help() -> str:
    """What ``sage --help`` prints."""
    lines = ["Usage: sage COMMAND [OPTIONS]", "", "Question-answering, RAG and agent pipelines over Kafka topics."]
    for section in SECTIONS:
        rows = _rows(section.verbs)
        lines += ["", f"{section.title}:", *_aligned(rows)]
    lines += ["", "Options of every command:", *_aligned(GLOBAL_OPTIONS)]
    lines += ["", "`sage COMMAND --help` shows a command's options. New here? Type `sage demo`."]
    return "\n".join(lines)


def group_help(group: str) -> str:
    """What ``sage topology --help`` prints."""
    lines = [f"Usage: sage {group} COMMAND [OPTIONS]", "", f"{GROUPS[group]}.", ""]
    lines += _aligned([(verb.path[1], verb.summary) for verb in in_group(group)])
    lines += ["", f"`sage {group} COMMAND --help` shows a command's options."]
    return "\n".join(lines)


def _rows(verbs: tuple[Verb, ...]) -> list[tuple[str, str]]:
    # A group is one line, so that the page fits a screen: its verbs, then what it is for.
    rows: dict[str, str] = {}
    for verb in verbs:
        group = verb.path[0]
        if len(verb.path) == 1:
            rows[group] = verb.summary
        else:
            rows[group] = f"{GROUPS[group]}: {', '.join(one.path[1] for one in in_group(group))}"
    return list(rows.items())


def _aligned(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]
