"""The interface to bytes: what a log and the tree above it need from a storage.

Names are relative to the storage's root, use `/`, and hold no empty, `.` or `..` segment. A storage never
reaches outside its root: a symbolic link, another mount or a special file on the way is `UnsafePathError`.

Every method states when its effect is *atomic* (seen whole or not at all by any other process) and when it is
*durable* (survives power loss). What is not stated to be durable becomes so by `sync`.
Absence is `FileNotFoundError` or `None`/`False` as stated, never inferred from another error.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol

from wal.errors import CutShortError


class UnsafePathError(OSError):
    """A name leads through a symbolic link, another mount or a special file; it was not followed."""


class ChangedError(OSError):
    """A file is not, or no longer, of the expected version; nothing was changed. Only with `Fence.VERSION`."""


class Kind(enum.Enum):
    """What a name refers to."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"  # symbolic link, FIFO, socket, device: never opened, never followed


class Entry(NamedTuple):
    """One name in a folder."""

    name: str  # the last segment only
    kind: Kind
    size: int  # bytes; 0 for folders


class Fence(enum.Enum):
    """What prevents a committer that was paused and overtaken from changing anything when it resumes."""

    LOCK = "lock"  # a lock of the operating system, which nobody else gets while its holder lives
    VERSION = "version"  # each publish or removal names the version that it replaces
    FOLDER = "folder"  # each publish is a rename out of the holder's own folder, which a successor moves away


class Stored(NamedTuple):
    """A small file, read whole."""

    data: bytes
    attribute: bytes | None  # what the engine attached when it published the file; None = unknown
    version: str = ""  # for `publish(expect=...)`; "" unless `Fence.VERSION`


class Staged(NamedTuple):
    """Content that is already stored durably on this storage under `name`."""

    name: str
    size: int | None = None  # what it must have, if known
    anew: bool = False  # published as a copy, not as a link, which changes nothing if the name is that file already

    def check(self, size: int) -> None:
        """Raise CutShortError if what the storage has under this name is of another size."""
        if self.size not in (None, size):
            raise CutShortError(errno.EIO, f"the staged content has {size} bytes instead of {self.size}", self.name)


Content = bytes | Staged


class Publication(NamedTuple):
    """A file to be created by `publish_folder`."""

    name: str  # full name, below the storage's root
    content: Content
    attribute: bytes  # attached to the file as its attribute


class Capabilities(NamedTuple):
    """What a storage guarantees; tested by the conformance suite."""

    writable: bool
    append_log: bool  # random writes, fdatasync and locks that exclude every other writer
    attributes: bool  # files can carry the engine's attribute
    reason: str = ""  # why something is missing, for error messages
    slot_log: bool = False  # `create` is exclusive among all writers of all hosts, and durable when it returns
    fence: Fence = Fence.LOCK  # of the committer's right
    folders: bool = True  # folders are real: they may be empty, and are published and set aside atomically
    needs_sync: bool = False  # what is published or set aside is durable only after `sync`
    filesystem: str = ""  # its type, for people: "ext4", "nfs4", "s3", "webhdfs", …; "" = unknown


class Condition(NamedTuple):
    """A kind of conditional write that a store with `Fence.VERSION` must refuse if its condition does not hold."""

    name: str  # one word, for programs
    guarantee: str  # what is not guaranteed if it is accepted
    request: str  # the request and its header


class RandomFile(Protocol):
    """An open file of the append log."""

    def size(self) -> int:
        """Length in bytes."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` (short writes are continued). Not durable, not atomic."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, which frees the space of the rest. Not durable."""

    def datasync(self) -> None:
        """Make content and length durable. After an error the content is unknown: do not retry."""

    def close(self) -> None: ...


class Lock(Protocol):
    """A lock that its holder's death releases. Excludes other processes and other `Lock` objects alike."""

    def acquire(self, *, shared: bool = False, timeout: float | None = None) -> bool:
        """Take the lock, waiting up to `timeout` seconds (None: for ever, 0: not at all); False if not free in time."""

    def release(self) -> None:
        """Release it; releasing a lock that is not held does nothing."""

    def holder(self) -> str:
        """Who holds it, for an error message ('process 123 (python x.py), running for 8 s, on host h')."""

    def disown(self) -> None:
        """In a forked child: forget the inherited lock without releasing the parent's."""

    def close(self) -> None: ...


