"""The second half of `log_suite`: trimming, rights, verification, closing."""

from __future__ import annotations

import pytest

from wal.errors import LogClosedError
from wal.log import WriteAheadLog
from wal.testing.log_access import LogAccess, Opener
from wal.testing.log_tools import add, bodies, state


class LogLifeSuite(LogAccess):
    """Part of `LogSuite`."""

    # --- trimming ----------------------------------------------------------------------------------------------------

    def test_trimming_keeps_headers_and_later_bodies(self, log: WriteAheadLog, opener: Opener) -> None:
        for number in range(10):
            add(log, b"body %d" % number, b"header %d" % number)
        log.trim(6)
        reader = opener(read_only=True)
        for handle in (log, reader):
            assert handle.trimmed() == 6
            expected = [(n + 1, (b"header %d" % n,), (b"body %d" % n if n >= 6 else None,)) for n in range(10)]
            assert state(handle) == expected
            assert state(handle, 4) == expected[4:]
        reader.close()

    def test_the_mark_never_goes_back_and_never_beyond_the_head(self, log: WriteAheadLog) -> None:
        for number in range(4):
            add(log, b"%d" % number)
        log.trim(0)
        assert log.trimmed() == 0
        log.trim(3)
        log.trim(1)
        assert log.trimmed() == 3
        for outside in (5, -1):
            with pytest.raises(ValueError):
                log.trim(outside)
        log.trim(4)
        log.trim(4)
        assert bodies(log) == [None] * 4
        assert add(log, b"next").lsn == 5
        assert bodies(log, 4) == [b"next"]

    def test_a_handle_goes_on_when_another_trimmed_under_it(self, log: WriteAheadLog, opener: Opener) -> None:
        other = opener()
        reader = opener(read_only=True)
        for number in range(30):
            add(log, b"%d" % number * 20)
        log.trim(25)
        for handle in (other, reader):
            assert [batch.lsn for batch in handle.read(0)] == list(range(1, 31))
            assert bodies(handle, 25) == [b"%d" % number * 20 for number in range(25, 30)]
        assert add(other, b"next").lsn == 31
        other.close()
        reader.close()

    def test_the_size_grows_with_appends_and_shrinks_with_the_mark(self, log: WriteAheadLog) -> None:
        add(log, b"x" * 1000)
        one = log.size_after(0)
        add(log, b"x" * 1000)
        assert one >= 1000
        assert log.size_after(0) >= 2 * one > log.size_after(1) >= 1000
        assert log.size_after(2) == 0
        log.trim(1)
        assert log.size_after(0) == log.size_after(1) >= 1000

    # --- marks and the right to apply --------------------------------------------------------------------------------

    def test_one_holder_of_the_right_at_a_time(self, log: WriteAheadLog, opener: Opener) -> None:
        other = opener()
        with log.right() as tenure:
            assert tenure.died is False
            with pytest.raises(TimeoutError), other.right(timeout=0):
                pytest.fail("two holders")
            add(other, b"appending needs no right to apply")
        with other.right(timeout=0) as tenure:
            assert tenure.died is False
        other.close()

    def test_the_right_is_free_again_after_an_error(self, log: WriteAheadLog) -> None:
        with pytest.raises(KeyError), log.right():
            raise KeyError
        with log.right(timeout=0) as tenure:
            assert tenure.died is False

    # --- life --------------------------------------------------------------------------------------------------------

    def test_a_sound_log_verifies(self, log: WriteAheadLog, opener: Opener) -> None:
        for number in range(12):
            add(log, b"%d" % number * 30)
        log.trim(5)
        reader = opener(read_only=True)
        for handle in (log, reader):
            result = handle.verify()
            assert (result.first, result.head, result.problems) == (6, 12, ())
        reader.close()

    def test_closing_twice_is_fine_and_using_it_afterwards_is_not(self, opener: Opener) -> None:
        log = opener(create=True)
        add(log, b"x")
        batches = log.read(0)
        log.close()
        log.close()
        looks = (log.head, log.known, lambda: log.read(0), lambda: list(batches))
        for call in (*looks, lambda: add(log, b"y"), lambda: log.trim(0)):
            with pytest.raises(LogClosedError):
                call()
