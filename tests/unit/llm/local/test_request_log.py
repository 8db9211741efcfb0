"""The model server's log, made of the engine's."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sage.llm.local.request_log import RequestLog, calls_in, count_calls

ENGINE = """\
0.00.372.547 I srv          init: listening on http://127.0.0.1:42987
0.00.378.088 I slot launch_slot_: id  1 | task 0 | processing task, is_child = 0
0.00.378.100 I slot   operator(): id  1 | task 0 | cached n_tokens = 0, memory_seq_rm [0, end)
0.01.400.000 I slot launch_slot_: id  0 | task 9 | processing task, is_child = 0
0.01.879.685 I slot print_timing: id  1 | task 0 | prompt eval time =    1009.75 ms /   284 tokens
0.01.879.703 I slot print_timing: id  1 | task 0 |        eval time =     491.80 ms /    24 tokens
0.01.879.704 I slot print_timing: id  1 | task 0 |       total time =    1501.55 ms /   308 tokens
0.01.879.762 I slot      release: id  1 | task 0 | stop processing: n_tokens = 307, truncated = 0
0.02.000.000 I slot      release: id  0 | task 9 | stop processing: n_tokens = 20, truncated = 0
0.02.100.000 W srv          init: something odd
terminate called without an active exception
"""


def translated() -> list[str]:
    lines: list[str] = []
    log = RequestLog(lines.append, now=lambda: datetime(2026, 11, 23, 3, 10))
    for line in ENGINE.splitlines():
        log.feed(line)
    return lines


def test_a_call_is_two_lines_and_a_canceled_one_says_so() -> None:
    assert [line.partition(" ")[2] for line in translated()] == [
        "call 1 started",
        "call 2 started",
        "call 1 ended tokens_read=284 tokens_out=24 ms=1502",
        "call 2 ended early",
        "engine W: srv          init: something odd",
        "terminate called without an active exception",
    ]
    assert translated()[0].startswith("2026-11-23T03:10:00.000 ")


def test_calls_are_counted_from_the_log(tmp_path: Path) -> None:
    assert count_calls(translated()) == 2
    file = tmp_path / "model.log"
    assert calls_in(file) == 0
    file.write_text("\n".join(translated()))
    assert calls_in(file) == 2
