"""What a source says when it has given all, while its position is being kept."""

from __future__ import annotations

import asyncio

import pytest

from sage.runtime.sources.positions import SourcePosition
from sage.runtime.sources.source_output import PlainOutput
from tests.unit.runtime.sources.test_source_task import Desk, Script


def test_a_position_that_falls_due_while_all_is_said_to_be_read_takes_nothing_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save = PlainOutput.save

    async def slowly(output: PlainOutput, position: SourcePosition) -> None:
        await asyncio.sleep(1.5 if position.exhausted else 0)
        await save(output, position)

    monkeypatch.setattr(PlainOutput, "save", slowly)
    desk = Desk("a", "b")
    Script.pace = 0.3
    desk.begin()
    desk.order()
    desk.run(2.5)
    desk.stop()
    desk.run(2)
    words = [SourcePosition.decode(each.value() or b"") for each in desk.clients.messages("t.offsets", 0)]
    assert [word.exhausted for word in words] == [False, True, True]  # the epoch, all, and all again at the end
    assert (desk.values, caplog.messages) == (["a", "b"], [])
