"""In a forked child one thread at a time renews what must not be shared with the parent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_turn = threading.RLock()  # of all trees; reentrant for a signal handler in the middle of a renewal


def renew(is_due: Callable[[], bool], renewal: Callable[[], None]) -> None:
    """Call `renewal`, unless another thread has done it meanwhile: a second one would take the locks of the first."""
    with _turn:
        if is_due():
            renewal()


def _after_fork() -> None:
    global _turn
    _turn = threading.RLock()  # the parent's may be held by a thread that does not exist here


os.register_at_fork(after_in_child=_after_fork)
