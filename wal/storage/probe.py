"""Tests whether an S3 store honours conditional requests, once, before anything relies on them.

A server that does not know a condition answers 200 and overwrites: every writer "wins", and nobody notices. So each
condition that the storage relies on is tried where it must be refused, under random names that nobody else uses.
The result is stored in this user's cache, for this endpoint and bucket, never with the data.

Not tested: whether conditions are atomic under races. Servers have been shipped whose conditions were not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

from wal.clock import Clock
from wal.errors import UnsupportedError
from wal.storage.base import ChangedError, Condition, Fence, Staged, Storage

FOLDER = ".wal/probe"
_FORMAT = 1  # of a stored result: raised when a check is added, so that stores are tested again
_WRONG = '"00000000000000000000000000000000"'  # an ETag that no object here has


def probe(storage: Storage, clock: Clock) -> None:
    """Raise UnsupportedError if the store accepts a write whose condition does not hold. Raises OSError.

    Tests only storages whose fence is the version of a file. No request for a store that has passed before.
    """
    if storage.capabilities.fence is not Fence.VERSION or not storage.capabilities.writable:
        return
    verdict = _verdict_file(storage)
    if verdict is not None and _remembered(verdict):
        return
    with closing(examine(storage, clock)) as examined:  # erases its objects now, even after an error
        for condition, honoured in examined:
            if not honoured:
                raise UnsupportedError(
                    f"{storage.url}: this S3 server ignores {condition.guarantee} ({condition.request}), so that "
                    "writers would overwrite each other unnoticed. Use a server that honours conditional requests "
                    "(AWS S3, SeaweedFS 4.48 or later), or open the root with read_only=True"
                )


def examine(storage: Storage, clock: Clock) -> Generator[tuple[Condition, bool], None, None]:
    """Every condition, and whether the store honours it. Success is stored; a failure deletes an earlier result.

    After a condition that is not honoured, the next is tried on another object, so that one failure does not cause
    others.
    """
    folder = f"{FOLDER}/{clock.token(16).hex()}"
    verdict = _verdict_file(storage)
    try:
        honoured, name = True, ""
        for condition, holds in _CONDITIONS:
            if not name:
                name = f"{folder}/{condition.name}"
                if not storage.create(name, b"first"):
                    raise FileExistsError(f"{storage.url}: a random name was taken: {name}")
            held = holds(storage, name)
            honoured = honoured and held
            name = name if held else ""
            if not held and verdict is not None:
                with suppress(OSError):
                    verdict.unlink()
            yield condition, held
    finally:
        with suppress(OSError):  # what remains is harmless: nobody reads that name
            storage.erase(folder)
    if honoured and verdict is not None:
        _remember(verdict)


def _creates_once(storage: Storage, name: str) -> bool:
    return not storage.create(name, b"second") and storage.read(name).data == b"first"


def _publishes_as_expected(storage: Storage, name: str) -> bool:
    try:
        storage.publish(name, b"other", b"", durable=True, expect=_WRONG)
    except ChangedError:
        return True
    return False


def _removes_as_expected(storage: Storage, name: str) -> bool:
    try:
        storage.remove(name, _WRONG)
    except ChangedError:
        return True
    return False


def _completes_if_absent(storage: Storage, name: str) -> bool:
    return _completes_as_expected(storage, name, "")


def _completes_if_match(storage: Storage, name: str) -> bool:
    return _completes_as_expected(storage, name, _WRONG)


def _completes_as_expected(storage: Storage, name: str, expect: str) -> bool:
    staged = f"{name}-staged"
    storage.publish(staged, b"staged", b"", durable=True)
    try:
        storage.publish(name, Staged(staged), b"", durable=True, expect=expect)
    except ChangedError:
        return True
    return False


_CONDITIONS: list[tuple[Condition, Callable[[Storage, str], bool]]] = [
    (Condition("create", "put-if-absent", "PutObject If-None-Match"), _creates_once),
    (Condition("replace", "the version of a replaced object", "PutObject If-Match"), _publishes_as_expected),
    (Condition("remove", "the version of a removed object", "DeleteObject If-Match"), _removes_as_expected),
    (
        Condition("create-in-parts", "put-if-absent of an object in parts", "CompleteMultipartUpload If-None-Match"),
        _completes_if_absent,
    ),
    (
        Condition("replace-in-parts", "the version of an object replaced in parts", "CompleteMultipartUpload If-Match"),
        _completes_if_match,
    ),
]


# --- stored results --------------------------------------------------------------------------------------------------


def _verdict_file(storage: Storage) -> Path | None:
    """The file for the result of this store; None if the store cannot be identified, or there is no home folder."""
    server = getattr(storage, "server", None)
    if server is None:
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return folder / "metatree" / "probes" / f"{hashlib.sha256(server().encode()).hexdigest()}.json"


def _remembered(file: Path) -> bool:
    try:
        verdict = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(verdict, dict) and verdict.get("format") == _FORMAT and verdict.get("conditions") == "honoured"


def _remember(file: Path) -> None:
    """Store the result atomically. If the cache cannot be written, the next opener tests again."""
    import tempfile

    text = json.dumps({"format": _FORMAT, "conditions": "honoured"})
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(descriptor, "w") as opened:
                opened.write(text)
            os.rename(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
