"""Finds or creates a log, and does what an opener must do before it works.

A writer first finds out whether another writer is alive. If none is (it gets `alive` exclusively), nothing volatile is
trusted: it scans from the redo mark, settles the tail, rebuilds the head file and lets the log's consumer replay. All
others wait for that, and trust the head word. Readers take no lock and change nothing, except that `attended` takes an
opener's turn for a moment, if it may.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from wal.append_log import AppendLog, make_right
from wal.checkpoint import Checkpoint, read_checkpoint
from wal.clock import Clock
from wal.errors import LockBusyError, LogCorruptionError, LogFormatError, LogMissingError, UnsupportedError
from wal.format import SEGMENT_HEADER
from wal.head import HeadFile, new_head
from wal.log import LSN, TailReport, WriteAheadLog
from wal.names import Names, segment_numbers
from wal.segment import SegmentHeader, first_log_crc
from wal.settings import TTL, Settings
from wal.storage.base import Kind, Lock, Storage

if TYPE_CHECKING:
    from wal.slot_log import SlotLog

_ID_BYTES = 16
SEGMENT_SIZE = 2**24  # bytes


def open_log(
    storage: Storage,
    folder: str = ".wal",
    *,
    create: bool = False,
    read_only: bool = False,
    recover: Callable[[WriteAheadLog], None] | None = None,
    lock_timeout: float = 60.0,
    segment_size: int = SEGMENT_SIZE,
    clock: Clock | None = None,
    kind: str | None = None,
    staleness: float = 0.0,
    ttl: float = TTL,
    done: int | None = None,
) -> WriteAheadLog:
    """Open the log in `folder` of `storage`.

    `kind`: "append" (segments, on a local filesystem) or "slots" (one object for each batch, where hosts share the
    storage); None: the kind that suits the storage. `create`: create the log if there is none. `read_only`: takes no
    lock, writes nothing, cannot create. `recover(log)` is called if no other writer is alive, before any other may
    write, for the consumer's replay; the log is usable inside.
    `lock_timeout`: seconds to wait for any lock, including other openers' recovery. `segment_size`: bytes; a larger
    batch gets a segment of its own size.
    For slots only, which never call `recover`: `staleness`, seconds for which a known end of the log may be reused;
    `ttl`, seconds without a sign of life until a committer is overtaken; `done`, up to where no records are needed.

    Raises LogMissingError, LogCorruptionError, LogFormatError, LockBusyError, UnsupportedError, OSError.
    """
    if segment_size < 2 * SEGMENT_HEADER:
        raise ValueError(f"a segment has at least {2 * SEGMENT_HEADER} bytes, not {segment_size}")
    settings = Settings(storage, folder, read_only, lock_timeout, clock or Clock(), segment_size, staleness, done, ttl)
    can = storage.capabilities
    if kind is None:
        kind = "append" if can.append_log else "slots"
    if kind == "slots":
        return _open_slots(settings, create=create)
    if kind != "append":
        raise LogFormatError(f"{storage.url}/{folder} is a log of the unknown kind {kind!r}: upgrade this program")
    if not read_only and not can.append_log:
        raise UnsupportedError(f"{storage.url} cannot hold an append log: {can.reason}")
    log_id = _find(settings)
    if log_id is None:
        if read_only or not create:
            raise LogMissingError(f"there is no log in {storage.url}/{folder}")
        log_id = _create(settings)
    if read_only:
        return AppendLog(settings, log_id, _enter_reader)
    return AppendLog(settings, log_id, lambda log: _enter_writer(log, recover))


def _open_slots(settings: Settings, *, create: bool) -> SlotLog:
    from wal.slot_log import SlotLog  # imported here: local logs do not need it

    can = settings.storage.capabilities
    if not settings.read_only and not (can.writable and can.slot_log):
        raise UnsupportedError(f"{settings.storage.url} cannot hold a log: {can.reason}")
    try:
        return SlotLog(settings)
    except LogMissingError:
        if settings.read_only or not create:
            raise
    SlotLog.make(settings)
    return SlotLog(settings)


def _find(settings: Settings) -> bytes | None:
    """The id of the existing log; None if there is none, or its creation was interrupted or is not finished yet.

    A log has a segment at all times, but a listing misses one that is created, or freed, while it is made. So the
    segments are lost only if they are missing again although nothing was committed or freed since.
    """
    storage, names = settings.storage, Names(settings.folder)
    with suppress(FileNotFoundError):  # the usual case needs no listing
        checkpoint = Checkpoint.decode(storage.read(names.checkpoint).data, names.checkpoint)
        segment = storage.entry(names.segment(checkpoint.segment or 1))
        if segment is not None and segment.kind is Kind.FILE:
            return bytes.fromhex(checkpoint.log)
    before: tuple[LSN, LSN] | None = None
    while True:
        try:
            numbers = segment_numbers(storage.list(names.folder))
        except FileNotFoundError:
            return None
        if not numbers and storage.entry(names.checkpoint) is None:
            return None
        checkpoint = read_checkpoint(storage, names)
        log_id = bytes.fromhex(checkpoint.log)
        if numbers:
            return log_id
        marks = checkpoint.redo, _acknowledged(storage, names, log_id)
        if not any(marks):
            return None
        if marks == before:
            raise LogCorruptionError("the log's segments are missing", file=names.segment(1))
        before = marks


def _acknowledged(storage: Storage, names: Names, log_id: bytes) -> LSN:
    """The last batch that the head file shows; 0 in an unfinished log, whose segment 1 is created last."""
    try:
        head = HeadFile(storage.open_file(names.head, writable=False))
    except FileNotFoundError:
        return 0
    try:
        return (head.durable() or 0) if head.belongs_to(log_id) else 0
    finally:
        head.close()


def _create(settings: Settings) -> bytes:
    """Create the log, or finish one whose creator died. Segment 1 comes last: its rename makes the log exist."""
    storage, names = settings.storage, Names(settings.folder)
    storage.make_folder(names.folder)
    right = make_right(settings, names.folder, "the right to append")
    try:
        with right:
            log_id = _find(settings)
            if log_id is not None:  # another opener has created it
                return log_id
            log_id = settings.clock.token(_ID_BYTES)
            header = SegmentHeader(log_id, 1, 1, first_log_crc(log_id))
            for name, content in (
                (names.checkpoint, Checkpoint(log_id.hex(), 0).encode()),
                (names.head, new_head(log_id)),
                (names.segment(1), header.encode()),
            ):
                storage.publish(name, content, b"", durable=True)
                storage.sync_folder(names.folder)
            return log_id
    finally:
        right.close()


def _enter_reader(log: AppendLog) -> TailReport:
    try:
        head = HeadFile(log.settings.storage.open_file(log.names.head, writable=False))
    except FileNotFoundError:
        head = None
    if head is not None and not head.belongs_to(log.log_id):
        head.close()
        head = None
    log.attach(head)
    durable = head.durable() if head is not None else None
    log.chain.locate()
    log.look(durable)
    if durable is not None:
        log.chain.reach(durable)
    return TailReport(len(log.chain.stray()), (), 0)


def _enter_writer(log: AppendLog, recover: Callable[[WriteAheadLog], None] | None) -> TailReport:
    """One opener at a time. If no writer is alive, it is the first and recovers; otherwise it can trust the marks.

    This needs the lock around everything: an opener that only waited for the first one to release `alive` could not
    tell whether that one had finished or died, and might build on files that nobody has recovered.
    """
    opening = make_right(log.settings, log.names.opening, "the right to open the log")
    try:
        with opening:
            log.alive = alive = log.settings.storage.lock(log.names.alive)
            if not alive.acquire(timeout=0):
                _come_alive(log, alive)
                return _enter_later(log)
            report = log.report(_enter_first(log))
            if recover is not None:
                recover(log)
            alive.release()
            _come_alive(log, alive)
            return report
    finally:
        opening.close()


def _come_alive(log: AppendLog, alive: Lock) -> None:
    limit = log.settings.lock_timeout
    if not alive.acquire(shared=True, timeout=limit):
        where = f"{log.settings.storage.url}/{log.names.alive}"
        raise LockBusyError(f"{where} was not free within {limit} s, held by {alive.holder()}")


def _enter_first(log: AppendLog) -> TailReport:
    storage, name = log.settings.storage, log.names.head
    with log.append_right:
        try:
            head = HeadFile(storage.open_file(name, writable=True))
        except FileNotFoundError:  # no living process can have the lost one open
            storage.publish(name, new_head(log.log_id), b"", durable=True)
            head = HeadFile(storage.open_file(name, writable=True))
        log.attach(head)
        log.chain.locate()
        durable = head.durable() if head.belongs_to(log.log_id) else None
        report = log.writer.settle(durable)
        head.rebuild(log.log_id, log.chain.tail.lsn, log.chain.checkpoint.redo)
    return report


def _enter_later(log: AppendLog) -> TailReport:
    head = HeadFile(log.settings.storage.open_file(log.names.head, writable=True))
    log.attach(head)
    if not head.belongs_to(log.log_id):
        why = "the head file is damaged or of another log, while others use it: close them, then open it again"
        raise LogCorruptionError(why, file=log.names.head)
    log.chain.locate()
    state = head.state()
    if state is not None and state[0] == state[1]:
        log.chain.reach(state[0])
        return TailReport(0, (), 0)
    # An append is in progress or was interrupted. Settle it: a caller that reopens after InDoubtError needs a decision.
    with log.append_right:
        return log.writer.catch_up()
