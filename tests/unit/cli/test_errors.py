"""What goes wrong is one line on standard error and an exit code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sage import errors
from sage.cli.commands import about
from tests.unit.cli.conftest import Sage

TABLE: list[tuple[BaseException, int, str]] = [
    (errors.InvalidTopology("topq: unknown option; did you mean top_k?", where="rag.yaml:9:86"), 3, "SAGE101"),
    (errors.UnknownName("unknown operator"), 3, "SAGE102"),
    (errors.NotInThisVersion("not yet"), 3, "SAGE110"),
    (errors.MissingVariable("OPENAI_API_KEY is not set"), 3, "SAGE301"),
    (errors.Unreachable("cannot reach localhost:9092"), 4, "SAGE201"),
    (errors.Unauthorized("refused"), 4, "SAGE202"),
    (errors.Forbidden("refused"), 4, "SAGE204"),
    (errors.NotFound("no file x"), 4, "SAGE203"),
    (errors.PortTaken("port 1 is in use"), 1, "SAGE211"),
    (errors.FolderInUse("held"), 1, "SAGE212"),
    (errors.DiskFull("no space"), 1, "SAGE213"),
    (errors.ServiceFailed("the broker did not start", log_tail=("bad config",)), 1, "SAGE214"),
    (errors.DeadlineExceeded("too long"), 5, "SAGE220"),
    (errors.MemoryFailure("no"), 1, "SAGE601"),
    (errors.RecordFailure("3 of 100 records dead"), 1, "SAGE501"),
    (errors.StageStopped("stopped"), 1, "SAGE520"),
]


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``sage version`` raise ``error``."""

    def version() -> None:
        """Fail."""
        raise error

    monkeypatch.setattr(about, "version", version)


@pytest.mark.parametrize(("error", "code", "mark"), TABLE, ids=[mark for _, _, mark in TABLE])
def test_each_error_has_its_exit_code_and_no_traceback(
    sage: Sage, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, mark: str
) -> None:
    raising(monkeypatch, error)
    outcome = sage("version")
    assert outcome.code == code
    assert outcome.out == ""
    assert outcome.err.splitlines()[-1] == str(error)
    assert outcome.err.rstrip().endswith(f"[{mark}]")
    assert "Traceback" not in outcome.err


def test_a_service_that_failed_shows_its_last_lines(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, errors.ServiceFailed("the broker did not start", log_tail=("one", "two")))
    assert sage("version").err.splitlines()[:2] == ["  | one", "  | two"]


def test_what_nobody_expected_is_one_line_and_debug_shows_where(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("division by zero\nand more"))
    outcome = sage("version")
    assert outcome.code == 1
    assert outcome.err == "sage: unexpected ZeroDivisionError: division by zero; run again with --debug to see where\n"
    assert "Traceback" in sage("version", "--debug").err


