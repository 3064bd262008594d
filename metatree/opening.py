"""Opens a tree: depending on what is there, opens it, creates it, adopts it from metatreedb 0.2.3, or refuses."""

from __future__ import annotations

from typing import NamedTuple

import wal

from . import config, layout, marks, recovery
from .adoption import check_adoptable
from .clock import Clock
from .errors import CorruptionError, MetatreeError, ReadOnlyError, UnsupportedStorageError
from .root import refuse_inside_tree, tree_above


def parse_consistency(consistency: str | float) -> float:
    """The number of seconds by which a read may be out of date. Raises ValueError."""
    if consistency == "strong":
        return 0.0
    if isinstance(consistency, str) or not consistency >= 0:
        raise ValueError(f"consistency is 'strong' or a number of seconds, not {consistency!r}")
    return float(consistency)


class Opened(NamedTuple):
    """The parts of an opened tree."""

    levels: tuple[str, ...]
    log: wal.WriteAheadLog
    shared: bool  # hosts share the tree: its log is a slot log
    recovered: recovery.Recovered | None  # what was replayed, if this was the first opener of an append log


class Opening:
    """Opens one tree."""

    def __init__(
        self,
        storage: wal.Storage,
        clock: Clock,
        *,
        read_only: bool,
        lock_timeout: float,
        segment_size: int,
        staleness: float,
        ttl: float,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._read_only = read_only
        self._lock_timeout = lock_timeout
        self._segment_size = segment_size
        self._staleness = staleness
        self._ttl = ttl
        self._recovered: recovery.Recovered | None = None

    def open(self, keys: tuple[str, ...] | None) -> Opened:
        """Open, create or adopt the tree; `keys`: its levels, if the caller gave them. Raises the errors of
        `Metatree()`."""
        levels, log, kind = self._open(keys)
        return Opened(levels, log, kind == "slots", self._recovered)

    def _open(self, keys: tuple[str, ...] | None) -> tuple[tuple[str, ...], wal.WriteAheadLog, str]:
        found = config.read(self._storage)
        if found is None and not config.is_free(self._storage):
            found = config.read(self._storage)  # another process may have created the tree just now
            if found is None and self._read_only:
                raise MetatreeError(f"{self._storage.url} is not a tree: it has no {layout.CONFIG}{self._above()}")
            if found is None:
                raise MetatreeError(
                    f"{self._storage.url} is neither a tree nor empty: it has no {layout.CONFIG}; choose an empty or "
                    "new folder for a new tree"
                )
        if found is not None and found.log is not None:
            config.check_same_keys(keys, found, self._storage)
            return found.keys, self._open_log(found), found.log
        if self._read_only and found is None:
            raise MetatreeError(f"{self._storage.url} holds no tree{self._above()}")
        if self._read_only:
            url = self._storage.url
            raise ReadOnlyError(
                f"{url} is a tree of metatreedb 0.2.3; opening it for writing adopts it, which cannot be undone: stop "
                f"the programs that use it, copy it, then run: from metatree import Metatree; Metatree({url!r}).close()"
            )
        kind = "append" if self._storage.capabilities.append_log else "slots"
        self._require_writable(kind)
        levels, log = self._found(keys, kind) if found is None else self._adopt(keys, found, kind)
        return levels, log, kind

    def _above(self) -> str:
        """The end of a message: the tree that the folder lies inside, if any."""
        above = tree_above(self._storage.url)
        return "" if above is None else f"; it lies inside the tree {above}: name that folder"

    def _open_log(self, found: config.Config) -> wal.WriteAheadLog:
        kind = found.log or ""
        if not self._read_only:
            self._require_writable(kind)
            config.keep_tripwire(self._storage)
        log = self._log(kind, create=False)
        if log.id != found.log_id:
            log.close()
            raise CorruptionError(
                f"the log in {self._storage.url}/{layout.LOG} belongs to another tree (log {log.id}, "
                f"{layout.CONFIG} says {found.log_id}): the folders of two trees were mixed; restore one of them whole"
            )
        return log

    def _found(self, keys: tuple[str, ...] | None, kind: str) -> tuple[tuple[str, ...], wal.WriteAheadLog]:
        if keys is None:
            raise MetatreeError(
                f"{self._storage.url} holds no tree yet; to create one, name its levels: keys=('model', …)"
            )
        refuse_inside_tree(self._storage.url)
        self._storage.make_folder(layout.LOG)
        log = self._log(kind, create=True)
        config.found(self._storage, keys, log.id, kind)
        return keys, log

    def _adopt(
        self, keys: tuple[str, ...] | None, found: config.Config, kind: str
    ) -> tuple[tuple[str, ...], wal.WriteAheadLog]:
        config.check_same_keys(keys, found, self._storage)
        refuse_inside_tree(self._storage.url)
        config.check_not_locked(self._storage)  # what it is writing may not be whole
        check_adoptable(self._storage, len(found.keys))
        config.set_tripwire(self._storage)
        self._storage.make_folder(layout.LOG)
        log = self._log(kind, create=True)
        config.adopt(self._storage, found.keys, log.id, kind)
        return found.keys, log

    def _log(self, kind: str, *, create: bool) -> wal.WriteAheadLog:
        def recover(log: wal.WriteAheadLog) -> None:
            self._recovered = recovery.recover(self._storage, log, self._clock)

        return wal.open_log(
            self._storage,
            layout.LOG,
            create=create,
            read_only=self._read_only,
            recover=None if self._read_only else recover,
            lock_timeout=self._lock_timeout,
            clock=self._clock,
            kind=kind,
            segment_size=self._segment_size,
            staleness=self._staleness,
            ttl=self._ttl,
            done=marks.APPLIED,
        )

    def _require_writable(self, kind: str) -> None:
        can = self._storage.capabilities
        if not can.writable:
            raise ReadOnlyError(f"{self._storage.url} cannot be written ({can.reason}); open it with read_only=True")
        if not (can.append_log if kind == "append" else can.slot_log):
            raise UnsupportedStorageError(f"{self._storage.url}: {can.reason}; open it with read_only=True")
        if kind == "slots":
            wal.probe_storage(self._storage, self._clock)
