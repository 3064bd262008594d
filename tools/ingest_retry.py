"""Loads rejected rows again, once what kept them out is mended: a load of its own, under idempotency keys of its own.

Its manifest is the rejects file. Each line holds the row as it was read, under `row`, which may be mended there. At the
end the rows that are in the tree now have left the file; the others stay, with the new reason and one more in `tries`.
They still name the first load, which finds them there when it is run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest_manifest import Batch, ManifestError, Options, Reject, batches_of
from ingest_rejects import Rejects, part_of


def read_rejected(file: Path, folder: Path, options: Options) -> Iterator[Batch]:
    """The rows of a rejects file as batches; relative sources lie in `folder`. A row's line is the file's.

    Raises ManifestError if the file is no rejects file.
    """
    return batches_of(_raw_rows(file), folder, options)


def _raw_rows(file: Path) -> Iterator[tuple[int, dict[str, object] | Reject]]:
    for number, line in enumerate(_lines(file), 1):
        raw = line["row"]
        if isinstance(raw, dict):
            yield number, raw
        else:
            yield number, Reject(number, raw, "RowError", f"a JSON object is needed: mend 'row' in {file.name}")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, "rb") as lines:
        for number, data in enumerate(lines, 1):
            try:
                line = json.loads(data)
                if not isinstance(line, dict) or not {"run", "batch", "line", "error", "reason", "row"} <= line.keys():
                    raise ValueError("a line has run, batch, line, error, reason and row")
            except (ValueError, RecursionError) as error:
                raise ManifestError(f"{file}, line {number}: not as a load left it: {error}") from error
            yield line


class RetriedRejects(Rejects):
    """The rows of `file` that are rejected again."""

    def __init__(self, file: Path, run: str) -> None:
        """Raises RejectsBusyError; ManifestError if the first load was stopped and is not at its end."""
        self._refuse_before_the_end(file)
        super().__init__(file, run, retry=True)
        try:
            self._refuse_before_the_end(file)  # again, now that a load that begins finds our lock
        except ManifestError:
            self.close()
            raise

    def _refuse_before_the_end(self, file: Path) -> None:
        if part_of(file).exists():
            raise ManifestError(
                f"{part_of(file)} is there: the load was stopped or is running. Let it end (the same command without "
                "--retry-rejects), then retry"
            )

    def finish(self) -> None:
        """Replace the rejects file by what is left of it, or remove it if nothing is."""
        again = {row["line"]: row for row in map(json.loads, self.rows())}
        left = self._target.with_name(self._target.name + ".new")
        with open(left, "wb") as out:
            for number, line in enumerate(_lines(self._target), 1):
                if number in again:
                    reject = again[number]
                    line |= {"error": reject["error"], "reason": reject["reason"], "tries": line.get("tries", 1) + 1}
                    out.write(json.dumps(line).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self.publish(left if again else None)
        if not again:
            left.unlink()