def test_ctrl_c_is_130(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    outcome = sage("version")
    assert outcome.code == 128 + signal.SIGINT
    assert outcome.err == "interrupted\n"


def test_a_reader_that_has_enough_is_no_error() -> None:
    # More than a pipe holds, so that the program is still writing when its reader goes away.
    program = "from sage.cli.commands import about; about.__version__ = 'v' * 10**6\n"
    program += "import sys; from sage.cli.main import main; sys.exit(main(['version']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(6) == "sage v"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("versoin",), "'versoin' is not a command, did you mean 'version'?; see `sage --help`"),
        (("xyzzy",), "'xyzzy' is not a command; see `sage --help`"),
        (("topology", "rum"), "topology 'rum' is not a command, did you mean 'run'?; see `sage topology --help`"),
        (("--verbose",), "'--verbose' is not a command"),
        (("upp",), "'upp' is not a command, did you mean 'up'?"),
        (("groupz",), "'groupz' is not a command, did you mean 'groups'?; see `sage --help`"),
        (("init",), "for example `sage init handbook`; see `sage init --help`"),
        (("version", "--colour"), "version: Unknown option: --colour"),
        (("version", "extra"), "version: Unused Tokens"),
        (("completion", "tcsh"), 'Invalid value "tcsh" for SHELL'),
        (("completion",), "completion: "),
        (("topics", "create", "t", "--partitions", "many"), "many"),
        (("topics", "create", "t", "--partitions", "0"), "1 or more"),
        (("topics", "tail"), "topics tail:"),
        (("topics", "describe", ""), "topics describe: TOPIC is a name, and not empty"),
        (("topics", "create", " "), "topics create: TOPIC is a name, and not empty"),
        (("topics", "produce", "", "x"), "topics produce: TOPIC is a name, and not empty"),
        (("topology", "run"), "topology run:"),
        (("topology", "run", "x.yaml", "--timeout", "5"), "--timeout goes with --until-idle"),
        (("topology", "run", "x.yaml", "--until-idle", "--timeout", "soon"), "'soon' is not a duration"),
        (("memory", "ingest", "handbook"), "memory ingest:"),
        (("memory", "search", "handbook", "q", "--top-k", "0"), "1 or more"),
        (("topics", "create", "t", "-p", "99999999999"), "-p is 100000 or less; found 99999999999"),
        (("topics", "create", "t", "--replication-factor", "99999"), "--replication-factor is 10000 or less"),
        (("topics", "produce", "t", "x", "--partition", "9" * 14), "--partition is 2147483647 or less"),
        (("topics", "tail", "t", "--partition", "-1"), "--partition is 0 or more; found -1"),
        (("topology", "scale", "t", "step=" + "9" * 22), "N is 2147483647 or less"),
        (("topology", "scale", "t", "step=" + "9" * 5000), "N is 2147483647 or less"),
        (("topology", "rollback", "t", "--to", "0"), "--to is 1 or more"),
        (("topology", "status", "t", "--interval", "0"), "--interval is 0.1s or more; found 0"),
        (("topology", "status", "t", "--interval", "9" * 14 + "d"), "is too long a duration"),
        (("dlq", "list", "t", "-n", "0"), "-n is 1 or more; found 0"),
        (("dlq", "replay", "t", "--rate", "nan"), "--rate is 0.01 or more; found nan"),
        (("dlq", "replay", "t", "--rate", "inf"), "--rate is 2147483647 or less; found inf"),
        (("groups", "reset", "g", "--to", "9" * 23 + "d"), "is no place"),
        (("worker", "run", "--drain-timeout", "xx"), "worker run: --drain-timeout: 'xx' is not a duration"),
        (("up", "--timeout", "nan"), "--timeout is 0 or more; found nan"),
        (("models", "serve", "--port", "70000"), "--port is 65535 or less; found 70000"),
        (("up", "--only", "brokr"), "--only takes broker, memory, model; found 'brokr'"),
        (("topics", "list", "-o", "xml"), "-o takes one of table, wide, json, yaml; found 'xml'"),
    ],
)
def test_what_cannot_be_understood_is_2_and_says_where_to_look(sage: Sage, words: tuple[str, ...], says: str) -> None:
    outcome = sage(*words)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (lambda path: path.mkdir(), 4, "is a folder; --kafka-config wants a file of librdkafka properties"),
        (lambda path: path.write_bytes(b"a=\xff\n"), 3, "not UTF-8: invalid start byte at byte 2 [SAGE101]"),
        (lambda path: path.write_text("a\n"), 3, "not a property; write name=value [SAGE101]"),
        (lambda path: None, 4, "no such file; --kafka-config wants a file of librdkafka properties"),
    ],
)
def test_a_file_of_properties_that_is_none_is_named(
    sage: Sage, tmp_path: Path, make: Callable[[Path], None], code: int, says: str
) -> None:
    make(tmp_path / "kafka.properties")
    outcome = sage("topics", "list", "--kafka-config", "kafka.properties")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("kafka.properties:")
    assert says in outcome.err


def test_a_path_that_the_system_refuses_is_named_wherever_it_is_met(sage: Sage) -> None:
    outcome = sage("down", "--data-dir", "a" * 300)
    assert outcome.code == 1
    assert outcome.err.endswith(": File name too long; --debug shows where [SAGE100]\n")


def test_the_codes_of_this_table_are_those_of_the_error_tree() -> None:
    documented = dict(re.findall(r"\[(SAGE\d+)\](?: exit (\d))?", errors.__doc__ or ""))
    for error, code, mark in TABLE:
        assert mark in documented, mark
        if documented[mark]:
            assert int(documented[mark]) == code, error
