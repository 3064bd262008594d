"""The rejects file: which rows were not loaded and why, exact across kills and second runs.

While a run lasts, `<rejects>.part` collects one section for each batch, made durable *before* the batch commits. A
batch that is found committed by an earlier run keeps its section; one that is tried again gets a new section, and the
last one counts. At the end the sections become the rejects file in the order of the batches, and `.part` goes. A run
that was stopped leaves `.part`, and the next one continues it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ingest_manifest import Reject


class RejectsBusyError(OSError):
    """Another run writes the same rejects file."""


class Rejects:
    """Sections of rejected rows of one run (`run` names manifest and options)."""

    def __init__(self, target: Path, run: str, *, retry: bool = False) -> None:
        """`retry`: this run's rows are those of `target` itself. Raises RejectsBusyError, and OSError if `target`
        cannot be written."""
        self._target = target
        self._part = part_of(target, retry=retry)
        self._run = run
        self._sections: dict[int, tuple[int, int]] = {}  # batch -> (offset of its last section, rows in it)
        self._unused = not self._part.exists()  # `.part` is this run's, and holds no more than `target`
        if not retry and not self._part.exists() and target.is_file():
            self._copy_earlier_run()
        self._file: BinaryIO = open(self._part, "a+b")  # noqa: SIM115  (open as long as this object)
        self._lock()
        if not retry:
            self._refuse_beside_retry()
        self._end_torn_line()
        self._find_sections()

    @property
    def total(self) -> int:
        """Rows that are rejected, over all batches."""
        return sum(rows for _, rows in self._sections.values())

    def count(self, batch: int) -> int:
        """Rows of `batch` that are rejected."""
        return self._sections.get(batch, (0, 0))[1]

    def write(self, batch: int, rejects: Sequence[Reject]) -> int:
        """Make `rejects` the section of `batch`, durably; returns what `take_back` needs."""
        offset = self._file.seek(0, os.SEEK_END)
        if not rejects and batch not in self._sections:
            return offset
        self._unused = False
        lines = [self._line(batch, None), *(self._line(batch, each) for each in rejects)]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._sections[batch] = (offset, len(rejects))
        return offset

    def take_back(self, offset: int) -> None:
        """Forget what was written from `offset` on: the batch had been committed by an earlier run."""
        self._file.truncate(offset)
        self._find_sections()

    def finish(self) -> None:
        """Publish the rejects file, or remove it if nothing was rejected."""
        if not self.total:
            self.publish(None)
            return
        fresh = self._target.with_name(self._target.name + ".new")
        with open(fresh, "wb") as file:
            file.writelines(self.rows())
            file.flush()
            os.fsync(file.fileno())
        self.publish(fresh)

    def publish(self, fresh: Path | None) -> None:
        """End the run: `fresh` becomes the rejects file; None: there is none any more."""
        if fresh is not None:
            os.replace(fresh, self._target)
        else:
            self._target.unlink(missing_ok=True)
        self._unused = True
        self.close()

    def close(self) -> None:
        """Leave `.part` for the next run, if there is something in it that is nowhere else."""
        if self._unused:
            self._part.unlink()
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(self._file.fileno()).st_nlink > 0  # 0: the other run finished between open and lock
        except BlockingIOError:
            ours = False
        if not ours:
            self._file.close()
            raise RejectsBusyError(f"another run is writing {self._part}")

    def _refuse_beside_retry(self) -> None:
        """A retry that runs now would write the same rejects file."""
        try:
            with open(part_of(self._target, retry=True), "rb") as other:
                fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return
        except BlockingIOError:
            self._file.close()
            raise RejectsBusyError(f"a run with --retry-rejects is writing {self._target}") from None

    def _line(self, batch: int, reject: Reject | None) -> bytes:
        """A rejected row, or (None) the line that opens a section."""
        row: dict[str, object] = {"run": self._run, "batch": batch}
        if reject is not None:
            row |= {"line": reject.line, "error": reject.error, "reason": reject.reason, "row": reject.raw}
        return json.dumps(row).encode() + b"\n"

    def _copy_earlier_run(self) -> None:
        """Begin `.part` with the rejects of a finished run: whole or not at all, and never over another's."""
        copy = self._part.with_name(f"{self._part.name}.{os.getpid()}")
        last = None
        with open(self._target, "rb") as earlier, open(copy, "wb") as file:
            for line in earlier:
                batch = self._batch_of(line)
                if batch is None:
                    continue
                if batch != last:
                    file.write(self._line(batch, None))
                file.write(line)
                last = batch
        with contextlib.suppress(FileExistsError):
            os.link(copy, self._part)
        copy.unlink()

    def _end_torn_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - 1))
        if size and self._file.read(1) != b"\n":
            self._file.write(b"\n")
            self._file.flush()

    def _find_sections(self) -> None:
        self._sections.clear()
        self._file.seek(0)
        offset = 0
        for line in self._file:
            batch = self._batch_of(line)
            if batch is not None and _opens_section(line):
                self._sections[batch] = (offset, 0)
            elif batch is not None and batch in self._sections:
                start, rows = self._sections[batch]
                self._sections[batch] = (start, rows + 1)
            offset += len(line)

    def rows(self) -> Iterator[bytes]:
        """The lines of the rows that are rejected, in the order of the batches."""
        for batch in sorted(self._sections):
            self._file.seek(self._sections[batch][0])
            self._file.readline()
            for line in self._file:
                if self._batch_of(line) != batch or _opens_section(line):
                    break
                yield line

    def _batch_of(self, line: bytes) -> int | None:
        """The batch a line belongs to; None for a torn line and for another run's."""
        try:
            row = json.loads(line)
        except ValueError:
            return None
        if not isinstance(row, dict) or row.get("run") != self._run:
            return None
        batch = row.get("batch")
        return batch if isinstance(batch, int) else None


def part_of(target: Path, *, retry: bool = False) -> Path:
    """Where the sections of a run are collected."""
    return target.with_name(target.name + (".retry.part" if retry else ".part"))


def _opens_section(line: bytes) -> bool:
    return "line" not in json.loads(line)
