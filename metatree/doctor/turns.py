"""What each thread of the contenders does in a race; see `contenders.Turn`."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import wal

FILES = ("metadata.json", "weights", "parts/1", "parts/2")  # of a folder that is published whole
_LOCK_WAIT = 60.0  # seconds


def content(stamp: str, size: int = 4096) -> bytes:
    """Content that repeats a stamp, so that a mixture with other content is detected."""
    text = f"<{stamp}>".encode()
    return (text * (size // len(text) + 1))[:size]


def is_whole(data: bytes, size: int) -> bool:
    """Whether `data` is the whole of one `content`."""
    stamp = data[1:].partition(b">")[0].decode("latin-1")
    return data == content(stamp, size)


# --- put-if-absent, compare-and-set -----------------------------------------------------------------------------------


def create(storage: wal.Storage, who: str, name: str) -> str:
    """`who` if this thread created the file, else ""."""
    return who if storage.create(name, content(who)) else ""


def publish_folder(storage: wal.Storage, who: str, name: str) -> str:
    """`who` if this thread created the folder, else ""."""
    files = [wal.Publication(f"{name}/{file}", content(who), b"") for file in FILES]
    return who if storage.publish_folder(name, files) else ""


def count_with_versions(storage: wal.Storage, who: str, name: str, attempts: int, seconds: float) -> list[int]:
    """Try to add 1 to the number in a file, `attempts` times or for `seconds`; returns the numbers written."""
    clock = wal.Clock()
    deadline = clock.monotonic() + seconds
    written = []
    for attempt in range(attempts):
        stored = storage.read(name)
        number = int(stored.data.split()[0]) + 1
        try:
            text = f"{number} by {who} at {attempt}".encode()  # equal content would have an equal version
            storage.publish(name, text, b"", durable=True, expect=stored.version)
        except wal.ChangedError:
            continue
        else:
            written.append(number)
        finally:
            late = clock.monotonic() > deadline
        if late:
            break
    return written


# --- locks ------------------------------------------------------------------------------------------------------------


def count_with_lock(storage: wal.Storage, who: str, name: str, lock_name: str, times: int) -> int:
    """Add 1 to the number in a file `times` times, slowly, under the lock; returns `times`."""
    lock, clock = storage.lock(lock_name), wal.Clock()
    try:
        for _ in range(times):
            if not lock.acquire(timeout=_LOCK_WAIT):
                raise TimeoutError(f"the lock was not free within {_LOCK_WAIT:.0f} s")
            try:
                _add_one(storage, name, clock)
            finally:
                lock.release()
    finally:
        lock.close()
    return times


def _add_one(storage: wal.Storage, name: str, clock: wal.Clock) -> None:
    file = storage.open_file(name, writable=True)
    try:
        number = int(file.pread(16, 0))
        clock.sleep(0.001)  # time for another, if the lock lets one in
        file.pwrite(b"%016d" % (number + 1), 0)
        file.datasync()
    finally:
        file.close()


def die_with_lock(storage: wal.Storage, who: str, lock_name: str, sign: str) -> None:
    """Take a lock, create the file `sign`, and die as by `kill -9`."""
    if storage.lock(lock_name).acquire(timeout=0):
        storage.create(sign, b"held")
        os.kill(os.getpid(), signal.SIGKILL)
    wal.Clock().sleep(_LOCK_WAIT)  # the other thread, which did not get it


# --- watching ---------------------------------------------------------------------------------------------------------


def look(storage: wal.Storage, who: str, folder: str, names: list[str]) -> dict[str, Any]:
    """How many of these files are seen: in the list of their folder, by name, and by reading them."""
    listed = {entry.name for entry in storage.list(folder)}
    seen = {"listed": 0, "found": 0, "read": 0, "strange": len(listed - set(names))}
    for name in names:
        seen["listed"] += name in listed
        seen["found"] += storage.entry(f"{folder}/{name}") is not None
        try:
            seen["read"] += storage.read(f"{folder}/{name}").data == content(name)
        except FileNotFoundError:
            continue
    return seen


def watch_file(storage: wal.Storage, who: str, name: str, size: int, times: int, seconds: float) -> Counter[str]:
    """Read a file that is replaced in a loop; counts reads that were whole, torn, missing, or with another version's
    attribute."""
    clock = wal.Clock()
    deadline = clock.monotonic() + seconds
    seen: Counter[str] = Counter()
    for _ in range(times):
        try:
            stored = storage.read(name)
        except FileNotFoundError:
            seen["missing"] += 1
            continue
        if not is_whole(stored.data, size):
            seen["torn"] += 1
        elif stored.attribute is not None and stored.attribute != stored.data[:16]:
            seen["mixed"] += 1
        else:
            seen["whole"] += 1
        if clock.monotonic() > deadline:
            break
    return seen


def watch_folder(storage: wal.Storage, who: str, name: str, seconds: float) -> str:
    """Wait for a folder; returns "whole" if all its files are there as soon as it is, else what is missing."""
    clock = wal.Clock()
    deadline = clock.monotonic() + seconds
    while storage.entry(name) is None:
        if clock.monotonic() > deadline:
            return f"{name} did not appear within {seconds:.0f} s"
        clock.sleep(0)
    for file in FILES:
        try:
            if not is_whole(storage.read(f"{name}/{file}").data, 4096):
                return f"{file} was not whole"
        except FileNotFoundError:
            return f"{file} was missing"
    return "whole"


def publish_until_fenced(storage: wal.Storage, who: str, fence: str, name: str, seconds: float) -> int | None:
    """Act as a committer that does not know it was overtaken: publish until that fails. Returns how often it
    succeeded; None: it never failed."""
    clock = wal.Clock()
    deadline = clock.monotonic() + seconds
    view, done = storage.fenced(fence), 0
    while clock.monotonic() < deadline:
        try:
            view.publish(name, content(f"{who} {done}"), b"", durable=False)
        except (FileNotFoundError, NotADirectoryError):
            return done
        done += 1
    return None
