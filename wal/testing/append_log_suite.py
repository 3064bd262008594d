"""Conformance of logs for one host: `LogSuite`, shared marks, and recovery by the first opener."""

from __future__ import annotations

import pytest

from wal.log import WriteAheadLog
from wal.testing.log_access import Opener
from wal.testing.log_suite import LogSuite
from wal.testing.log_tools import add, bodies

__all__ = ["AppendLogSuite"]


class AppendLogSuite(LogSuite):
    """For logs whose handles share their marks, and whose first opener recovers."""

    def test_marks_are_shared_by_living_handles_and_zero_after_a_first_opener(
        self, log: WriteAheadLog, opener: Opener
    ) -> None:
        other = opener()
        log.store_mark(7, 2**63 - 1)
        other.store_mark(0, 5)
        assert (other.load_mark(7), log.load_mark(0), log.load_mark(3)) == (2**63 - 1, 5, 0)
        log.close()
        assert other.load_mark(0) == 5
        other.close()
        again = opener()
        assert [again.load_mark(index) for index in range(8)] == [0] * 8
        with pytest.raises(ValueError):
            again.store_mark(8, 0)
        with pytest.raises(ValueError):
            again.store_mark(0, 2**63)
        again.close()

    def test_recovery_runs_for_the_first_opener_only_and_may_use_the_log(self, opener: Opener) -> None:
        seen: list[list[bytes | None]] = []

        def recover(log: WriteAheadLog) -> None:
            seen.append(bodies(log))
            with log.right():
                add(log, b"recovered")

        first = opener(create=True, recover=recover)
        second = opener(recover=recover)
        assert seen == [[]]
        first.close()
        second.close()
        third = opener(recover=recover)
        assert seen == [[], [b"recovered"]]
        assert bodies(third) == [b"recovered"] * 2
        third.close()

    def test_a_recovery_that_fails_opens_nothing(self, opener: Opener) -> None:
        opener(create=True).close()

        def fail(log: WriteAheadLog) -> None:
            raise KeyError

        with pytest.raises(KeyError):
            opener(recover=fail)
        called: list[bool] = []
        opener(recover=lambda log: called.append(True)).close()
        assert called == [True]
