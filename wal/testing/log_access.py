"""The fixtures that the conformance suite of a log needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from wal.log import WriteAheadLog


class Opener(Protocol):
    """Opens the same log each time; every call returns a handle of its own."""

    def __call__(
        self,
        *,
        create: bool = False,
        read_only: bool = False,
        recover: Callable[[WriteAheadLog], None] | None = None,
    ) -> WriteAheadLog: ...


class LogAccess(ABC):
    """Fixtures; see `log_suite`."""

    @pytest.fixture
    @abstractmethod
    def opener(self) -> Opener:
        """A function that opens the log under test, which does not exist yet."""

    @pytest.fixture
    def log(self, opener: Opener) -> Iterator[WriteAheadLog]:
        """A new, empty log."""
        log = opener(create=True)
        yield log
        log.close()
