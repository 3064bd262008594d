"""Bugs where hosts share the storage, in the log of slots and the right to apply: see `planting`."""

from __future__ import annotations

from tests.trust.planting import Planted

OUTCOMES = "tests/wal/test_log_slots_outcomes.py::"
MOUNTS = "tests/tree/test_mounts.py::"
RIGHT = "tests/wal/test_log_slots_right.py::"
TRIMMING = "tests/wal/test_log_slots_trimming.py::"

BETWEEN_HOSTS = (
    Planted(
        "a refused condition (412) counts as done",
        "I6",
        "wal/storage/s3_write.py",
        '                if failure.reply.code != "NoSuchUpload":\n',
        "                if found is not None and failure.reply.refused:\n                    return found.version\n"
        '                if failure.reply.code != "NoSuchUpload":\n',
        ("tests/wal/test_storage_s3.py::TestMoto::test_a_publish_that_expects_nothing_is_refused_where_something_is",),
        first=True,
    ),
    Planted(
        "a creation whose reply was lost counts as not committed",
        "I1",
        "wal/slot_leader.py",
        "            found, known = self._read_back(slot)\n",
        "            found, known = self._read_back(slot)\n            if failure.errno != errno.EEXIST:\n"
        "                self._doubt = before\n                raise failure\n",
        (f"{OUTCOMES}test_one_lost_reply_is_decided_by_reading_the_slot_back",),
        first=True,
    ),
    Planted(
        "an absent slot counts as not created",
        "I1",
        "wal/slot_leader.py",
        "if not pause and known and failure.errno in _REFUSED:",
        "if not pause and known:",
        (f"{OUTCOMES}test_a_slot_whose_outcome_is_unknown_is_tried_again_with_the_same_bytes",),
    ),
    Planted(
        "answers count though another host appended meanwhile",
        "I4",
        "wal/slot_leader.py",
        "        self._chain.follow()\n        return self._chain.head == end.lsn",
        "        return True",
        ("tests/wal/test_log_slots_validation.py::test_a_refusal_or_nothing_to_do_on_a_stale_head_is_asked_again",),
    ),
    Planted(
        "a slot is built on before its name is durable",
        "I1",
        "wal/slot_chain.py",
        "            self.storage.sync_folder(self.names.folder)\n",
        "            pass\n",
        (
            f"{OUTCOMES}test_a_slot_that_is_there_though_its_folder_could_not_be_flushed_is_flushed_before_it_is_acknowledged",
        ),
    ),
    Planted(
        "a slot that was written again is followed",
        "I7",
        "wal/slot_chain.py",
        "        if slot.previous != link:",
        "        if slot.previous != link and not link:",
        (
            "tests/wal/test_log_slots_format.py::"
            "test_a_slot_of_another_log_and_a_slot_that_was_written_again_are_refused",
        ),
    ),
    Planted(
        "trimming removes slots",
        "I5",
        "wal/slot_log.py",
        "                self._publish(self.names.slot(lsn), slot.encode())",
        "                self.settings.storage.erase(self.names.slot(lsn))",
        (f"{TRIMMING}test_a_writer_that_slept_before_its_creation_finds_its_slot_taken_and_is_asked_again",),
    ),
    Planted(
        "an epoch is used again",
        "I6",
        "wal/lease.py",
        "            epoch, counter = self._occupy(), self._claim.counter",
        "            epoch, counter = 1, self._claim.counter",
        (f"{RIGHT}test_epochs_come_never_again_however_often_the_lease_is_removed",),
        first=True,
    ),
    Planted(
        "a lease is renewed whoever has it",
        "I6",
        "wal/lease.py",
        "durable=True, expect=self._version)",
        "durable=True)",
        (f"{RIGHT}test_a_renewal_that_lands_after_another_took_over_is_refused",),
    ),
    Planted(
        "the successor leaves the folder of the one it overtook",
        "I6",
        "wal/epoch.py",
        "        owners = self._move_away(self._newest)\n",
        "        owners: list[Claim | None] = []\n",
        (f"{RIGHT}test_an_overtaken_holder_of_an_epoch_changes_nothing",),
    ),
    Planted(
        "who takes over does not follow the log then",
        "I6",
        "wal/host_right.py",
        "            self._follow()\n",
        "            pass\n",
        (f"{RIGHT}test_who_failed_to_take_over_from_a_dead_holder_knows_of_it_when_it_tries_again",),
    ),
    Planted(
        "what a mark frees is removed before the mark is published",
        "I5",
        "metatree/checkpoint.py",
        "            tenure.check(now=True)  # publishes the mark, unless we were overtaken\n",
        "",
        (
            "tests/tree/test_trims_between_hosts.py::"
            "test_one_that_sleeps_before_it_trims_takes_nothing_from_a_successor_in_the_midst_of_its_work",
        ),
    ),
    Planted(
        "the marks of a mount are raised before its folders are flushed",
        "I5",
        "metatree/flushing.py",
        "        if self._needed and not outcome.failed:\n",
        "        if False:\n",
        (f"{MOUNTS}test_before_a_claim_says_what_is_applied_every_folder_with_a_new_or_removed_name_is_flushed",),
    ),
    Planted(
        "a failed flush of the slots' folder is tried again, and its success believed",
        "I1",
        "wal/slot_chain.py",
        "            if self._in_doubt:\n",
        "            if False:\n",
        (
            "tests/wal/test_log_slots_flushes.py::"
            "test_a_slot_whose_folder_could_not_be_flushed_is_written_anew_before_it_is_acknowledged",
        ),
    ),
)