class StagedFile(Protocol):
    """A new file being written under its own name in the staging area; not visible to the tree."""

    def write(self, data: bytes | memoryview) -> None: ...

    def finish(self, attribute: bytes) -> None:
        """Attach `attribute`, make the content durable and close. Its folder's entry needs `sync_folder`. Raises
        FileExistsError if `stage` could not. With `Fence.VERSION`, a large file may remain without the attribute."""

    def abandon(self) -> None:
        """Close and remove what was written; never raises for a file that is already gone."""

    def __enter__(self) -> StagedFile: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abandon unless finished."""


class Storage(Protocol):
    """A root and everything below it."""

    @property
    def url(self) -> str:
        """The root's URL for messages (a plain path for local roots), without secrets."""

    @property
    def capabilities(self) -> Capabilities: ...

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Stored:
        """A whole file and its attribute, both of one version. Raises FileNotFoundError, IsADirectoryError."""

    def open(self, name: str) -> BinaryIO:
        """A file for sequential or random reading. After a replacement it still reads the old version, or raises
        ChangedError (`Fence.VERSION`). The object may have `.attribute`, which saves a call of `attribute`."""

    def attribute(self, name: str) -> bytes | None:
        """A file's or folder's attribute; None if it has none or the storage keeps none. Raises FileNotFoundError."""

    def list(self, folder: str) -> list[Entry]:
        """The entries of a folder ("" is the root), in no order. Raises FileNotFoundError, NotADirectoryError."""

    def entry(self, name: str) -> Entry | None:
        """What `name` refers to now; None if nothing. A link is reported as OTHER, not followed."""

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, name: str, data: bytes) -> bool:
        """Put if absent: atomic, durable, exclusive among all writers. False if the name exists. Missing parent
        folders are created."""

    def publish(
        self, name: str, content: Content, attribute: bytes, *, durable: bool, expect: str | None = None
    ) -> str:
        """Create or replace a file, atomic. `durable`: its content is made durable first, so that no power loss
        leaves an empty file. Missing parent folders are created. Staged content stays where it is.

        With `Fence.VERSION`: `expect` is the version to be replaced, "" for none (the file must be absent), None for
        any; raises ChangedError, with nothing done, if it is another. Returns the new version. Other storages ignore
        `expect` and return ""."""

    def publish_folder(self, name: str, files: Sequence[Publication]) -> bool:
        """Create the folder `name` with all `files` (their names begin with `name/`, sub-folders allowed), atomic.
        Not durable before `sync`. False, and nothing done, if `name` exists."""

    def set_aside(self, name: str, aside: str) -> str | None:
        """Rename a file or folder to `aside` (missing parents are created), atomic; if that exists, a number is added.
        Returns the new name, or None if `name` does not exist."""

    def make_folder(self, name: str, attribute: bytes | None = None) -> None:
        """Create a folder and its parents; no error if it exists."""

    def stage(self, name: str) -> StagedFile:
        """A new file in the staging area, with missing parents (exclusive: FileExistsError, here or from `finish`)."""

    def stage_existing(self, source: str, name: str, *, share: bool) -> None:
        """Stage the content of the published file `source` under `name`, durable except for the folder's entry.
        `share=True`: both names may share one file (for a move, which removes the source)."""

    def sync_folder(self, name: str) -> None:
        """Make the entries of a folder, and those of its parents up to the root, durable."""

    def sync(self, touched: Iterable[str]) -> None:
        """Make everything durable that any process has published or set aside since this storage was opened.
        `touched` names all of it, for storages that must sync one by one. After an OSError nothing is known."""

    def erase(self, name: str) -> None:
        """Delete a file or a whole folder (links are removed, never followed); no error if absent. Not atomic."""

    # --- for committers on several hosts -------------------------------------------------------------------------

    def versions(self, name: str) -> dict[str, str]:
        """`Fence.VERSION`: the file `name`, if it exists, and every file below it, each with its version."""

    def remove(self, name: str, expect: str) -> None:
        """`Fence.VERSION`: delete the file `name` if it is of this version; no error if it is absent. Raises
        ChangedError."""

    def fenced(self, folder: str) -> Storage:
        """`Fence.FOLDER`: a view of this storage with its temporary files in `folder`, which must exist and is never
        created. Once that is retired, every `publish`, `publish_folder` and `set_aside` through the view raises
        FileNotFoundError or NotADirectoryError and changes nothing. It shares handles: closing it does nothing."""

    def retire(self, folder: str, aside: str) -> None:
        """`Fence.FOLDER`: take the folder of a `fenced` view away from its holder for good, by name and by every open
        handle, so that no operation in progress through it takes effect. Its content is moved to the folder `aside`.
        Completes an earlier call that was interrupted."""

    # --- for the append log (capabilities.append_log) --------------------------------------------------------------

    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        """Open an existing file. Raises FileNotFoundError."""

    def lock(self, name: str) -> Lock:
        """A lock on the folder `name`, or on the file `name` (created empty if absent)."""

    def reset_after_fork(self) -> None:
        """In a forked child: renew what it must not share with its parent."""

    def close(self) -> None:
        """Release every handle."""
