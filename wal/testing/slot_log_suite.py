"""Conformance of logs that hosts share: `LogSuite`, and what holds if every batch is an object of its own."""

from __future__ import annotations

import pytest

from wal.errors import WalError
from wal.log import WriteAheadLog
from wal.testing.log_access import Opener
from wal.testing.log_suite import LogSuite
from wal.testing.log_tools import add, bodies, state

__all__ = ["SlotLogSuite"]


class SlotLogSuite(LogSuite):
    """For slot logs."""

    def test_marks_travel_with_the_right(self, log: WriteAheadLog, opener: Opener) -> None:
        other = opener()
        with log.right():
            log.store_mark(7, 2**63 - 1)
            log.store_mark(0, 5)
        assert (other.load_mark(7), other.load_mark(0)) == (0, 0)
        with other.right() as tenure:
            assert tenure.died is False
            assert (other.load_mark(7), other.load_mark(0), other.load_mark(3)) == (2**63 - 1, 5, 0)
            other.store_mark(0, 6)
        with log.right():
            assert log.load_mark(0) == 6
        other.close()

    def test_whether_others_have_it_open_is_not_known(self, log: WriteAheadLog, opener: Opener) -> None:
        reader = opener(read_only=True)
        assert (log.attended(), reader.attended()) == (None, None)
        log.close()
        assert reader.attended() is None
        reader.close()

    def test_whose_marks_are_taken_his_records_are_known(self, log: WriteAheadLog, opener: Opener) -> None:
        """A mark is often the LSN of a record that another host has appended and applied."""
        other = opener()
        add(log, b"1")
        with log.right():
            lsn = add(log, b"2").lsn  # 3 where taking the right takes a slot
            log.store_mark(0, lsn)
        assert other.known() == 0
        with other.right():
            assert other.load_mark(0) == other.known() == lsn
            other.trim(lsn)
        other.close()

    def test_a_writer_that_slept_through_a_trim_finds_its_slot_taken(self, log: WriteAheadLog, opener: Opener) -> None:
        sleeper = opener()
        reader = opener(read_only=True)
        for number in range(40):
            add(log, b"%d" % number)
        log.trim(30)
        assert add(sleeper, b"late").lsn == 41
        assert reader.known() == 0  # it has not looked yet
        assert reader.head() == 41
        assert bodies(reader, 30) == [*(b"%d" % n for n in range(30, 40)), b"late"]
        assert state(reader)[:30] == [(n + 1, (b"",), (None,)) for n in range(30)]
        sleeper.close()
        reader.close()

    def test_trimming_reaches_what_another_has_appended_meanwhile(self, log: WriteAheadLog, opener: Opener) -> None:
        other = opener()
        for number in range(3):
            add(other, b"%d" % number)
        assert log.known() == 0
        log.trim(2)
        assert bodies(log) == [None, None, b"2"]
        other.close()

    def test_settling_takes_a_slot_that_holds_nothing(self, log: WriteAheadLog, opener: Opener) -> None:
        add(log, b"1")
        log.settle()
        assert add(log, b"2").lsn == 3
        other = opener(read_only=True)
        with pytest.raises(WalError):
            other.settle()
        assert other.head() == 3
        assert state(other) == [(1, (b"",), (b"1",)), (2, (), ()), (3, (b"",), (b"2",))]
        other.close()

    def test_headers_of_trimmed_slots_are_read_back_together_and_one_by_one(
        self, log: WriteAheadLog, opener: Opener
    ) -> None:
        for number in range(60):
            add(log, b"body", b"%d" % number)
            if number in (19, 20, 49):
                log.trim(number + 1)
        expected = [(n + 1, (b"%d" % n,), (None if n < 50 else b"body",)) for n in range(60)]
        for after in (0, 5, 19, 20, 33, 50):
            reader = opener(read_only=True)
            assert state(reader, after) == expected[after:]
            reader.close()

    def test_every_slot_stays_and_verifies(self, log: WriteAheadLog) -> None:
        for number in range(12):
            add(log, b"%d" % number)
        log.trim(7)
        found = log.verify()
        assert (found.problems, found.first, found.head, found.segments) == ((), 8, 12, 13)
