"""The conformance suite of `WriteAheadLog`: what every kind of log promises. Shipped for authors of new kinds.

A subclass provides the fixture `opener`, a function that opens the same log each time:

    class TestMyLog(LogSuite):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda **options: open_my_log(tmp_path, **options)

The suite calls it with `create=True`, `read_only=True` and `recover=...`, which mean the same as in `wal.open_log`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from wal.errors import LogMissingError, WalError
from wal.log import Deferred, Position, Record, WriteAheadLog
from wal.testing.log_access import Opener
from wal.testing.log_life_suite import LogLifeSuite
from wal.testing.log_tools import add, bodies, state

__all__ = ["LogSuite", "Opener"]


class LogSuite(LogLifeSuite):
    """Tests of the interface only: they do not depend on segments, slots or files."""

    # --- opening -----------------------------------------------------------------------------------------------------

    def test_a_missing_log_is_said_to_be_missing(self, opener: Opener) -> None:
        with pytest.raises(LogMissingError):
            opener()
        with pytest.raises(LogMissingError):
            opener(read_only=True)

    def test_a_new_log_is_empty_and_has_an_id(self, log: WriteAheadLog) -> None:
        assert (log.head(), log.trimmed(), state(log), log.size_after(0)) == (0, 0, [], 0)
        assert len(log.id) == 32
        int(log.id, 16)
        assert (log.tail_report.quarantined, log.tail_report.adopted) == (0, 0)

    def test_creating_again_opens_what_is_there(self, log: WriteAheadLog, opener: Opener) -> None:
        add(log, b"x")
        again = opener(create=True)
        assert again.id == log.id
        assert bodies(again) == [b"x"]
        again.close()

    def test_the_log_reads_the_same_after_it_was_opened_again(self, opener: Opener) -> None:
        log = opener(create=True)
        for number in range(20):
            add(log, b"body %d" % number, b"header %d" % number)
        before = state(log)
        log.close()
        again = opener()
        assert state(again) == before
        assert again.head() == 20
        assert again.shown() in (20, None)  # None where no file shows it
        assert add(again, b"next") == Position(21, 0)
        again.close()

    # --- appending and reading ---------------------------------------------------------------------------------------

    def test_batches_are_numbered_from_one_without_a_gap(self, log: WriteAheadLog) -> None:
        positions = [add(log, b"%d" % number) for number in range(5)]
        assert positions == [Position(lsn, 0) for lsn in range(1, 6)]
        assert [batch.lsn for batch in log.read(0)] == [1, 2, 3, 4, 5]
        assert [batch.lsn for batch in log.read(3)] == [4, 5]
        assert list(log.read(5)) == list(log.read(99)) == []

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4095, 70_000, 3_000_000])
    def test_a_record_of_any_size_comes_back(self, log: WriteAheadLog, opener: Opener, size: int) -> None:
        body = bytes(range(256)) * (size // 256 + 1)
        add(log, body[:size], body[: size // 3])
        add(log, b"behind it")
        reader = opener(read_only=True)
        for handle in (log, reader):
            assert state(handle)[0] == (1, (body[: size // 3],), (body[:size],))
            assert bodies(handle)[1] == b"behind it"
        reader.close()

    def test_prepare_sees_the_head_and_no_mates_when_it_is_alone(self, log: WriteAheadLog) -> None:
        seen: list[tuple[int, list[Record]]] = []

        def prepare(head: int, mates: Sequence[Record]) -> Record:
            seen.append((head, list(mates)))
            return Record(b"", b"x")

        log.append(prepare)
        log.append(prepare)
        assert seen == [(0, []), (1, [])]

    def test_prepare_that_returns_nothing_appends_nothing(self, log: WriteAheadLog) -> None:
        assert log.append(lambda head, mates: None) is None
        assert log.head() == 0

    def test_an_error_of_prepare_reaches_its_caller_and_nothing_is_appended(self, log: WriteAheadLog) -> None:
        def refuse(head: int, mates: Sequence[Record]) -> Record:
            raise KeyError("no")

        with pytest.raises(KeyError):
            log.append(refuse)
        assert log.head() == 0
        assert add(log, b"x") == Position(1, 0)

    def test_deferring_without_a_batch_mate_is_the_callers_error(self, log: WriteAheadLog) -> None:
        def defer(head: int, mates: Sequence[Record]) -> Record:
            raise Deferred

        with pytest.raises(Deferred):
            log.append(defer)
        assert add(log, b"x") == Position(1, 0)

    def test_a_deferred_record_comes_in_a_later_batch(self, log: WriteAheadLog) -> None:
        positions: list[Position | None] = []

        def alone(head: int, mates: Sequence[Record]) -> Record:
            if mates:
                raise Deferred
            return Record(b"alone", b"")

        def run() -> None:
            positions.extend(log.append(alone) for _ in range(10))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(position.lsn for position in positions if position) == list(range(1, 41))

    def test_read_stops_at_the_head_of_its_call(self, log: WriteAheadLog) -> None:
        add(log, b"1")
        batches = log.read(0)
        add(log, b"2")
        assert [batch.lsn for batch in batches] == [1]

    def test_threads_append_all_and_each_finds_its_own(self, log: WriteAheadLog) -> None:
        places: dict[Position, bytes] = {}

        def run(thread: int) -> None:
            for number in range(50):
                body = b"%d/%d" % (thread, number)
                places[add(log, body)] = body

        threads = [threading.Thread(target=run, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = {Position(b.lsn, i): r.body for b in log.read(0) for i, r in enumerate(b.records)}
        assert found == places
        assert len(places) == 400

    def test_a_record_decided_from_its_mates_holds_at_its_own_place(self, log: WriteAheadLog) -> None:
        """Each thread appends the number of records before its own: what it saw must be what is there."""

        def count(head: int, mates: Sequence[Record]) -> Record:
            before = sum(len(batch.records) for batch in log.read(0) if batch.lsn <= head)
            return Record(b"", b"%d" % (before + len(mates)))

        threads = [threading.Thread(target=lambda: [log.append(count) for _ in range(10)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bodies(log) == [b"%d" % number for number in range(60)]

    # --- several handles ---------------------------------------------------------------------------------------------

    def test_two_handles_continue_each_other(self, log: WriteAheadLog, opener: Opener) -> None:
        other = opener()
        for number in range(10):
            assert add(log if number % 2 else other, b"%d" % number).lsn == number + 1
        assert bodies(log) == bodies(other) == [b"%d" % number for number in range(10)]
        other.close()

    def test_a_reader_sees_every_append_that_returned_before_it_looked(
        self, log: WriteAheadLog, opener: Opener
    ) -> None:
        reader = opener(read_only=True)
        for number in range(10):
            add(log, b"%d" % number)
            assert reader.head() == number + 1
            assert bodies(reader, number) == [b"%d" % number]
        reader.close()

    def test_a_reader_changes_nothing(self, log: WriteAheadLog, opener: Opener) -> None:
        reader = opener(read_only=True)
        for call in (
            lambda: add(reader, b"x"),
            lambda: reader.trim(0),
            lambda: reader.store_mark(0, 1),
            lambda: reader.right().__enter__(),
        ):
            with pytest.raises(WalError):
                call()
        reader.close()
