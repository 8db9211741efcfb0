"""From where on a partition of a journal is needed, by what was said beside the offsets of all that share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sage.model.partition import TopicPartition
from sage.plan.plan import Stage
from sage.ports import Commit
from sage.runtime.actors.commit_text import CommitText


def sharing(stage: Stage, widths: Mapping[str, int], number: int) -> list[TopicPartition]:
    """The partitions whose calls go into partition ``number`` of the stage's journal: of its inputs, and its retries.

    Args:
        widths: how many partitions each topic has.
    """
    topics = [*(each.topic for each in stage.inputs), *([stage.retry_topic] if stage.retry_topic else [])]
    return [TopicPartition(topic, number) for topic in topics if number < widths.get(topic, 0)]


def needed_from(commits: Iterable[Commit]) -> int:
    """The lowest offset that a record which is not committed may need; 0 where nobody has said enough.

    One partition may be idle for a week while another goes on: its mark is old, and would hold up trimming and have
    every successor read a week's journal. So the latest word that was given for all of them counts. Where each
    speaks for itself, and one has said nothing, all of the journal may be needed.
    """
    marks = [CommitText.decode(commit.metadata).journal for commit in commits]
    whole = max((mark.offset for mark in marks if mark is not None and mark.whole), default=0)
    least = min((0 if mark is None else mark.offset for mark in marks), default=0)
    return max(whole, least)
