"""In which order the log writes, flushes and renames. No crash of a process shows a flush that is missing: the order
itself has to be looked at."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import pytest

from wal import MemoryPosix, MemoryStorage, PoisonedError, Posix, Record, WriteAheadLog, open_log
from wal.format import COUNT, FRAME_HEADER, LENGTHS, SEAL_SIZE, SEGMENT_HEADER
from wal.frame import encode_batch
from wal.names import Names
from wal.testing.boundary import ALL_CALLS, Boundary, Call, Recorder
from wal.testing.faults import Crash
from wal.testing.log_tools import add, files_of

T = TypeVar("T")

NAMES = Names(".wal")
SEGMENT_SIZE = 256


def opened(posix: Posix) -> WriteAheadLog:
    return open_log(MemoryStorage(posix), create=True, segment_size=SEGMENT_SIZE)


def steps(recorder: Recorder) -> list[str]:
    """The calls, with names relative to the log's folder; temporary names become "tmp", the head file is left out."""
    lines = []
    for method, path in recorder.trace():
        name = path.partition(".wal")[2].strip("/")
        if name != "head":
            lines.append(f"{method} {'tmp' if name.startswith('tmp/') else name.lstrip('0') or '.'}")
    return lines


def until_rotation(log: WriteAheadLog, recorder: Recorder) -> None:
    """Appends until a second segment is there; the recorder holds the calls of that last append."""
    while not any(call.method == "rename" for call in recorder.calls):
        recorder.calls.clear()
        add(log, b"x" * 40)


def test_creation_makes_each_file_and_then_its_name_durable_and_the_first_segment_is_the_last() -> None:
    recorder = Recorder(MemoryPosix())
    log = opened(recorder)
    written = ["open tmp", "pwrite tmp", "setxattr tmp", "fdatasync tmp"]
    named = ["fsync .", "fsync ."]
    assert steps(recorder) == [
        "mkdir .", "mkdir .", "mkdir tmp",
        *written, "rename checkpoint.json", *named,
        *written, *named,  # the head file
        *written, "rename 1.log", *named,
        "open opening", "open alive",
    ]  # fmt: skip
    log.close()


def test_a_rotation_makes_the_successor_and_its_name_durable_then_the_seal_then_goes_on() -> None:
    recorder = Recorder(MemoryPosix())
    log = opened(recorder)
    recorder.calls.clear()
    until_rotation(log, recorder)
    assert steps(recorder) == [
        "open tmp", "pwrite tmp", "setxattr tmp", "fdatasync tmp", "rename 2.log", "fsync .", "fsync .",
        "pwrite 1.log", "fdatasync 1.log",
        "pwrite 2.log", "fdatasync 2.log",  # zeros
        "pwrite 2.log", "fdatasync 2.log",
    ]  # fmt: skip
    log.close()


def test_a_batch_larger_than_a_segment_leaves_room_for_the_seal_that_is_durable_already() -> None:
    disk = MemoryPosix()
    log = opened(Recorder(disk))
    body = b"x" * (4 * SEGMENT_SIZE)
    add(log, body)
    frame, _ = encode_batch(1, 0, [Record(b"", body)])
    assert len(disk._find(f"/disk/{NAMES.segment(1)}").data) == SEGMENT_HEADER + len(frame) + SEAL_SIZE
    log.close()


@pytest.mark.parametrize("sizes", [[160], [80, 80]])
def test_batches_that_just_fit_into_a_segment_need_one_flush_each_and_one_look_at_its_length(sizes: list[int]) -> None:
    recorder = Recorder(MemoryPosix(), counted=ALL_CALLS)
    log = opened(recorder)
    assert SEGMENT_HEADER + sum(sizes) + SEAL_SIZE == SEGMENT_SIZE
    for number, size in enumerate(sizes):
        recorder.calls.clear()
        add(log, bytes(size - FRAME_HEADER - COUNT.size - LENGTHS.size))
        found = [call.method for call in recorder.calls if call.path.endswith(NAMES.segment(1))]
        zeros = ["pread", "fstat", "pwrite", "fdatasync"] if number == 0 else []  # the first read meets the file's end
        assert found == ["pread", *zeros, "pwrite", "fdatasync"]
    assert log.verify().segments == 1
    add(log, b"x")
    assert log.verify().segments == 2
    log.close()


