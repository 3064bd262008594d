"""What a forked child renews before it uses what it has inherited: once, whichever of its threads comes first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from wal.clock import Clock
from wal.interrupts import DeferredInterrupt
from wal.turn import Turn


class Renewal:
    """The renewals of one object. `pid` is the process that it is made for."""

    def __init__(self, what: str) -> None:
        """`what` is renewed, for messages."""
        self.pid = os.getpid()
        self._what = f"the renewal of {what} after a fork"
        # One for each process: a thread of the parent may have had the parent's at the fork, and would never end it.
        self._turns: dict[int, Turn] = {}

    def run(self, reset: Callable[[], None]) -> None:
        """Call `reset` if no thread of this process has yet. If it raises, the next call tries again. Raises
        LockBusyError in a signal handler that has interrupted `reset`."""
        if self.pid != os.getpid():
            with self.turn():
                if self.pid != os.getpid():
                    reset()
                    self.pid = os.getpid()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While no other thread renews it."""
        with DeferredInterrupt():
            turn = self._turns.setdefault(os.getpid(), Turn(self._what, Clock()))
            turn.take(inf)
            try:
                yield
            finally:
                turn.release()
