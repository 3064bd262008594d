"""What the conformance suite of a log needs from the kind that is tested."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from wal.log import WriteAheadLog


class Opener(Protocol):
    """Opens one and the same log; every call a handle of its own."""

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
        """Opens the log under test, which does not exist yet."""

    @pytest.fixture
    def log(self, opener: Opener) -> Iterator[WriteAheadLog]:
        """A new, empty log."""
        log = opener(create=True)
        yield log
        log.close()