def test_who_opens_a_log_whose_zeros_just_suffice_adds_none() -> None:
    disk = MemoryPosix()
    log = opened(disk)
    add(log, bytes(80 - FRAME_HEADER - COUNT.size - LENGTHS.size))
    log.close()
    recorder = Recorder(disk, counted=ALL_CALLS)
    log = open_log(MemoryStorage(recorder), segment_size=SEGMENT_SIZE)
    recorder.calls.clear()
    add(log, bytes(80 - FRAME_HEADER - COUNT.size - LENGTHS.size))
    found = [call.method for call in recorder.calls if call.path.endswith(NAMES.segment(1))]
    assert found == ["pread", "fstat", "pwrite", "fdatasync"]
    log.close()


def test_who_appends_after_another_process_flushes_its_own_batch_and_no_other() -> None:
    disk = MemoryPosix()
    recorder = Recorder(disk, counted=ALL_CALLS)
    log, other = (open_log(MemoryStorage(posix), create=True) for posix in (recorder, disk))
    for number in range(3):
        add(other, b"%d" % number)
        recorder.calls.clear()
        add(log, b"mine")
        found = [call.method for call in recorder.calls if call.path.endswith(NAMES.segment(1))]
    assert found.count("pwrite") == found.count("fdatasync") == 1
    log.close()
    other.close()


def torn() -> MemoryPosix:
    """A disk with a log behind whose last batch is a torn one."""
    disk = MemoryPosix()
    log = opened(disk)
    add(log, b"x" * 40)
    end = log.chain.tail.offset  # type: ignore[attr-defined]
    log.close()
    file = MemoryStorage(disk).open_file(NAMES.segment(1), writable=True)
    file.pwrite(b"torn", end)
    file.close()
    return disk


def test_E4b_a_torn_tail_is_durable_in_quarantine_before_it_is_zeroed_and_the_zeros_before_what_comes_next() -> None:
    disk = torn()
    recorder = Recorder(disk)
    log = opened(recorder)
    assert log.tail_report.quarantined == 4
    found = steps(recorder)
    last, zeros = len(found) - 1 - found[::-1].index("fsync quarantine"), found.index("pwrite 1.log")
    assert last < zeros
    assert [step for step in found if "1.log" in step] == ["pwrite 1.log", "fdatasync 1.log"] * 2, "zeros; the batch"
    log.close()


def test_E4b_what_another_process_put_into_quarantine_is_durable_there_before_the_torn_tail_is_zeroed() -> None:
    disk = torn()
    with pytest.raises(Crash):
        opened(Dies("quarantine", disk))
    recorder = Recorder(disk)
    log = opened(recorder)
    assert [files_of(MemoryStorage(disk))[name] for name in log.tail_report.quarantine] == [b"torn"]
    found = steps(recorder)
    assert found.index("fsync quarantine") < found.index("pwrite 1.log")
    log.close()


def test_a_trim_makes_the_mark_durable_then_the_headers_then_frees_the_segment() -> None:
    recorder = Recorder(MemoryPosix())
    log = opened(recorder)
    recorder.calls.clear()
    until_rotation(log, recorder)
    recorder.calls.clear()
    log.trim(log.head())
    found = steps(recorder)
    assert found[: found.index("fsync .") + 1] == [
        "open tmp", "pwrite tmp", "setxattr tmp", "fdatasync tmp", "rename checkpoint.json", "fsync .",
    ]  # fmt: skip
    kept = found.index(f"link history/{1:020d}.hdr")
    assert found[kept - 1] == "fdatasync tmp"
    assert found.index("fsync history", kept) < found.index("unlink 1.log")
    log.close()


