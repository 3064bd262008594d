"""Ctrl-C, delivered where it does no harm.

Python raises KeyboardInterrupt between any two instructions of the main thread: also between taking a lock and noting
that it is held, or between a commit and the news of it. Inside a `DeferredInterrupt` it is only noted. It is raised at
the next `safe_point()`, which long waits and long work pass all the time, or else when the outermost block ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# the C functions under signal.signal and signal.getsignal, whose conversions to enums cost ten times the call itself
_raw: Any = sys.modules.get("_signal", signal)
_SIGINT = int(signal.SIGINT)
_default = signal.default_int_handler


class _MainThread:
    """What is deferred now. Only the main thread ever changes it, as only there Python delivers signals."""

    main = threading.main_thread().ident  # which it is; in a forked child it may be another
    ident = 0  # the thread that deferred
    depth = 0  # DeferredInterrupt blocks that are open
    swapped = False  # our handler is installed
    noted = False  # an interrupt is waiting
    done = ""  # what was done nevertheless, to be said with it


class DeferredInterrupt:
    """Within the block, SIGINT is noted. Blocks nest; the outermost one counts.

    Does something only in the main thread, and only if Python's own handler is installed: a program that handles
    SIGINT itself, or lets other signals raise exceptions, knows better.
    """

    __slots__ = ("_ours",)

    def __enter__(self) -> DeferredInterrupt:
        self._ours = threading.get_ident() == _MainThread.main
        if self._ours:
            if _MainThread.depth == 0 and _raw.getsignal(_SIGINT) is _default:
                _MainThread.done = ""
                _MainThread.ident = threading.get_ident()
                _raw.signal(_SIGINT, _note)
                _MainThread.swapped = True
            _MainThread.depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ours:
            return
        _MainThread.depth -= 1
        if _MainThread.depth == 0 and _MainThread.swapped:
            _MainThread.swapped = False
            _raw.signal(_SIGINT, _default)
            _deliver()


def undisturbed(function: Callable[P, T]) -> Callable[P, T]:
    """For what opens a descriptor: no interrupt comes before something owns it that closes it."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with DeferredInterrupt():
            return function(*args, **kwargs)

    return run


def tell(done: str) -> None:
    """Something was done that an interrupt waiting now will not undo: it is said in a note of the exception."""
    if _MainThread.swapped and threading.get_ident() == _MainThread.main:
        _MainThread.done = done


def safe_point() -> None:
    """Raise the interrupt that is waiting, if any. To be called where an exception leaves everything in order."""
    if _MainThread.noted and threading.get_ident() == _MainThread.main:
        _deliver()


def is_deferred() -> bool:
    """Whether this thread's interrupts wait for a safe point, so that it must pass one while it waits for others."""
    return _MainThread.swapped and threading.get_ident() == _MainThread.main


def _deliver() -> None:
    if _MainThread.noted:
        _MainThread.noted = False
        interrupt = KeyboardInterrupt()
        if _MainThread.done:
            interrupt.add_note(_MainThread.done)
        raise interrupt


def _note(_number: int, _frame: FrameType | None) -> None:
    _MainThread.noted = True


def _after_fork() -> None:
    """In a child forked by another thread, which is now the main one: nobody is left to end what was deferred."""
    _MainThread.main = threading.get_ident()
    if _MainThread.depth and _MainThread.ident != threading.get_ident():
        if _MainThread.swapped:
            _raw.signal(_SIGINT, _default)
        _MainThread.depth, _MainThread.swapped, _MainThread.noted = 0, False, False


os.register_at_fork(after_in_child=_after_fork)
