"""From where on a journal is needed, by what was said beside the offsets of all that share it."""

from __future__ import annotations

import pytest

from sage.model.partition import TopicPartition
from sage.ports import Commit
from sage.runtime.actors.commit_text import CommitText, JournalMark
from sage.runtime.journal.marks import needed_from, sharing
from tests.unit.runtime.bench import Bench


def said(offset: int | None, *, whole: bool = True) -> Commit:
    """A commit that says this of the journal; ``None``: nothing."""
    return Commit(7, CommitText("owner", None if offset is None else JournalMark(offset, whole)).encode())


NEVER = Commit(None, "")


@pytest.mark.parametrize(
    ("commits", "needed"),
    [
        ([], 0),
        ([NEVER], 0),
        ([said(500)], 500),
        ([said(500), NEVER], 500),
        ([said(500), said(None)], 500),  # exactly-once puts a name beside the retry topic's first offset, and no mark
        ([said(10), said(500)], 500),  # one is idle since long: the latest word was for both
        ([said(10, whole=False), said(500, whole=False)], 10),  # two owners, each for its own
        ([said(10, whole=False), NEVER], 0),
        ([said(10, whole=False), said(500)], 500),
        ([said(700, whole=False), said(500)], 500),  # the later word was for the first one alone
        ([said(700, whole=False), said(500), NEVER], 500),
        ([Commit(7, "reset by hand")], 0),
    ],
)
def test_the_latest_word_for_all_counts_else_the_lowest(commits: list[Commit], needed: int) -> None:
    assert needed_from(commits) == needed


def test_partitions_of_one_number_share_a_partition_of_the_journal() -> None:
    bench = Bench(lambda s: s.map(_step, name="work"), partitions=2)
    widths = {"in": 2, "t.work.retry": 2}
    assert sharing(bench.setting.stage, widths, 1) == [TopicPartition("in", 1), TopicPartition("t.work.retry", 1)]
    assert sharing(bench.setting.stage, {**widths, "in": 1}, 1) == [TopicPartition("t.work.retry", 1)]


async def _step(value: int) -> int:
    return value
