"""What a peer is: somebody who keeps models, versions and their blobs, and the verbs that workloads ask for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

KEYS = ("model", "version")
BLOB = bytes(range(256)) * 4  # 1 KiB
BLOB_NAME = "w"
CHUNK = 1 << 20
FILL = 1_000  # versions in one transaction
WIDTH = 100  # versions of a model, where many of them are not the point


class NotInstalled(Exception):
    """The peer is not there; the text says how it is had."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Returned by what measured itself."""

    value: float  # in the workload's unit
    result: Any = None


class Store:
    """A peer's store, open. It may have a part of the verbs only.

    A verb returns when the peer calls its work done. One that is done in another process returns `Measured`.
    """

    opening: float | None = None  # microseconds that opening took, where that is timed in another process

    def put(self, model: str, version: str, content: bytes) -> object:
        """Store a new version with one blob, creating the model if it is missing."""
        cannot()

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> object:
        """The same for many versions, in one transaction where the peer has such a thing."""
        cannot()

    def put_file(self, model: str, version: str, source: Path) -> object:
        """Store a new version whose blob is the content of a file."""
        cannot()

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> object:
        """Set keys of a version, or of the model itself (`version` is empty)."""
        cannot()

    def find_active(self, model: str) -> object:
        """The metadata of the version that the model's key "active" names, both read in one state."""
        cannot()

    def get(self, model: str, version: str) -> object:
        """Read a version's blob to its end, piece by piece; how many bytes there were."""
        cannot()

    def download(self, model: str, version: str, target: Path) -> object:
        """Write a version's blob into a new file."""
        cannot()

    def fill(self, model: str, versions: Sequence[str]) -> None:
        """Have a model with many versions, before anything is measured. Of a peer that keeps their names in a list,
        and looks at nothing else, the list may be made by hand."""
        for first in range(0, len(versions), FILL):
            self.put_many(model, versions[first : first + FILL], b"")

    def versions(self, model: str) -> set[str]:
        """The versions that a reader finds."""
        cannot()

    def rest(self) -> None:
        """Finish what was put off, so that nothing of it runs in the time of another."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is measured."""

    name: str
    open: Callable[[Path], AbstractContextManager[Store]]  # in an empty folder, or one it was opened in before
    imports: str = ""  # what a program imports to use it
    hold: bool = False  # among processes one more has to keep it open, or it would begin anew with each
    python: Callable[[], str] | None = None  # the interpreter that has it, if not the running one


def place(number: int) -> tuple[str, str]:
    """The model and the version of a put."""
    return f"m{number // WIDTH}", f"v{number % WIDTH}"


def optional(module: str) -> Any:
    """A module that the extra `bench` brings. Raises NotInstalled."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NotInstalled("not installed (pip install '.[bench]')") from error


def cannot() -> NoReturn:
    raise NotImplementedError("the peer has no such verb")
