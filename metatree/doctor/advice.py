"""The guarantees that are tested, their consequences for a tree, and notes on what a test cannot see."""

from __future__ import annotations

import errno
from dataclasses import replace

import wal
from metatree.errors import shortage

from .findings import Check

_S3 = "use a server that honours conditional requests (AWS S3, SeaweedFS 4.48 or later)"

READING = Check(
    "reading", "the folder can be read", "nothing can be done here: check the URL, the network and the permissions"
)
SCRATCH = Check(
    "writing",
    "a new folder can be made and written",
    "give this user permission to write here, or open the tree with read_only=True",
)
ABSENT = Check(
    "put-if-absent",
    "of several writers of one new name, exactly one wins",
    f"two commits would get the same number, and one would be lost: write nothing here; for a bucket, {_S3}",
)
CONDITIONS = Check(
    "conditions",
    "a request whose condition does not hold is refused",
    f"writers would overwrite each other unnoticed: write nothing here; {_S3}",
)
VERSIONS = Check(
    "compare-and-set",
    "of several writers that replace the same version, one wins",
    f"a committer that was overtaken would overwrite its successor's files: write nothing here; {_S3}",
)
FOLDER_ONCE = Check(
    "folder-put-if-absent",
    "of several folders published under one name, exactly one wins, whole",
    "nodes could appear in part, and two committers could hold the right at once: write nothing here",
)
FENCE = Check(
    "fence",
    "a committer whose working folder was moved away can do nothing more",
    "a committer that was paused would continue to write beside its successor: write nothing here",
)
FRESH = Check(
    "read-after-write",
    "what was written or removed is seen at once by other processes, in lists too",
    "readers would miss commits, and writers build on old ones: disable caches in between, or write nothing here",
)
REPLACED = Check(
    "replace-whole",
    "a reader of a file that is being replaced gets all of the old or all of the new one",
    "people and programs would read parts of files: write nothing here",
)
LOCKS = Check(
    "locks-exclude",
    "a lock keeps all other processes and threads out",
    "commits would overwrite each other: write nothing here; a filesystem may be mounted without locks",
)
LOCKS_FREED = Check(
    "locks-freed",
    "the lock of a killed process is free at once",
    "a killed program would stop all others until somebody finds its lock",
)
ATTRIBUTES = Check(
    "attributes",
    "files keep the engine's attribute",
    "trees work, but hand edits and damaged blobs are not noticed, and `list` misses some directory blobs",
    needed=False,
)


_S3_KEYS = "pass -o key=... and -o secret=..., or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"


def after(check: Check, error: Exception, filesystem: str) -> Check:
    """The check with the advice for the error in which it ended, where the error tells the cause."""
    if short := shortage(error):
        return replace(check, lost=f"{short}, then run this again")
    if check is not READING or not isinstance(error, OSError):
        return check
    if error.errno == errno.ENXIO:
        return replace(check, lost="create the bucket, or correct its name in the URL")
    if isinstance(error, PermissionError) and filesystem != "s3":
        return replace(check, lost="give this user permission to read here")
    if isinstance(error, PermissionError):
        absent = "no usable credentials" in str(error)
        why = "there are no credentials" if absent else "the key, the secret or what they permit is wrong"
        return replace(check, lost=f"{why}: {_S3_KEYS}")
    if isinstance(error, (ConnectionError, TimeoutError)):
        return replace(check, lost="the server does not answer: check its address and port, the network, that it runs")
    return check


def condition(found: wal.Condition) -> Check:
    """The check of one kind of conditional request; a fence by versions relies on them."""
    return Check(
        f"condition-{found.name}",
        f"{found.guarantee} is honoured ({found.request})",
        CONDITIONS.lost,
    )


def notes(can: wal.Capabilities) -> list[str]:
    """What can go wrong although every test passed."""
    if can.fence is wal.Fence.VERSION:
        return [
            "lifecycle rules of the bucket must spare .wal/: an object that expires there is a lost commit",
            "races of a few writers were tried here; a server whose conditions are not atomic may pass by luck",
        ]
    if can.filesystem == "webhdfs":
        return ["each commit keeps one small file in .wal/, which costs the NameNode about 300 bytes of memory"]
    if can.filesystem == "tmpfs":
        return ["this is memory (tmpfs): everything is gone when the machine stops"]
    if can.append_log:
        return ["one machine: if this disk is also exported or mounted elsewhere, nobody may write it there"]
    if can.slot_log:
        return [
            "everything was tried from this host: run the same on a second host before both write",
            "NFS: a host may see a new commit of another one late, by up to acdirmax (60 s) unless the mount has "
            "lookupcache=positive",
        ]
    return []
