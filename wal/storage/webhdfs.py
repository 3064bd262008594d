"""A folder on HDFS as `Storage`, accessed through WebHDFS.

Guarantees beyond those of `base`, observed on HDFS 3.3.6:

- Every new file is created in the scratch folder and renamed into place; nobody sees a part of it. A rename is atomic,
  ordered and in the NameNode's journal when it is acknowledged, so `sync` does nothing.
- `create` is a rename that refuses an existing name: one winner among all hosts. Its result is correct even if the
  reply was lost (see `webhdfs_scratch`).
- A read is of one file of one identity: `read` returns content and attribute of the same file, and `open` never
  continues with the content of another.
- The fence holds for every operation of a view except `stage`: once its folder was moved away, each raises and changes
  nothing, including `create`, `make_folder` and `erase`. Setting the attribute of a folder that exists is only checked
  beforehand, see `webhdfs_scratch.Scratch._mark`.

Not guaranteed:

- Power loss: acknowledged names and attributes are in the NameNode's journal, acknowledged content was fsynced by the
  data nodes (SYNC_BLOCK, which Hadoop before 2.8 does not know). No power loss was tested.
- HDFS has no compare-and-set: `publish` replaces whatever is there, and the last one wins.
- An `open` file that is replaced or removed can be read to the end only if it has one chunk; else it raises OSError.
- HDFS has no links: staged content is copied through this process. There are no locks and no random writes.
- After a TimeoutError or ConnectionError, `set_aside`, `make_folder` or `erase` may still take effect. `create`,
  `publish` and `publish_folder` find out before they raise, or report "unknown".
- Permissions are HDFS's. A NameNode that is a standby or in safe mode is reported as an error; there is no failover.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.storage.base import (
    Capabilities,
    Content,
    Fence,
    Kind,
    Lock,
    Publication,
    RandomFile,
    Staged,
    StagedFile,
)
from wal.storage.webhdfs_client import Client
from wal.storage.webhdfs_reading import HdfsReading
from wal.storage.webhdfs_scratch import Scratch
from wal.storage.webhdfs_staging import HdfsStagedFile
from wal.storage.webhdfs_url import Address, below, check_name, parse

_RANDOM = "files on HDFS cannot be locked, nor written in place as an append log needs"


class WebHdfsStorage(HdfsReading):
    """`Storage` over an existing folder of HDFS."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        scratch: str = ".wal/tmp",
        clock: Clock | None = None,
    ) -> None:
        """`url` and `options` as `webhdfs_url.parse` takes them. Three requests, which change nothing.

        Raises FileNotFoundError, NotADirectoryError, UnsupportedError (a router or gateway that lacks access by file
        number or the options of RENAME), and what `parse` raises.
        """
        clock = clock or Clock()
        client = Client(address := parse(url, options or {}))
        try:
            attributes = _examine(client, address, clock)
        except BaseException:
            client.close()
            raise
        super().__init__(client, address, attributes=attributes)
        self._capabilities = Capabilities(
            writable=True,
            append_log=False,
            attributes=attributes,
            reason=_RANDOM,
            slot_log=True,
            fence=Fence.FOLDER,
            filesystem="webhdfs",
        )
        self._fenced = False
        self._scratch = Scratch(client, address, clock, scratch, attributes=attributes)

    @staticmethod
    def make_root(url: str, options: Mapping[str, Any] | None = None) -> None:
        """Create the root folder and its parents; no error if it exists."""
        client = Client(address := parse(url, options or {}))
        try:
            client.make_folder(address.path)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, "not a folder on HDFS", address.url) from error
        finally:
            client.close()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def requests(self) -> int:
        """HTTP requests sent so far."""
        return self._client.requests

    def written_at(self, name: str) -> float | None:
        """See `wal.storage.written_at`."""
        return self._client.written_at(self._path(name))

    def _place(self, name: str) -> str:
        if not name:
            raise ValueError("the root itself cannot be written, moved or erased")
        return self._path(name)

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, name: str, data: bytes) -> bool:
        path = self._place(name)
        return self._scratch.place(self._scratch.write(data, None), path, replace=False)

    def publish(
        self, name: str, content: Content, attribute: bytes, *, durable: bool, expect: str | None = None
    ) -> str:
        path = self._place(name)
        self._scratch.place(self._scratch.write(content, attribute), path, replace=True)
        return ""

    def publish_folder(self, name: str, files: Sequence[Publication]) -> bool:
        path = self._place(name)
        relative = [(below(name, file.name), file) for file in files]
        if self._client.status(path) is not None:  # the rename would find out too, but only after copying
            return False
        return self._scratch.place(self._scratch.build(relative), path, replace=False)

    def set_aside(self, name: str, aside: str) -> str | None:
        path, target = self._place(name), self._place(aside)
        status = self._client.status(path)
        if status is None:
            return None
        if self._fenced:  # through the fence first: the second rename touches no name of the tree
            taken = self._scratch.take(path, status)
            if taken is None:
                return None
            path = taken.path
        ending = self._scratch.move_aside(path, target, status)
        if ending is None and self._fenced:
            raise FileNotFoundError(errno.ENOENT, "it was moved away together with the fence", path)
        return None if ending is None else aside + ending

    def make_folder(self, name: str, attribute: bytes | None = None) -> None:
        path = self._path(name)
        self._scratch.make_folder(path, attribute)

    def stage(self, name: str) -> StagedFile:
        """See `Storage.stage`. The name is checked now and taken with the first chunk, so a second writer of the same
        name may get FileExistsError only then."""
        path = self._place(name)
        if self._client.status(path) is not None:
            raise FileExistsError(errno.EEXIST, "the name is taken", path)
        return HdfsStagedFile(self._client, path, attributes=self._attributes)

    def stage_existing(self, source: str, name: str, *, share: bool) -> None:
        """See `Storage.stage_existing`. Always a copy, since HDFS has no links."""
        path = self._place(name)
        status, _ = self._file(source)
        attribute = self._client.attribute(status.path) if self._attributes else None
        if self._client.status(path) is not None:  # as in publish_folder
            raise FileExistsError(errno.EEXIST, "the name is taken", path)
        if not self._scratch.place(self._scratch.write(Staged(source), attribute), path, replace=False):
            raise FileExistsError(errno.EEXIST, "the name is taken", path)

    def sync_folder(self, name: str) -> None:
        """Only checks that the folder exists: entries are durable when they are acknowledged."""
        path = self._path(name)
        status = self._client.status(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        if status.kind is not Kind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "is a file", path)

    def sync(self, touched: Iterable[str]) -> None:
        """Does nothing: see the module's docstring for what an acknowledgement means."""

    def erase(self, name: str) -> None:
        path = self._place(name)
        if self._fenced:
            status = self._client.status(path)
            taken = None if status is None else self._scratch.take(path, status)
            if taken is None:
                return
            path = taken.path
        try:
            done = self._client.delete(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if not done and self._client.status(path) is not None:
            raise OSError(errno.EIO, "HDFS did not delete it, and does not say why", path)

    # --- for committers on several hosts ---------------------------------------------------------------------------

    def versions(self, name: str) -> dict[str, str]:
        raise UnsupportedError(f"{self.url} has folders, not versions")

    def remove(self, name: str, expect: str) -> None:
        raise UnsupportedError(f"{self.url} has folders, not versions")

    def fenced(self, folder: str) -> WebHdfsStorage:
        """See `Storage.fenced`, and `webhdfs_scratch.Scratch` for why the folder is never made again."""
        check_name(folder)
        view = copy.copy(self)
        view._scratch = self._scratch.fenced(folder)
        view._fenced = True
        return view

    def retire(self, folder: str, aside: str) -> None:
        """See `Storage.retire`. A rename is enough, since HDFS has no handles on folders."""
        self.set_aside(folder, aside)

    # --- for the append log ----------------------------------------------------------------------------------------

    def open_file(self, name: str, *, writable: bool) -> RandomFile:
        raise UnsupportedError(f"{self.url}: {_RANDOM}")

    def lock(self, name: str) -> Lock:
        raise UnsupportedError(f"{self.url}: {_RANDOM}")

    def reset_after_fork(self) -> None:
        """Does nothing: connections are made anew where the process is another."""

    def close(self) -> None:
        if not self._fenced:
            self._client.close()


def _examine(client: Client, address: Address, clock: Clock) -> bool:
    """Whether the root keeps attributes. Raises as the constructor does."""
    root = client.status(address.path)
    if root is None:
        raise FileNotFoundError(errno.ENOENT, "no such folder on HDFS", address.url)
    if root.kind is not Kind.FOLDER:
        raise NotADirectoryError(errno.ENOTDIR, "not a folder on HDFS", address.url)
    if not client.knows_rename_options(address.join(clock.token(12).hex())):
        raise UnsupportedError(
            f"{address.url}: RENAME ignores its options here: name the NameNode itself, not a gateway"
        )
    try:
        return client.keeps_attributes(root.path)
    except (FileNotFoundError, PermissionError) as error:
        raise UnsupportedError(
            f"{address.url}: files cannot be reached by their number (/.reserved/.inodes): name the NameNode as host"
        ) from error
