"""Reads a manifest row by row: JSON Lines or CSV into rows and, for what is no row, the reason.

Nothing here knows the tree. A manifest is never whole in memory; one row may have at most ROW_LIMIT bytes.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from urllib.parse import urlsplit

ROW_LIMIT = 16 << 20
HASH_CHUNK = 1 << 20


class RowError(ValueError):
    """A manifest row cannot be used; the text says why."""


class ManifestError(ValueError):
    """The manifest as a whole cannot be used."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column means what; all others are metadata."""

    location: str = "location"
    source: str = "source"
    name: str = "name"


@dataclass(frozen=True, slots=True)
class Options:
    """How a manifest is read. Part of the identity of a run: other options make other transactions."""

    format: str  # "jsonl" or "csv"
    columns: Columns
    types: bool  # CSV cells that are JSON numbers or booleans become such
    batch: int  # rows of a transaction


@dataclass(frozen=True, slots=True)
class Row:
    """One blob to load."""

    line: int  # where the row ends in the manifest, from 1
    raw: object  # the row as it was read, for the rejects file
    location: Any  # whatever the tree takes: it judges
    source: str  # absolute path or URL
    name: str
    metadata: dict[str, object]


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that was not loaded."""

    line: int
    raw: object
    error: str  # class of the error
    reason: str

    @classmethod
    def of(cls, line: int, raw: object, error: BaseException) -> Reject:
        # str() of a KeyError is its quoted argument; the argument itself is what people want to read
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return cls(line, raw, type(error).__name__, reason)


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one transaction."""

    number: int  # from 0
    rows: tuple[Row, ...]
    rejects: tuple[Reject, ...]  # lines of this batch that are no rows


