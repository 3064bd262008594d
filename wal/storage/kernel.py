"""Parses the Linux kernel's tables of mounts, locks and processes."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import NamedTuple

from wal.storage.base import Capabilities, Fence
from wal.storage.files import keeps_attributes
from wal.storage.posix import Posix

# Filesystems on which flock, fdatasync and rename have been observed to work between all processes that can access the
# files. Any other (NFS, Lustre, FUSE, 9p, ...) may be shared with a host that sees other locks.
LOCAL_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "apfs", "tmpfs", "overlay"})


class Mount(NamedTuple):
    """The mount that holds a path."""

    point: str  # where it is mounted
    type: str  # "ext4", "nfs4", "fuse.sshfs", ...
    read_only: bool


def find_mount(table: bytes, path: str) -> Mount | None:
    """The mount of `path` (absolute, without links) in the text of /proc/self/mountinfo."""
    found: Mount | None = None
    for line in os.fsdecode(table).splitlines():
        left, separator, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(more) < 3:
            continue
        point = fields[4]
        if "\\" in point:
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point)
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of mounts at the same point the later line counts, since it hides the earlier one.
        if inside and (found is None or len(point) >= len(found.point)):
            read_only = "ro" in fields[5].split(",") or "ro" in more[2].split(",")
            found = Mount(point, more[0], read_only)
    return found


def lock_holders(table: bytes, status: os.stat_result) -> list[int]:
    """Process ids that /proc/locks names for flocks on a file, in its order."""
    exact: list[int] = []
    similar: list[int] = []  # btrfs and overlay show another device there than stat does
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in table.decode("ascii", "replace").splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[4].lstrip("-").isdigit():
            continue  # a line with "->" is a waiter
        where, _, inode = fields[5].rpartition(":")
        if inode == str(status.st_ino):
            (exact if where == device else similar).append(int(fields[4]))
    return exact or similar


def describe_holders(posix: Posix, path: str) -> str:
    """Who holds a flock on `path`, for a message. Never raises: it is called while an error is being reported."""
    host = f"on host {posix.host()}"
    try:
        pids = lock_holders(posix.kernel_file("/proc/locks"), posix.lstat(path))
    except OSError:
        return f"an unknown process {host}"
    named = [_describe_process(posix, pid) for pid in dict.fromkeys(pids) if pid > 0]
    if not named:
        return f"no process that is visible {host}"
    return f"{'; '.join(named[:3])}{' and others' if len(named) > 3 else ''}, {host}"


def _describe_process(posix: Posix, pid: int) -> str:
    name = f"this process ({pid})" if pid == os.getpid() else f"process {pid}"
    try:
        words = posix.kernel_file(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
        # The command's name in parentheses may contain parentheses and spaces: fields are counted from the last one.
        fields = posix.kernel_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        up = float(posix.kernel_file("/proc/uptime").split()[0])
        age = max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return f"{name} (gone; a child of it may still hold the lock)"
    stopped = ", stopped" if fields[0] in (b"T", b"t") else ""
    # Only the program and its first argument: more could show a secret, or fill the screen.
    text = " ".join(word.decode("utf-8", "replace")[:80] for word in words[:2])
    text = "".join(char if char.isprintable() else " " for char in text)
    return f"{name} ({text}), running for {age:.0f} s{stopped}"


def capabilities(posix: Posix, root: str, fd: int) -> Capabilities:
    """What the filesystem of `root`, open as `fd`, guarantees to this user."""
    mount = _mount(posix, root)
    writable = posix.writable(root) and not mount.read_only
    append_log = mount.type in LOCAL_FILESYSTEMS
    reasons = []
    if not append_log:
        known = f"{mount.point} is of type {mount.type}" if mount.type else "the filesystem's type is unknown"
        reasons.append(f"{known}, on which locks are not known to exclude every other writer")
    if not writable:
        reasons.append(f"{mount.point} is mounted read-only" if mount.read_only else "this user may not write here")
    return Capabilities(
        writable=writable,
        append_log=append_log,
        attributes=keeps_attributes(posix, fd),
        reason="; ".join(reasons),
        slot_log=True,
        fence=Fence.LOCK if append_log else Fence.FOLDER,
        needs_sync=True,
        filesystem=mount.type,
    )


def _mount(posix: Posix, root: str) -> Mount:
    if sys.platform == "darwin":  # pragma: no cover  no table to read; the disks of a Mac are apfs
        return Mount("/", "apfs", read_only=False)
    with suppress(OSError):
        found = find_mount(posix.kernel_file("/proc/self/mountinfo"), posix.realpath(root))
        if found is not None:
            return found
    return Mount("", "", read_only=False)
