"""A disk for a filesystem to live on that notes every write and every flush: one file under FUSE, for a loop device.

    python tools/logging_disk.py IMAGE LOG MOUNTPOINT        # runs until MOUNTPOINT is unmounted; needs root

MOUNTPOINT then holds one file, `disk`, with the content of IMAGE, which is written through. LOG becomes a row of
entries `offset length` (two little-endian numbers of 8 bytes), each followed by so many bytes; a flush is an entry
whose offset is all ones. What was written before a flush is sure once it has returned; of what follows, a power cut may
leave any part. Where the log ends when the call of a program returns is what that program was promised.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = struct.Struct("<QQ")
FLUSH = (1 << 64) - 1
NAME = "disk"


@dataclass(frozen=True, slots=True)
class Entry:
    """A write, or (`data` is None) a flush."""

    end: int  # position in the log behind it
    offset: int
    data: bytes | None


def entries(log: str, start: int = 0) -> Iterator[Entry]:
    """What a log holds, from a position on."""
    data = memoryview(Path(log).read_bytes())
    position = start
    while position < len(data):
        offset, length = HEADER.unpack_from(data, position)
        position += HEADER.size + length
        content = None if offset == FLUSH else bytes(data[position - length : position])
        yield Entry(position, offset, content)


def serve(image: str, log: str, mountpoint: str) -> None:
    """Until it is unmounted."""
    import mfusepy  # needs libfuse when it is imported

    disk = os.open(image, os.O_RDWR)
    notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Disk(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path != f"/{NAME}":
                raise FileNotFoundError(2, "no such file")
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": os.fstat(disk).st_size}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", NAME]

        def open(self, path: str, flags: int) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(disk, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            os.write(notes, HEADER.pack(offset, len(data)) + data)
            return os.pwrite(disk, data, offset)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            os.write(notes, HEADER.pack(FLUSH, 0))
            return 0

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            return 0

    # one thread: the log has the order in which the kernel was answered; direct_io: nothing waits in the page cache
    mfusepy.FUSE(Disk(), mountpoint, foreground=True, nothreads=True, direct_io=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    serve(*sys.argv[1:])
