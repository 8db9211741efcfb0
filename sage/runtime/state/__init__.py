"""Keyed state: what a ``process`` step knows of each key, and how it survives.

The changelog topic is the truth: one record for each changed key and checkpoint, in the partition whose number is the
input's. The store (``sage.state``) is a copy of it on this machine, the overlay of a ``PartitionTable`` is what is not
committed yet. A record's changes are a write-set: made by a ``KeyedWork``, seen by the next record of its key at once,
and part of a checkpoint only when all that it builds upon is.

``StageState`` is what a stage talks to. What is called when, and where (C: the consumer's thread, W: where the step
runs, which is the loop or the same thread):

========================  ===  =========================================================================================
``assigned``               C   after the committed offsets were read and the predecessor's transaction is decided. Opens
                               the copies and holds the partitions: nothing of them is fetched before they are restored.
``restore``                C   in every turn. One batch of changelog; complete partitions are released. ``progress`` and
                               ``standing_by`` are for the status, from any thread.
``begin``, ``begin_timer`` W   before the step's code. A record without a key is refused there. A work that is dropped
                               (a failure, a retry) changes nothing. Not for a timer that ``is_set`` no longer: a record
                               before it moved or cancelled it; it is ``timer_done`` without a call.
``finish``                 W   when the step has returned and everything else that can fail for this record has not:
                               the next record of the key may begin. Raises what makes the record a dead letter.
``claim``                  W   of what ``finish`` gave, while the finished prefix is collected in the order of offsets:
                               false ends the prefix there. Partitions are gone over until nothing more is claimed.
                               Needless where all that has run is committed together, as on the synchronous path.
``prepare``                C   what was claimed is in the next checkpoint.
``sweep``, ``due``         C   in every turn; expired keys are prepared at once, timers are run like records.
``write_changes``          C   into the transaction, or before the flush. Then, once what was written is safe:
``keep_changes``           C   exactly-once: after the commit. At-least-once: after the acknowledgements, before the
                               offsets are committed. The copies are written, each in one batch with its offset.
``forget_changes``         C   the checkpoint was thrown away and the same write-sets will be prepared again.
``drop_changes``           C   it was thrown away and its records are read again; unfinished timers are due again.
``lost``, ``close``        C   the copies are closed; a work that ends later has no effect, nor has a late answer.
========================  ===  =========================================================================================

``check_size`` (``Outbox.check_size``) is set once, before the first record, so that a state over the limit costs its
record and not the stage.

Entries are encoded when the step has returned, not when the checkpoint is made. It costs a microsecond a record, and
in exchange an object that the step keeps and changes later, or fails with half-way, is never seen by anybody.
"""
