"""Real filesystems on loop devices, and what a power cut may leave of one whose writes were noted."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from logging_disk import NAME, Entry

MAKE: dict[str, tuple[int, tuple[str, ...]]] = {  # bytes of the disk, and the command
    "ext4": (24 << 20, ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4")),
    "xfs": (300 << 20, ("mkfs.xfs", "-q", "-f")),
    "btrfs": (112 << 20, ("mkfs.btrfs", "-q", "-f", "-m", "single")),
}
BLOCK = 4096  # a filesystem counts on its blocks to be written whole; btrfs has but one copy of a super block
_SET_FD, _CLEAR_FD, _GET_FREE = 0x4C00, 0x4C01, 0x4C82
_NOATIME = 1024
_libc = ctypes.CDLL(None, use_errno=True)


def make_image(kind: str, path: str) -> None:
    """A new filesystem in a sparse file."""
    size, command = MAKE[kind]
    with open(path, "wb") as file:
        file.truncate(size)
    subprocess.run([*command, path], check=True, capture_output=True)
    subprocess.run(["fallocate", "--dig-holes", path], check=True, capture_output=True)


def copy_sparse(source: str, target: str) -> None:
    """A copy without the holes."""
    from_fd, to_fd = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    size, position = os.fstat(from_fd).st_size, 0
    os.truncate(to_fd, size)
    while True:
        try:
            start = os.lseek(from_fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        position = os.lseek(from_fd, start, os.SEEK_HOLE)
        os.pwrite(to_fd, os.pread(from_fd, position - start, start), start)
    os.close(from_fd)
    os.close(to_fd)


@contextmanager
def mounted(kind: str, image: str, folder: str) -> Iterator[None]:
    """The filesystem in a file, mounted on a folder."""
    device, loop = _attach(image)
    try:
        _checked(_libc.mount(device.encode(), folder.encode(), kind.encode(), _NOATIME, None), f"mount of {image}")
        try:
            yield
        finally:
            _checked(_libc.umount2(folder.encode(), 0), f"unmount of {folder}")
    finally:
        fcntl.ioctl(loop, _CLEAR_FD, 0)
        os.close(loop)


def _attach(image: str) -> tuple[str, int]:
    backing = os.open(image, os.O_RDWR)
    try:
        with open("/dev/loop-control", "rb") as control:
            while True:
                device = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
                loop = os.open(device, os.O_RDWR)
                try:
                    fcntl.ioctl(loop, _SET_FD, backing)
                except OSError as error:
                    os.close(loop)
                    if error.errno != errno.EBUSY:  # another one was faster
                        raise
                    continue
                return device, loop
    finally:
        os.close(backing)


def _checked(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextmanager
def noted(image: str, log: str, folder: str) -> Iterator[str]:
    """The path of a file with the content of `image`, each write of which is noted in `log`."""
    tool = Path(__file__).resolve().parents[2] / "tools" / "logging_disk.py"
    server = subprocess.Popen([sys.executable, str(tool), image, log, folder])
    try:
        while not os.path.ismount(folder):
            if server.poll() is not None:
                raise OSError(f"no FUSE here: status {server.returncode}")
            time.sleep(0.01)
        yield f"{folder}/{NAME}"
    finally:
        if os.path.ismount(folder):
            while _libc.umount2(folder.encode(), 0):  # the loop device lets go of it a moment later
                time.sleep(0.01)
        server.wait()


def write(fd: int, written: Sequence[Entry]) -> None:
    for entry in written:
        if entry.data is not None:
            os.pwrite(fd, entry.data, entry.offset)


def content(written: Sequence[Entry]) -> tuple[tuple[tuple[int, int], bytes], ...]:
    """Equal only for what makes the same disk of one: the writes without those that others hide."""
    last: dict[tuple[int, int], bytes] = {}
    for entry in written:
        if entry.data is not None:
            last.pop(place := (entry.offset, len(entry.data)), None)
            last[place] = entry.data
    return tuple(last.items())


def cut(choose: random.Random, history: Sequence[Entry], upto: int) -> list[Entry]:
    """What is on the disk when the power fails before the write `upto`: all that was flushed; of the rest all, a
    part, in half of these cases with one write torn."""
    flushed = max((index for index in range(upto) if history[index].data is None), default=-1) + 1
    sure, rest = list(history[:flushed]), list(history[flushed:upto])
    kind = choose.randrange(3)
    if kind == 0 or not rest:
        return [*sure, *rest]
    if kind == 1:  # a prefix is what `upto` gives; here any subset
        rest = [entry for entry in rest if choose.random() < 0.5]
    if rest and choose.random() < 0.5:
        index = choose.randrange(len(rest))
        data = rest[index].data or b""
        blocks = choose.randrange(len(data) // BLOCK + 1)
        rest[index] = Entry(rest[index].end, rest[index].offset, data[: blocks * BLOCK])
    return [*sure, *rest]