class Dies(Boundary):
    """The process is killed before it flushes a folder of this name."""

    def __init__(self, folder: str, disk: MemoryPosix) -> None:
        super().__init__(disk)
        self.folder = folder

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "fsync" and call.path.endswith(self.folder):
            raise Crash("killed")
        return run()


def test_headers_that_another_process_wrote_are_made_durable_before_the_segment_is_freed() -> None:
    disk = MemoryPosix()
    killed = opened(Dies("history", disk))
    for _ in range(8):
        add(killed, b"x" * 40)
    with pytest.raises(Crash):
        killed.trim(killed.head())
    killed.close()
    recorder = Recorder(disk)
    log = opened(recorder)
    recorder.calls.clear()
    log.trim(log.head())
    found = steps(recorder)
    assert found.index("fsync history") < found.index("unlink 1.log")
    log.close()


class Forgetting(Boundary):
    """Fails to flush the folder of the headers, says so once, and then calls every flush a success. What it could not
    write is lost until its name is taken again."""

    failures = 0

    def __init__(self, disk: MemoryPosix) -> None:
        super().__init__(disk)
        self.flushed: set[str] = set()  # files whose content is durable
        self.dirty: set[str] = set()
        self.durable: set[str] = set()

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if call.method == "unlink" and call.path.endswith(".log"):
            number = call.path.rpartition("/")[2].removesuffix(".log")
            assert f"/disk/.wal/history/{number}.hdr" in self.durable, "the headers are nowhere any more"
        done = run()
        if call.method == "fdatasync":
            self.flushed.add(call.path)
        elif call.method in ("link", "rename"):
            source, target = map(str, call.arguments)
            assert source in self.flushed or not target.endswith(".hdr"), "a name for what may be lost"
            self.dirty.add(target)
        elif call.method == "fsync" and call.path.endswith("/history"):
            dirty, self.dirty = self.dirty, set()
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EIO, "Input/output error", call.path)
            self.durable |= dirty
        return done


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("who", ["the same handle", "another process"])
def test_headers_whose_folder_could_not_be_flushed_are_written_anew_before_the_segment_is_freed(
    who: str, failures: int
) -> None:
    disk = Forgetting(MemoryPosix())
    log = opened(disk)
    for _ in range(8):
        add(log, b"x" * 40)
    other = log if who == "the same handle" else opened(disk)
    disk.failures = failures
    for trimming in (log, other)[:failures]:
        with pytest.raises(OSError, match="Input/output"):
            trimming.trim(log.head())
    other.trim(log.head())
    assert len([name for name in disk.durable if name.endswith(".hdr")]) > 1
    assert [batch.lsn for batch in other.read(0)] == list(range(1, 9))
    assert not other.verify().problems
    other.close()
    log.close()


class FailingFolder(Boundary):
    """The next flush of the log's folder fails, once."""

    armed = False

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.armed and call.method == "fsync" and call.path.endswith(".wal"):
            self.armed = False
            raise OSError(errno.EIO, "Input/output error", call.path)
        return run()


@pytest.mark.parametrize("step", ["rotation", "trim"])
def test_after_a_failed_flush_of_the_folder_the_handle_appends_nothing_more(step: str) -> None:
    """The system may call the next one a success though the name is lost."""
    disk = FailingFolder(MemoryPosix())
    log = opened(disk)
    add(log, b"x" * 40)
    disk.armed = True
    with pytest.raises(OSError, match="Input/output"):
        if step == "trim":
            log.trim(1)
        while disk.armed or step == "rotation":
            add(log, b"x" * 40)
    head = log.head()
    with pytest.raises(PoisonedError, match="open the log again"):
        add(log, b"more")
    log.close()
    log = open_log(MemoryStorage(disk), segment_size=SEGMENT_SIZE)
    assert log.head() == head
    add(log, b"more")
    assert not log.verify().problems
    log.close()
