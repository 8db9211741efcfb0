"""The journal of external calls: a result is kept before it is used, so that a replay does not buy it twice.

Who calls what of ``Journal``, all of it on the event loop:

=====================  ==========================================================================================
``open``               once, before the first record
``assigned``           for the partitions that the actor is given, before their records are taken on
``lost``               when these went: revoked, lost, or read anew from what is committed
``calls``              at each try of a record; what it gives is attached to the context, and ended after the try
``finished``           when a record's outcome is known: its outputs, its letter, or that it is skipped. Not when it
                       is parked: its results are needed at its next try
``low_mark``           before each commit; what it gives goes beside the offsets (``CommitText.journal``), so that a
                       successor reads from there, and what lies before it may be trimmed. It never lies above what
                       an uncommitted record needs
``committed``          after each commit, per partition of the inputs and of the retry topic
``close``              at the end
=====================  ==========================================================================================

A try that is cancelled or times out leaves its results behind: they are in memory from the moment that the call gave
them, and are written by a task of their own until the broker has them. So the next try finds them, and waits for the
broker in place of calling again. While a try waits for the broker its time-out stands still (``TryTime``).

Partition ``n`` of the journal serves partition ``n`` of every input and of the retry topic. They come and go together,
so that the latest low mark said beside any of them counts for all (``marks``); where they do not, each speaks for
itself, and what is known stays until the last of them is gone.

What a successor reads it filters by the place of the record that each result was made for: only records that are not
committed, or that wait in the retry topic, may come again. So the low mark moves on after a crash as well.

The limit: a crash before the broker has a result repeats the call. ``ctx.idempotency_key`` is the same then.
"""

from sage.runtime.journal.calls import TryTime
from sage.runtime.journal.entry import place_of
from sage.runtime.journal.journal import Journal

__all__ = ["Journal", "TryTime", "place_of"]
