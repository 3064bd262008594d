"""Bugs in the append log and in the storage of one machine: see `planting`."""

from __future__ import annotations

from tests.trust.planting import Planted

TAIL = "tests/wal/test_log_tail.py::"
FLUSHES = "tests/wal/test_storage_posix.py::TestOrderOfFlushes::"
LOG_FLUSHES = "tests/wal/test_log_flushes.py::"
MEMORY = "tests/wal/test_log_memory.py::TestMemory::"

IN_THE_LOG = (
    # --- one machine: the append log ----------------------------------------------------------------------------------
    Planted(
        "a batch is acknowledged without a flush of the log",
        "I1",
        "wal/writer.py",
        "            file.datasync()\n            chain.add(",
        "            chain.add(",
        (f"{TAIL}test_a_failed_flush_is_in_doubt_and_poisons_and_the_next_opener_settles_it",),
        first=True,
    ),
    Planted(
        "a failed flush of the log is tried again, and its success believed",
        "I1",
        "wal/writer.py",
        "            file.datasync()\n            chain.add(",
        "            try:\n                file.datasync()\n            except OSError:\n"
        "                file.datasync()\n            chain.add(",
        (f"{TAIL}test_a_failed_flush_is_in_doubt_and_poisons_and_the_next_opener_settles_it",),
        first=True,
    ),
    Planted(
        "the head word is published before the flush",
        "I1",
        "wal/writer.py",
        "        self._pwrite(file, tail, frame)\n        try:\n",
        "        self._pwrite(file, tail, frame)\n        self._head.publish(lsn)\n        try:\n",
        (f"{TAIL}test_a_failed_flush_is_in_doubt_and_poisons_and_the_next_opener_settles_it",),
    ),
    Planted(
        "a handle whose flush failed goes on appending",
        "I1",
        "wal/writer.py",
        '            raise PoisonedError(f"{self.poisoned}; open the log again")',
        "            self.poisoned = None",
        (f"{TAIL}test_a_failed_flush_is_in_doubt_and_poisons_and_the_next_opener_settles_it",),
    ),
    Planted(
        "a failed flush outside of an append poisons nothing",
        "I1",
        "wal/writer.py",
        '            self.poisoned = f"the log could not be made durable ({error})"\n            raise',
        "            raise error",
        (f"{LOG_FLUSHES}test_after_a_failed_flush_of_the_folder_the_handle_appends_nothing_more",),
    ),
    Planted(
        "what was found beyond the head word is built on without being flushed again",
        "I1",
        "wal/writer.py",
        "        self._rewrite_last()\n",
        "",
        (f"{TAIL}test_E4_a_living_handle_rewrites_and_flushes_what_it_finds_before_it_appends",),
    ),
    Planted(
        "a reader serves a frame beyond the head word that may not be on the disk",
        "I1",
        "wal/append_log.py",
        "                self.shelf.datasync(chain.index.place(lsn)[0])",
        "                pass",
        (f"{TAIL}test_E18_a_reader_serves_a_frame_beyond_the_head_word_only_after_a_flush",),
    ),
    Planted(
        "the folder of a new segment is not flushed",
        "I1",
        "wal/writer.py",
        "        self._sure(lambda: storage.sync_folder(names.folder))\n        file = ",
        "        file = ",
        (f"{LOG_FLUSHES}test_a_rotation_makes_the_successor_and_its_name_durable_then_the_seal_then_goes_on",),
    ),
    Planted(
        "the old segment is sealed before its successor is there",
        "I2",
        "wal/writer.py",
        "        self._shelf.retire(number)\n        storage.publish(names.segment(number)",
        "        self._pwrite(self._shelf.file(tail.number), tail, seal)\n        self._shelf.retire(number)\n"
        "        storage.publish(names.segment(number)",
        (f"{LOG_FLUSHES}test_a_rotation_makes_the_successor_and_its_name_durable_then_the_seal_then_goes_on",),
    ),
    Planted(
        "the redo mark is published without a flush",
        "I5",
        "wal/writer.py",
        'storage.publish(names.checkpoint, checkpoint.encode(), b"", durable=True)',
        'storage.publish(names.checkpoint, checkpoint.encode(), b"", durable=False)',
        (f"{LOG_FLUSHES}test_a_trim_makes_the_mark_durable_then_the_headers_then_frees_the_segment",),
    ),
    Planted(
        "a segment is freed before its headers are kept",
        "I5",
        "wal/history.py",
        "            self._keep(number, content)\n",
        "",
        (f"{LOG_FLUSHES}test_a_trim_makes_the_mark_durable_then_the_headers_then_frees_the_segment",),
    ),
    Planted(
        "a frame is accepted though it follows another one",
        "I7",
        "wal/segment.py",
        "header.previous != crc or header.lsn",
        "header.lsn",
        (f"{TAIL}test_an_intact_frame_that_follows_another_one_is_not_the_next_batch",),
    ),
    Planted(
        "recovery goes on in a segment that follows another end",
        "I7",
        "wal/chain.py",
        "        if header.first != seal.header.lsn + 1 or header.previous != seal.header.crc:",
        "        if header.first != seal.header.lsn + 1:",
        (f"{TAIL}test_E4c_a_whole_segment_that_follows_another_end_is_corruption",),
    ),
    Planted(
        "recovery stops before a segment with records, since the one before has no seal",
        "I7",
        "wal/writer.py",
        "        if not empty:\n",
        "        if not empty and not later:\n",
        (f"{TAIL}test_E4c_a_successor_with_records_and_no_seal_is_corruption",),
    ),
    Planted(
        "a torn tail is zeroed and not kept",
        "I7",
        "wal/writer.py",
        "        name = self._quarantine(tail, stray)\n",
        '        name = ""\n',
        (f"{TAIL}test_E4b_a_torn_tail_is_kept_in_quarantine_zeroed_and_reported",),
    ),
    Planted(
        "a bad frame with an intact one behind it is taken for a torn tail",
        "I7",
        "wal/writer.py",
        "        if later is not None:\n",
        "        if later is not None and not stray:\n",
        (f"{TAIL}test_E4b_a_later_intact_frame_makes_a_bad_one_corruption",),
    ),
    Planted(
        "a log that ends before what was flushed is opened",
        "I7",
        "wal/writer.py",
        "        if durable is not None and chain.tail.lsn < durable:\n            raise",
        "        if durable is not None and chain.tail.lsn < 0:\n            raise",
        (f"{TAIL}test_E5_a_head_word_above_the_last_intact_frame_is_corruption",),
    ),
    Planted(
        "a first opener believes the marks that it finds",
        "I3",
        "wal/opening.py",
        "        head.rebuild(log.log_id, log.chain.tail.lsn, log.chain.checkpoint.redo)\n",
        "        head.publish(log.chain.tail.lsn)\n",
        (f"{MEMORY}test_marks_are_shared_by_living_handles_and_zero_after_a_first_opener",),
    ),
    # --- the storage of one machine -----------------------------------------------------------------------------------
    Planted(
        "a new file's folder is not flushed",
        "I1",
        "wal/storage/local.py",
        "                self._rooted.sync_folder(folder)\n        finally:",
        "                pass\n        finally:",
        (f"{FLUSHES}test_create_flushes_the_file_before_the_link_and_the_folder_after_it",),
        first=True,
    ),
    Planted(
        "a staged file is not flushed",
        "I1",
        "wal/storage/files.py",
        "        set_attribute(self._posix, self._fd, attribute)\n        self._posix.fdatasync(self._fd)\n",
        "        set_attribute(self._posix, self._fd, attribute)\n",
        (
            "tests/tree/test_order_of_flushes.py::test_what_a_record_names_is_durable_with_its_folder_before_the_record_is_written",
        ),
    ),
    Planted(
        "a file goes before its successor takes its name",
        "I2",
        "wal/storage/local.py",
        "        if self._passage is None:\n            self._posix.rename(temporary, path)",
        "        if self._passage is None:\n            with suppress(FileNotFoundError):\n"
        "                self._posix.unlink(path)\n            self._posix.rename(temporary, path)",
        ("tests/wal/test_storage_faults.py::test_a_crash_at_any_call_leaves_the_old_or_the_new_state",),
    ),
    Planted(
        "apply consumes a staged file",
        "I3",
        "wal/storage/local.py",
        "            temporary = self._scratch.share(content, attribute, durable=durable)",
        "            temporary = self._rooted.path(content.name)",
        (
            "tests/wal/test_storage_memory.py::TestMemoryStorage::"
            "test_a_staged_file_survives_being_published_again_and_again",
        ),
    ),
)