def measure(manifest: Path) -> tuple[str, int]:
    """The manifest's SHA-256 in hex and its number of lines."""
    digest, lines = hashlib.sha256(), 0
    with open(manifest, "rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
            lines += chunk.count(b"\n")
    return digest.hexdigest(), lines


def run_id(content: str, options: Options) -> str:
    """Names what a run does: the same manifest read in the same way, wherever it lies."""
    identity = json.dumps([content, options.format, *_names(options.columns), options.types, options.batch])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def read_batches(manifest: Path, options: Options) -> Iterator[Batch]:
    """The manifest as batches of `options.batch` rows (rejected lines count as rows)."""
    return batches_of(_raw_rows(manifest, options), manifest.resolve().parent, options)


def batches_of(
    raws: Iterator[tuple[int, dict[str, object] | Reject]], folder: Path, options: Options
) -> Iterator[Batch]:
    """Rows as they were read, with their lines, as batches; relative sources lie in `folder`."""
    found = (_row(line, raw, folder, options.columns) for line, raw in raws)
    for number in itertools.count():
        part = list(itertools.islice(found, options.batch))
        if not part:
            return
        rejects = tuple(each for each in part if isinstance(each, Reject))
        yield Batch(number, tuple(each for each in part if isinstance(each, Row)), rejects)


def _names(columns: Columns) -> tuple[str, str, str]:
    return columns.location, columns.source, columns.name


def _raw_rows(manifest: Path, options: Options) -> Iterator[tuple[int, dict[str, object] | Reject]]:
    if options.format == "jsonl":
        with open(manifest, "rb") as lines:
            yield from _json_rows(lines)
    else:
        # newline="": the csv module finds the ends of rows itself, quoted ones included
        with open(manifest, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield from _csv_rows(text, options)


def _row(line: int, raw: dict[str, object] | Reject, folder: Path, columns: Columns) -> Row | Reject:
    if isinstance(raw, Reject):
        return raw
    try:
        rest = dict(raw)
        location = _take(rest, columns.location)
        source = _take(rest, columns.source)
        name = rest.pop(columns.name, None)
        if not isinstance(source, str) or not isinstance(name, str | None):
            raise RowError(f"{columns.source!r} and {columns.name!r} must be strings")
        if not isinstance(location, str | list | dict):
            raise RowError(f"{columns.location!r} must be a string, a list of segments or an object")
        # a list is how JSON writes the tuple of segments that the tree takes
        place = tuple(location) if isinstance(location, list) else location
        return Row(line, raw, place, _absolute(source, folder), name or _last_segment(source), rest)
    except ValueError as error:
        return Reject.of(line, raw, error)


def _take(row: dict[str, object], column: str) -> object:
    value = row.pop(column, None)
    if value is None or value == "":
        raise RowError(f"the column {column!r} is missing or empty")
    return value


def is_url(source: str) -> bool:
    return "://" in source


def _absolute(source: str, folder: Path) -> str:
    return source if is_url(source) else str(folder / source)


def _last_segment(source: str) -> str:
    path = urlsplit(source).path if is_url(source) else source
    name = path.rstrip("/").rpartition("/")[2]
    if not name:
        raise RowError(f"the source {source!r} has no file name; give one in the name column")
    return name


# --- JSON Lines -----------------------------------------------------------------------------------------------------


def _json_rows(lines: BinaryIO) -> Iterator[tuple[int, dict[str, object] | Reject]]:
    for number in itertools.count(1):
        data = lines.readline(ROW_LIMIT + 1)
        if not data:
            return
        if len(data) > ROW_LIMIT:
            _skip_line(lines, data)
            yield number, Reject(number, None, "RowError", f"the line is longer than {ROW_LIMIT} bytes")
        elif data.strip():
            yield number, _json_row(number, data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data)


def _skip_line(lines: BinaryIO, data: bytes) -> None:
    while data and not data.endswith(b"\n"):
        data = lines.readline(HASH_CHUNK)


def _json_row(number: int, data: bytes) -> dict[str, object] | Reject:
    try:
        row = json.loads(data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        if not isinstance(row, dict):
            raise RowError(f"a JSON object is needed, not {type(row).__name__}")
    except (ValueError, RecursionError) as error:
        return Reject.of(number, data.decode(errors="replace").rstrip("\r\n"), error)
    return row


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise RowError("a key occurs twice in one JSON object")
    return row


def _no_constant(text: str) -> object:
    raise RowError(f"{text} is not a JSON value")


# --- CSV ------------------------------------------------------------------------------------------------------------


def _csv_rows(text: TextIO, options: Options) -> Iterator[tuple[int, dict[str, object] | Reject]]:
    csv.field_size_limit(ROW_LIMIT)
    reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, Reject.of(reader.line_num, None, error)
            continue
        if header is None:
            header = cells
            _check_header(header, options.columns)
        elif cells:
            yield reader.line_num, _csv_row(reader.line_num, header, cells, options)


def _check_header(header: list[str], columns: Columns) -> None:
    if missing := {columns.location, columns.source} - set(header):
        raise ManifestError(f"the manifest has no column {' and no column '.join(sorted(missing))}; it has {header}")
    if len(set(header)) != len(header) or not all(header):
        raise ManifestError(f"the columns of the manifest need different, non-empty names, not {header}")


def _csv_row(number: int, header: list[str], cells: list[str], options: Options) -> dict[str, object] | Reject:
    try:
        if len(cells) != len(header):
            raise RowError(f"{len(cells)} cells where the header has {len(header)} columns")
        "".join(cells).encode()  # a byte that is not UTF-8 was read as a lone surrogate
    except ValueError as error:
        return Reject.of(number, cells, error)
    # an empty cell sets nothing: CSV cannot tell an absent value from an empty string
    filled = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
    if not options.types:
        return dict(filled)
    untyped = _names(options.columns)
    return {column: cell if column in untyped else _typed(cell) for column, cell in filled.items()}


def _typed(cell: str) -> object:
    """The number or boolean that the cell is in JSON, or the cell itself."""
    try:
        value = json.loads(cell, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return cell
    # 1e999 is JSON, but reads as infinity
    return value if isinstance(value, bool | int | float) and math.isfinite(value) else cell
