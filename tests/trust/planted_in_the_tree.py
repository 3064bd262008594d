"""Bugs in the package `metatree`: see `planting`."""

from __future__ import annotations

from tests.trust.planting import Planted

REPLAY = "tests/tree/test_replay_cases.py::"
ISOLATION = "tests/tree/test_isolation.py::"
READERS = "tests/tree/test_readers.py::"
CRASHES = "tests/tree/test_crash_points.py::"
OVERTAKEN = "tests/tree/test_overtaken.py::"
FLUSHES = "tests/tree/test_order_of_flushes.py::"

IN_THE_TREE = (
    # --- commit -------------------------------------------------------------------------------------------------------
    Planted(
        "a change is applied before it is appended",
        "I2",
        "metatree/commit.py",
        "            return encode(header, facts)\n",
        "            from .apply import apply\n\n"
        "            apply(self._committer._storage, fold(facts), 0, self._reader.head + 1)\n"
        "            return encode(header, facts)\n",
        (f"{CRASHES}test_a_crash_at_any_call_leaves_the_state_before_or_after[transaction of 20-checkpointed]",),
        first=True,
    ),
    Planted(
        "what a transaction has read is not validated",
        "I4",
        "metatree/commit.py",
        "        for _, header in self._reader.since(base):\n            found = draft.reads",
        "        for _, header in ():\n            found = draft.reads",
        (f"{ISOLATION}test_lost_update_of_a_counter_is_refused[sync-memory]",),
        first=True,
    ),
    Planted(
        "what a transaction has read is not validated against its batch mates",
        "I4",
        "metatree/commit.py",
        "                    self._check_mates(draft, mates)",
        "                    pass",
        (f"{ISOLATION}test_write_skew_through_a_batch_mate_is_refused[sync-memory-0]",),
    ),
    Planted(
        "a key that a location goes through is not in the read set",
        "I4",
        "metatree/reads.py",
        "        self._keys.setdefault(path, set()).add(key)",
        "        pass",
        (f"{ISOLATION}test_write_skew_through_a_reference_is_refused[sync-memory]",),
    ),
    Planted(
        "a used idempotency key commits again",
        "I2",
        "metatree/commit.py",
        "if key is not None and self._used(key, mates, replay):",
        "if key is not None and self._used(key, mates, []):",
        (
            "tests/tree/test_transactions.py::"
            "test_a_used_idempotency_key_commits_nothing_and_tells_the_first_lsn[sync-memory-nothing]",
        ),
    ),
    Planted(
        "a small node is logged by its changed keys",
        "I3",
        "metatree/derive.py",
        "        if weight > SMALL:\n            self._changed",
        "        if weight >= 0:\n            self._changed",
        tuple(
            f"{REPLAY}test_files_lost_in_a_power_cut_come_back_from_the_log[{name}]"
            for name in ("put into a new version", "update", "unset")
        ),
        first=True,
    ),
    Planted(
        "staged files are not made sure before the record that names them",
        "I1",
        "metatree/commit.py",
        "            staging.seal()\n",
        "",
        (f"{FLUSHES}test_what_a_record_names_is_durable_with_its_folder_before_the_record_is_written",),
    ),
    # --- apply --------------------------------------------------------------------------------------------------------
    Planted(
        "a metadata.json that only the log's changes know is replaced without a flush",
        "I3",
        "metatree/apply.py",
        "durable=not effect.whole)",
        "durable=False)",
        (f"{FLUSHES}test_a_metadata_json_that_no_record_holds_whole_is_flushed_before_it_takes_its_name",),
        first=True,
    ),
    Planted(
        "a node is listed before it is there",
        "I2",
        "metatree/apply.py",
        "            gone = [name for name, below in effect.below.items() if below.exists is False]\n",
        "            self._publish_metadata(path, effect)\n"
        "            gone = [name for name, below in effect.below.items() if below.exists is False]\n",
        (f"{REPLAY}test_a_node_is_never_seen_before_it_is_complete_nor_listed_when_it_is_not[put into a new version]",),
    ),
    Planted(
        "a replay puts children in another order",
        "I3",
        "metatree/fold.py",
        "        self.children.pop(name, None)\n        self.children[name] = True",
        "        self.children[name] = True",
        (f"{REPLAY}test_a_child_that_was_dropped_and_made_again_comes_last_over_any_file_of_the_window",),
    ),
    Planted(
        "a failed step still raises the applied mark",
        "I5",
        "metatree/committer.py",
        "            self._failed(outcome)\n            return outcome\n        self.failure = None",
        "            self._failed(outcome)\n        else:\n            self.failure = None",
        ("tests/tree/test_faults.py::test_a_commit_whose_files_cannot_follow_returns_with_a_warning",),
    ),
    Planted(
        "an object that changed under a committer counts as done",
        "I6",
        "metatree/objects.py",
        "                work.outcome.failed[join(wanted.path)] = error\n            except (OSError, CorruptionError)",
        "                work.done.add(wanted.name)\n            except (OSError, CorruptionError)",
        (
            f"{OVERTAKEN}test_a_committer_stopped_at_any_call_and_overtaken_changes_nothing_that_stays"
            "[put-drops and makes it again-False]",
        ),
    ),
    Planted(
        "what a lost tenure did is not looked at again",
        "I6",
        "metatree/objects.py",
        "        self._heal()\n",
        "",
        (
            f"{OVERTAKEN}test_a_committer_stopped_at_any_call_and_overtaken_changes_nothing_that_stays"
            "[put-drops what it makes-True]",
        ),
    ),
    Planted(
        "a pass that plans again does not know what it has put itself",
        "I3",
        "metatree/objects.py",
        "        self._found(work, name, version)\n",
        "",
        (
            "tests/tree/test_bucket_life.py::"
            "test_what_a_pass_has_put_goes_with_its_node_if_that_is_dropped_before_the_pass_plans_again[acknowledged]",
        ),
    ),
    # --- read ---------------------------------------------------------------------------------------------------------
    Planted(
        "a reader looks at the log first, and at the files after",
        "I4",
        "metatree/asking.py",
        "        before, floor = self.window.head, self.window.floor\n        if not self._extend():\n"
        "            return\n",
        "        before, floor = self.window.head, self.window.floor\n        return\n",
        (
            f"{READERS}test_a_commit_between_any_two_reads_of_a_cold_reader_is_seen_whole_or_not_at_all"
            "[read-only-in the log-one commit-list]",
        ),
        first=True,
    ),
    Planted(
        "a mere reader believes the applied mark",
        "I4",
        "metatree/window.py",
        "        if self._trust_applied:\n",
        "        if self._trust_applied is not None:\n",
        (f"{READERS}test_E18_a_mere_reader_does_not_believe_that_what_was_applied_reached_the_disk",),
    ),
    # --- checkpoint, recovery -----------------------------------------------------------------------------------------
    Planted(
        "the redo mark is raised to what is not applied yet",
        "I5",
        "metatree/checkpoint.py",
        "        self._log.trim(window.head)\n",
        "        self._log.trim(self._log.head())\n",
        (f"{REPLAY}test_a_commit_beside_a_running_checkpoint_survives_whatever_the_checkpoint_trims",),
        first=True,
    ),
    Planted(
        "a checkpoint trims without a sync",
        "I5",
        "metatree/checkpoint.py",
        "                self._sync(window)\n",
        "                pass\n",
        (f"{FLUSHES}test_a_checkpoint_syncs_the_files_before_its_mark_and_clears_away_after_it",),
    ),
    Planted(
        "a fault beside a checkpoint's sync is overlooked",
        "I5",
        "metatree/checkpoint.py",
        "        if changed != (window.fault, window.rewrites):",
        "        if changed[1] != window.rewrites:",
        (f"{REPLAY}test_a_fault_beside_a_checkpoints_sync_makes_it_write_and_sync_again",),
    ),
    Planted(
        "a dead committer's half-done pass is vouched for",
        "I5",
        "metatree/committer.py",
        "                if tenure.died:\n                    self._flushing.doubt()\n",
        "",
        (f"{REPLAY}test_whoever_takes_over_from_a_dead_committer_writes_the_window_again",),
    ),
    Planted(
        "staged files go though a replay needs them",
        "I5",
        "metatree/checkpoint.py",
        "for txid, lsn in found.items() if lsn is not None and lsn <= redo]",
        "for txid, lsn in found.items()]",
        (
            "tests/tree/test_rights_and_staging.py::"
            "test_a_running_transactions_staged_blobs_outlive_other_openers_and_their_checkpoints",
        ),
    ),
    Planted(
        "recovery replays without what the log since the redo mark holds",
        "I3",
        "metatree/recovery.py",
        "        effect, records = fold_counted(log, redo, head)\n",
        "        effect, records = fold_counted(log, head, head)\n",
        (f"{REPLAY}test_files_lost_in_a_power_cut_come_back_from_the_log[put into a new version]",),
    ),
    Planted(
        "recovery forgets what a dead process had staged",
        "I7",
        "metatree/recovery.py",
        '            storage.set_aside(layout.staged_folder(txid), layout.quarantine("staged", txid))',
        "            storage.erase(layout.staged_folder(txid))",
        ("tests/tree/test_recover_command.py::test_what_is_set_aside_is_kept_byte_by_byte",),
    ),
)
