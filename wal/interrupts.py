"""Ctrl-C, raised only at safe points.

Python raises KeyboardInterrupt between any two instructions of the main thread: also between taking a lock and
recording that it is held, or between a commit and its return. Inside a `DeferredInterrupt` block the signal is only
noted. It is raised at the next `safe_point()`, which long waits and long work call often, or at the latest when the
outermost block ends.
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

# the C functions behind signal.signal and signal.getsignal, which spend ten times as long on converting to enums
_raw: Any = sys.modules.get("_signal", signal)
_SIGINT = int(signal.SIGINT)
_default = signal.default_int_handler


class _MainThread:
    """The state of deferral. Only the main thread changes it, since Python delivers signals only there."""

    main = threading.main_thread().ident  # changes in a child that another thread forked
    ident: int | None = None  # the thread that opened the outermost block
    depth = 0  # number of open DeferredInterrupt blocks
    swapped = False  # our handler is installed
    noted = False  # an interrupt is waiting
    done = ""  # what was completed before the interrupt is raised: becomes its note


class DeferredInterrupt:
    """Defers SIGINT within the block. Blocks nest; the outermost one counts.

    It has an effect only in the main thread and only if Python's own handler is installed. A handler of the program's
    own for SIGINT is left alone, and other signals are not deferred.
    """

    __slots__ = ("_ours",)

    def __enter__(self) -> DeferredInterrupt:
        self._ours = threading.get_ident() == _MainThread.main
        if self._ours:
            if _MainThread.depth == 0 and _raw.getsignal(_SIGINT) is _default:
                _MainThread.done = ""
                _MainThread.ident = _MainThread.main
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
    """Decorator for functions that open a descriptor: no interrupt is raised before the result has an owner that closes
    it."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with DeferredInterrupt():
            return function(*args, **kwargs)

    return run


def tell(done: str) -> None:
    """Record that `done` is complete: an interrupt raised later within the outermost block carries it as a note."""
    if _MainThread.swapped and threading.get_ident() == _MainThread.main:
        _MainThread.done = done


def safe_point() -> None:
    """Raise the pending interrupt, if any. To be called only where an exception leaves everything consistent."""
    if _MainThread.noted and threading.get_ident() == _MainThread.main:
        _deliver()


def is_deferred() -> bool:
    """Whether this thread's interrupts are deferred, so that it must call `safe_point` while it waits."""
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
    """In a forked child: the forking thread is now the main one. If another thread had deferred, nobody is left to end
    its blocks: reset."""
    _MainThread.main = threading.get_ident()
    if _MainThread.depth and _MainThread.ident != threading.get_ident():
        if _MainThread.swapped:
            _raw.signal(_SIGINT, _default)
        _MainThread.depth, _MainThread.swapped, _MainThread.noted = 0, False, False


os.register_at_fork(after_in_child=_after_fork)
