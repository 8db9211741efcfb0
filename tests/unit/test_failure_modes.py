"""Failure modes that other systems of this kind have had, and the tests that hold SAGE to not having them."""

from __future__ import annotations

import pytest

from tests.unit.test_invariants import all_tests, asserts

HELD_BY: dict[str, tuple[str, ...]] = {
    "commits run past work in flight": (
        "test_the_end_is_reached_in_whatever_order_records_finish",
        "test_a_slow_head_stops_its_own_key_only_and_holds_the_commit",
        "test_two_processes_share_the_partitions_and_a_kill_in_mid_run_loses_nothing",
    ),
    "a duplicate in the list of acknowledgements freezes commits": ("test_a_record_done_twice_counts_once",),
    "a silent stall after a rebalance": (
        "test_a_late_result_of_a_dead_assignment_moves_nothing",
        "test_a_rewind_of_an_assignment_that_is_gone_does_not_move_the_next_one",
        "test_whatever_a_group_goes_through_nothing_is_lost_and_the_lag_goes_to_nothing",
        "test_steps_that_never_return_are_named_with_their_partitions_and_the_process_still_ends_with_1",
    ),
    "a cooperative revoke drops work in hand": (
        "test_a_revoke_commits_the_finished_prefix_and_the_new_owner_takes_the_rest",
        "test_retained_partitions_give_output_during_a_rebalance_and_none_of_their_work_is_begun_again",
    ),
    "what finished out of order outgrows its store, and consumption stops": (
        "test_the_window_is_bounded_in_records_and_reopens_at_half",
        "test_the_window_is_bounded_in_bytes",
        "test_outputs_that_wait_to_leave_fill_the_window_too",
    ),
    "a revoke takes longer than the group waits for a poll": (
        "test_a_revoke_waits_no_longer_than_a_quarter_of_the_time_between_two_polls",
    ),
    "a lock on the state of a partition that went": (
        "test_a_partition_that_goes_leaves_no_lock_on_its_database_and_its_state_is_there_when_it_comes_back",
    ),
    "exactly-once: sends outside of the transaction": (
        "test_nothing_of_an_exactly_once_stage_is_sent_outside_its_transaction",
    ),
    "exactly-once: a fenced producer crashes, or doubles at a rebalance": (
        "test_a_transaction_that_fails_is_made_again_and_nothing_is_doubled",
        "test_a_member_that_was_expelled_commits_nothing_and_the_next_owner_does_it_once",
    ),
    "exactly-once: transactional ids collide": (
        "test_no_two_actors_share_a_transactional_id_whatever_they_host",
    ),
    "exactly-once: a model's latency becomes a transaction's time-out": (
        "test_a_transaction_is_opened_when_the_results_exist_and_not_while_a_call_is_under_way",
        "test_a_record_that_outlasts_its_transaction_is_run_again_once_and_all_come_out_once",
    ),
    "a batch barrier: one slow call delays all": (
        "test_a_slow_head_stops_its_own_key_only_and_holds_the_commit",
    ),
    "a telemetry package that is missing breaks the worker": (
        "test_a_missing_exporter_is_one_warning",
        "test_telemetry_that_fails_stops_no_record",
    ),
    "retries without end": (
        "test_tries_are_bounded_and_their_number_is_in_the_letter",
        "test_a_record_whose_tries_are_used_up_dies_with_their_number",
    ),
    "retries block the head of the line": (
        "test_a_record_waits_for_its_next_try_inside_its_lane_while_others_go_on",
        "test_records_of_other_keys_do_not_wait_for_one_that_is_tried_again",
    ),
    "at most once by default": (
        "test_a_crash_between_output_and_commit_gives_the_output_again",
        "test_a_crash_replays_what_was_not_committed_with_the_same_ids",
    ),
    "an await, a thread hop, a second decoding, a task, a copy per record": (
        "test_a_chain_decodes_and_encodes_a_record_once_and_makes_no_task_copy_or_hop_for_it",
        "test_a_keyed_step_decodes_a_record_once_and_makes_no_task_copy_or_hop_for_it",
    ),
    "state lost by the sweep of a time to live": (
        "test_a_record_that_is_at_work_while_its_key_is_swept_has_the_last_word",
        "test_a_change_made_upon_a_sweep_does_not_wait_for_it",
    ),
    "memory that leaks": ("test_a_stage_holds_no_more_after_many_records_than_after_few",),
    "keys that move between processes, since their hash is salted": (
        "test_a_key_goes_to_the_partition_of_kafkas_default_partitioner",
    ),
    "keys like 0 or an empty text that go anywhere": (
        "test_null_keys_null_values_and_falsy_keys_travel_as_they_are",
    ),
    "operators that catch an exception, log it and drop the record": (
        "test_only_the_bad_record_dies_and_the_rest_goes_on",
        "test_only_the_bad_record_dies_and_keeps_its_place_in_the_order",
        "test_whatever_is_refused_every_record_ends_as_an_output_or_a_letter",
    ),
    "a restart that does not restart": ("test_a_topology_that_fails_starts_again_and_touches_no_other",),
    "a queue that drops a record and says that it was sent": (
        "test_a_full_producer_queue_is_waited_for_and_nothing_is_lost",
        "test_a_full_queue_is_told_and_room_comes_from_polling",
    ),
    "unpickling what anybody may send": (
        "test_a_pickle_on_a_topic_of_json_is_a_dead_letter_and_is_not_executed",
        "test_a_pickle_on_a_topic_of_bytes_is_bytes_and_is_not_executed",
        "test_nothing_in_sage_makes_code_of_data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("failure", HELD_BY)
def test_the_tests_that_hold_a_failure_mode_are_there_and_can_fail(failure: str) -> None:
    found = all_tests()
    for name in HELD_BY[failure]:
        assert name in found, f"{failure}: there is no {name}"
        assert all(asserts(function, home) for function, home in found[name]), f"{name} asserts nothing"
