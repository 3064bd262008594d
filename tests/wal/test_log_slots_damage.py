"""A log of slots whose slots or history were damaged, and what other hosts and threads do to it meanwhile."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest

from wal import (
    LockBusyError,
    LogClosedError,
    LogCorruptionError,
    LogMissingError,
    MemoryPosix,
    MemoryStorage,
    Record,
    Storage,
    WriteAheadLog,
    open_log,
)
from wal.checkpoint import Checkpoint
from wal.format import CRC, LENGTH, SLOT_FIELDS, SLOT_STATE
from wal.names import Names
from wal.parallel import WORKERS
from wal.slot import Slot, decode
from wal.slot_chain import CACHE_BYTES
from wal.testing.hosts import ManualClock, watched
from wal.testing.log_tools import add, bodies
from wal.testing.objects import Bucket, MemoryObjects

NAMES = Names(".wal")


def opened(bucket: Bucket, storage: Storage | None = None, **options: Any) -> WriteAheadLog:
    return open_log(storage or MemoryObjects(bucket), clock=ManualClock(len(bucket.objects)), **options)


def made(bucket: Bucket, batches: int = 20) -> WriteAheadLog:
    log = opened(bucket, create=True)
    for number in range(batches):
        add(log, b"body %d" % number, b"%d" % number)
    return log


def headers(log: WriteAheadLog) -> list[bytes]:
    return [record.header for batch in log.read(0) for record in batch.records]


def before(storage: Storage, method: str, name: str, happen: Callable[[], object]) -> Storage:
    """`storage`, with `happen` done once before its first such call."""
    left = [happen]

    def around(called: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if left and called == method and arguments[0] == name:
            left.pop()()
        return run()

    return watched(storage, around)


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_slot_that_is_missing_in_the_middle_is_named_when_it_is_read_or_trimmed() -> None:
    bucket = Bucket()
    made(bucket).close()
    with closing(opened(bucket)) as log:
        assert log.head() == 20
        del bucket.objects[NAMES.slot(7)]
        log.chain._cache.clear()  # type: ignore[attr-defined]  as after many others
        for fails in (lambda: bodies(log), lambda: log.trim(10)):
            with pytest.raises(LogCorruptionError, match="missing in the middle") as caught:
                fails()
            assert caught.value.file == NAMES.slot(7)


def test_the_first_slot_is_missing_though_others_are_there() -> None:
    bucket = Bucket()
    made(bucket).close()
    del bucket.objects[NAMES.slot(0)]
    with pytest.raises(LogCorruptionError, match="first slot is missing") as caught:
        opened(bucket)
    assert caught.value.file == NAMES.slot(0)


def foreign(redo: int) -> bytes:
    return Checkpoint("11" * 16, redo).encode()


def test_a_checkpoint_of_another_log_is_named_by_openers_and_believed_by_nobody_who_is_in() -> None:
    """It would hide bodies that are there, and let a trim leave out what was never trimmed."""
    bucket = Bucket()
    with closing(made(bucket)) as log:
        bucket.put(NAMES.checkpoint, foreign(10), b"")
        with pytest.raises(LogCorruptionError, match="that of another log") as caught:
            opened(bucket)
        assert caught.value.file == NAMES.checkpoint
        for fails in (lambda: log.trimmed(fresh=True), lambda: log.trim(15)):
            with pytest.raises(LogCorruptionError, match="that of another log"):
                fails()
        assert bodies(log) == [b"body %d" % number for number in range(20)]


def test_a_reader_that_slept_is_told_if_the_slot_to_jump_to_is_missing() -> None:
    bucket = Bucket()
    log = made(bucket, 1)
    with closing(opened(bucket, read_only=True)) as reader:
        assert reader.head() == 1
        for number in range(2, 13):
            add(log, b"body %d" % number)
        log.trim(10)
        del bucket.objects[NAMES.slot(10)]
        with pytest.raises(LogCorruptionError, match="a slot is missing") as caught:
            reader.head()
        assert caught.value.file == NAMES.slot(10)
    log.close()


def replaced(bucket: Bucket, lsn: int, **fields: Any) -> None:
    """A slot that is whole, and not the one that was there."""
    name = NAMES.slot(lsn)
    bucket.put(name, replace(decode(bucket.objects[name].data, name), **fields).encode(), None)


def flipped(bucket: Bucket, name: str) -> None:
    data = bytearray(bucket.objects[name].data)
    data[-1] ^= 1
    bucket.put(name, bytes(data), None)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda bucket: None, []),
        (lambda bucket: bucket.put(NAMES.checkpoint, b"?", b""), [NAMES.checkpoint]),
        (lambda bucket: bucket.put(NAMES.checkpoint, foreign(3), b""), [NAMES.checkpoint]),
        (lambda bucket: flipped(bucket, NAMES.slot(7)), [NAMES.slot(7)]),
        (lambda bucket: [flipped(bucket, NAMES.slot(lsn)) for lsn in (3, 9)], [NAMES.slot(3), NAMES.slot(9)]),
        (lambda bucket: [flipped(bucket, NAMES.slot(lsn)) for lsn in (0, 19, 20)], list(map(NAMES.slot, (0, 19, 20)))),
        (lambda bucket: replaced(bucket, 7, token=b"t" * 16), [NAMES.slot(8)]),
        (lambda bucket: replaced(bucket, 7, previous=b"p" * 32), [NAMES.slot(7), NAMES.slot(8)]),
        (lambda bucket: bucket.objects.pop(NAMES.slot(7)), [NAMES.slot(7)]),
        (lambda bucket: bucket.objects.pop(NAMES.slot(19)), [NAMES.slot(19)]),
        (lambda bucket: bucket.objects.pop(NAMES.slot(20)), [NAMES.slot(20)]),
        (lambda bucket: bucket.put(NAMES.slot(23), b"?", None), [NAMES.slot(23)]),
    ],
    ids=[
        "none",
        "checkpoint",
        "foreign checkpoint",
        "a slot",
        "two slots",
        "first and last",
        "swapped",
        "unlinked",
        "lost",
        "last but one lost",
        "last lost",
        "beyond",
    ],
)
def test_verify_names_each_file_that_is_wrong_and_goes_on(damage: Callable[[Bucket], object], found: list[str]) -> None:
    bucket = Bucket()
    with closing(made(bucket)) as log:
        damage(bucket)
        verified = log.verify()
        assert len(verified.problems) == len(found), verified.problems
        assert all(name in problem for name, problem in zip(found, verified.problems, strict=True))
        assert verified.head == 20


def test_slots_that_others_add_while_the_log_is_verified_are_not_taken_for_damage() -> None:
    bucket = Bucket()
    log = made(bucket)

    def list_(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method != "list":
            return run()
        add(log, b"not in the listing, which is not a snapshot")
        add(log, b"in it")
        return [entry for entry in run() if not NAMES.slot(21).endswith(entry.name)]

    with closing(opened(bucket, watched(MemoryObjects(bucket), list_), read_only=True)) as reader:
        assert reader.verify().problems == ()
    log.close()


def test_a_slot_after_a_lost_one_is_not_named_too() -> None:
    bucket = Bucket()
    log = made(bucket)

    def happen() -> None:
        add(log, b"21")
        del bucket.objects[NAMES.slot(20)]

    with closing(opened(bucket, before(MemoryObjects(bucket), "list", ".wal", happen), read_only=True)) as reader:
        (problem,) = reader.verify().problems
        assert NAMES.slot(20) in problem
    log.close()


def test_a_log_that_is_made_while_an_opener_looks_for_it_is_found() -> None:
    bucket, logs = Bucket(), []
    storage = before(MemoryObjects(bucket), "list", ".wal", lambda: logs.append(made(bucket, 2)))
    with closing(opened(bucket, storage)) as log:
        assert len(bodies(log)) == 2
    logs[0].close()
    with pytest.raises(LogMissingError):
        opened(Bucket())


def test_a_history_of_another_log_and_one_that_has_a_body_are_refused() -> None:
    bucket = Bucket()
    made(bucket).trim(2 * WORKERS)
    name = NAMES.history(2 * WORKERS)
    whole = bucket.objects[name].data
    (size,) = LENGTH.unpack_from(whole)
    slot = decode(whole[LENGTH.size : LENGTH.size + size], name)
    for other in (
        Slot(b"x" * 16, slot.lsn, slot.token, slot.previous, slot.records, slot.trimmed),
        Slot(slot.log_id, slot.lsn, slot.token, slot.previous, (Record(b"h", b"b"),), None),
    ):
        data = other.encode()
        bucket.put(name, LENGTH.pack(len(data)) + data, None)
        with closing(opened(bucket)) as log, pytest.raises(LogCorruptionError, match="another log") as caught:
            headers(log)
        assert caught.value.file == name


def test_a_history_that_goes_further_than_it_was_asked_for_ends_there() -> None:
    """Two trims that crossed: the history of the later one begins with what the earlier one has."""
    bucket = Bucket()
    log = made(bucket, 40)
    log.trim(20)
    with closing(opened(bucket)) as late:
        assert [batch.lsn for batch in late.read(0, 12)] == list(range(1, 13))
    log.close()


@pytest.mark.parametrize(("headers", "cut"), [([b"h", b"i"], -1), ([b"h"], 1)], ids=["over the end", "bytes left over"])
def test_a_slot_whose_lengths_do_not_add_up_is_refused(headers: list[bytes], cut: int) -> None:
    """The checksum fits: somebody wrote it like that."""
    slot = Slot(b"x" * 16, 1, b"t" * 16, b"l" * 32, tuple(Record(header, b"") for header in headers))
    data = bytearray(slot.encode()[: -CRC.size])
    at = SLOT_FIELDS.size + SLOT_STATE.size + 4
    LENGTH.pack_into(data, at, 1 - cut)
    with pytest.raises(LogCorruptionError, match="cannot be decoded"):
        decode(bytes(data) + CRC.pack(crc32(data)), "a.rec", 1)


@pytest.mark.parametrize("short", [CRC.size, 1, 0])
def test_a_slot_that_is_too_short_for_its_fields_is_refused(short: int) -> None:
    data = Slot(b"x" * 16, 1, b"t" * 16, b"l" * 32, ()).encode()[: SLOT_FIELDS.size + SLOT_STATE.size - short]
    with pytest.raises(LogCorruptionError, match="not a slot"):
        decode(data[: -CRC.size] + CRC.pack(crc32(data[: -CRC.size])), "a.rec", 1)


def test_a_record_without_a_body_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a body"):
        Slot(b"x" * 16, 1, b"t" * 16, b"l" * 32, (Record(b"h", None), Record(b"h", b""))).encode()


# --- hosts and threads ----------------------------------------------------------------------------------------------


def test_a_mount_that_cannot_flush_a_folder_for_a_reader_serves_it_and_one_that_fails_does_not() -> None:
    disk = MemoryPosix()
    log = open_log(MemoryStorage(disk), create=True, kind="slots")
    add(log, b"x")
    for number, served in ((errno.EROFS, True), (errno.EIO, False)):

        def fail(number: int = number) -> None:
            raise OSError(number, "no flush")

        storage = before(MemoryStorage(disk), "sync_folder", ".wal", fail)
        with closing(open_log(storage, kind="slots", read_only=True)) as reader:
            if served:
                assert bodies(reader) == [b"x"]
                add(log, b"y")
                assert bodies(reader) == [b"x", b"y"]
            else:
                add(log, b"z")
                with pytest.raises(OSError, match="no flush"):
                    reader.head()
    log.close()


def test_marks_have_a_range_and_an_index() -> None:
    with closing(made(Bucket(), 1)) as log, log.right():
        for index, value in ((-1, 0), (99, 0), (0, -1), (0, 2**63)):
            with pytest.raises(ValueError, match="a mark is"):
                log.store_mark(index, value)
        log.store_mark(0, 2**63 - 1)
        assert log.load_mark(0) == 2**63 - 1


def test_the_right_to_apply_is_refused_inside_a_prepare() -> None:
    log = made(Bucket(), 1)

    def nested(head: int, mates: object) -> None:
        assert (head, log.head(), log.known()) == (1, 1, 1)
        with pytest.raises(RuntimeError, match="inside a prepare"):
            log.right()

    log.append(nested)
    log.close()


def test_a_handle_is_attached_anew_by_a_fork_unless_it_was_closed() -> None:
    log = made(Bucket(), 1)
    chain = log.chain  # type: ignore[attr-defined]
    log._renewal.pid = -1  # type: ignore[attr-defined]
    log.reset_after_fork()
    assert log.chain is not chain, "whose lock a thread of the parent may have"  # type: ignore[attr-defined]
    assert bodies(log) == [b"body 0"]
    log.close()
    log._renewal.pid = -1  # type: ignore[attr-defined]
    log.reset_after_fork()
    with pytest.raises(LogClosedError):
        log.head()


def test_a_trim_by_another_is_learned_of_when_it_is_asked_for() -> None:
    bucket = Bucket()
    log = made(bucket)
    with closing(opened(bucket)) as other:
        assert other.trimmed() == other.trimmed(fresh=True) == 0
        log.trim(5)
        assert other.trimmed() == 0
        assert other.trimmed(fresh=True) == 5
    log.close()


def test_a_thread_waits_for_another_threads_right_and_gives_up_in_time() -> None:
    log = open_log(MemoryObjects(), create=True)
    inside, go = threading.Event(), threading.Event()

    def hold() -> None:
        with log.right():
            inside.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    with pytest.raises(LockBusyError, match="a thread of this process has it"), log.right(timeout=0.12):
        pass
    threading.Timer(0.12, go.set).start()
    with log.right(timeout=60):
        pass
    thread.join()
    log.close()
    with pytest.raises(LogClosedError), log.right():
        pass


class Queued:
    """A lock that tells who has come for it."""

    def __init__(self) -> None:
        self._lock, self.came = threading.RLock(), threading.Semaphore(0)

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_threads_that_ask_during_a_look_share_the_next_one_and_see_what_was_there_when_they_asked() -> None:
    bucket = Bucket()
    log = made(bucket, 1)
    looks = ["at the opening"]
    asked, go = threading.Event(), threading.Event()

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        try:
            return run()
        finally:
            if method == "read":
                looks.append(arguments[0])
                if len(looks) == 1:
                    asked.set()
                    assert go.wait(60)

    with closing(opened(bucket, watched(MemoryObjects(bucket), around), read_only=True)) as reader:
        assert reader.head() == 1
        looks.clear()
        queued = reader.chain._mutex = Queued()  # type: ignore[attr-defined]
        heads: list[int] = []
        threads = [threading.Thread(target=lambda: heads.append(reader.head())) for _ in range(4)]
        threads[0].start()
        assert asked.wait(60)
        add(log, b"new")  # behind the back of the first, whose answer is on its way
        for thread in threads[1:]:
            thread.start()
        for _ in threads:
            assert queued.came.acquire(timeout=60)
        go.set()
        for thread in threads:
            thread.join()
        assert sorted(heads)[1:] == [2, 2, 2]
        assert looks == [NAMES.slot(2), NAMES.slot(2), NAMES.slot(3)]
    log.close()


def test_slots_that_were_read_lately_are_kept_up_to_a_size_and_others_asked_for_again() -> None:
    bucket, size, asked = Bucket(), CACHE_BYTES // 4, []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "read":
            asked.append(arguments[0])
        return run()

    with closing(opened(bucket, watched(MemoryObjects(bucket), around), create=True)) as log:
        for number in range(1, 7):
            add(log, b"%d" % number * size)
        asked.clear()
        assert bodies(log) == [b"%d" % number * size for number in range(1, 7)]
        assert set(asked) == {*map(NAMES.slot, range(1, 4)), NAMES.slot(7)}


def test_a_look_at_the_end_is_believed_for_as_long_as_was_allowed() -> None:
    bucket, clock = Bucket(), ManualClock(99)
    log = made(bucket, 1)
    with closing(open_log(MemoryObjects(bucket), clock=clock, read_only=True, staleness=5)) as reader:
        assert reader.head() == 1
        add(log, b"new")
        clock.now += 4.9
        assert (reader.head(), reader.head(fresh=True)) == (1, 2)
        add(log, b"newer")
        clock.now += 4.9
        assert reader.head() == 2
        clock.now += 0.1
        assert reader.head() == 3
        add(log, b"newest")
        assert (reader.head(), reader.verify().head) == (3, 4)
    log.close()


def test_a_slot_that_another_writer_took_is_read_once_more() -> None:
    bucket, asked = Bucket(), list[str]()

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "read":
            asked.append(arguments[0])
        return run()

    log = made(bucket, 1)
    storage = before(watched(MemoryObjects(bucket), around), "create", NAMES.slot(2), lambda: add(log, b"first"))
    with closing(opened(bucket, storage)) as other:
        asked.clear()
        assert add(other, b"second").lsn == 3
    assert asked.count(NAMES.slot(2)) == 2, "before it tried, when there was none, and to see who took it"
    log.close()


def test_no_more_is_asked_for_than_is_needed() -> None:
    """Who opens without a mark for what is done needs no claim, and who gave the right back last need not read it."""
    bucket, asked = Bucket(), list[tuple[str, str]]()

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        asked.append((method, arguments[0]))
        return run()

    made(bucket, 1).close()
    with closing(opened(bucket, watched(MemoryObjects(bucket), around))) as log:
        assert not any(name == NAMES.apply for _, name in asked)
        asked.clear()
        assert log.trimmed() == 0 and not asked, "what is known already"
        with log.right():
            pass
        asked.clear()
        with log.right() as tenure:
            tenure.check()
        assert asked == [("publish", NAMES.apply)] * 2, "to take it and to give it back"
        asked.clear()
        log.trim(log.known())
        assert ("read", NAMES.slot(log.known() + 1)) not in asked, "what is trimmed is known"
