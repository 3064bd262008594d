"""Signals, handled only at safe points.

Python calls a signal's handler between any two instructions of the main thread: also between taking a lock and
recording that it is held, or between a commit and its return. So inside a `DeferredInterrupt` block a signal is only
noted. Its handler, as the one that raises KeyboardInterrupt, is called at the next `safe_point()`, which long waits and
long work call often, or at the latest when the outermost block ends.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# the C functions behind signal.signal and signal.getsignal, which spend ten times as long on converting to enums
_raw: Any = sys.modules.get("_signal", signal)
_NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def _is_main_interpreter() -> bool:
    """Only there can a program set handlers."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since Python 3.13, and before
        with suppress(ImportError):
            interpreters: Any = importlib.import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


# those from whose handlers programs raise, as far as the system has them
SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name) and _is_main_interpreter())


class _MainThread:
    """The state of deferral. Only the main thread changes it, since Python calls handlers only there."""

    main = threading.main_thread().ident  # changes in a child that another thread forked
    depth = 0  # number of open DeferredInterrupt blocks
    done = ""  # what was completed in the outermost one: becomes a note of what a handler raises


_pending: list[tuple[int, FrameType | None]] = []  # the signals that wait, each once, as in the system


class _Deferred:
    """Takes the place of a handler within the outermost block."""

    __slots__ = ("handler",)

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if all(number != other for other, _ in _pending):
            _pending.append((number, frame))
        if not _MainThread.depth:  # a handler that raised has kept this one here behind the end of its block
            _restore()


class _Raised(BaseException):
    """Carries an error of a handler from a safe point to the end of the outermost block: what catches errors of the
    storage on the way must not take a program's own TimeoutError for one."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.context = error.__context__


class DeferredInterrupt:
    """Defers `SIGNALS` within the block. Blocks nest; the outermost one counts. Only in the main thread, and only for
    signals that have a handler in Python, as SIGINT has unless a program changes it."""

    __slots__ = ("_ours",)

    def __enter__(self) -> DeferredInterrupt:
        self._ours = threading.get_ident() == _MainThread.main
        if not self._ours:
            return self
        if _MainThread.depth:
            _MainThread.depth += 1
            return self
        try:
            _MainThread.depth = 1
            _MainThread.done = ""
            _replace()
        except BaseException:  # of a handler that was not replaced yet
            _MainThread.depth = 0
            _restore()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if not self._ours:
            return
        _MainThread.depth -= 1
        if _MainThread.depth:
            return
        _restore()
        if isinstance(error, _Raised):
            _raise_carried(error)


def undisturbed(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator for functions that open a descriptor: no handler raises before the result has an owner that closes
    it."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with DeferredInterrupt():
            return function(*args, **kwargs)

    return run


def tell(done: str) -> None:
    """Record that `done` is complete: what a handler raises later within the outermost block carries it as a note."""
    if is_deferred():
        _MainThread.done = done


def safe_point() -> None:
    """Call the handlers of the signals that wait. To be called only where an exception leaves everything consistent."""
    if _pending and is_deferred():
        depth, done = _MainThread.depth, _MainThread.done
        try:
            try:
                _MainThread.depth = 0  # a handler may open blocks of its own
                _restore()
            finally:
                _MainThread.depth, _MainThread.done = depth, done
                _replace()
        except Exception as error:  # noqa: BLE001  whatever it is
            raise _Raised(error) from None


def is_deferred() -> bool:
    """Whether this thread's signals are deferred, so that it must call `safe_point` while it waits."""
    return _MainThread.depth > 0 and threading.get_ident() == _MainThread.main


def _replace() -> None:
    try:
        for number in SIGNALS:
            handler = _raw.getsignal(number)
            if callable(handler) and type(handler) is not _Deferred:
                _raw.signal(number, _Deferred(handler))
    except BaseException:  # of a handler that was not replaced yet: the others are all the same
        _replace()
        raise


def _restore() -> None:
    """Outside of all blocks: put the handlers back, but none in place of one that was installed meanwhile, and call
    those that wait, each although another raises. The signals are not raised again: Python would write each to the
    `set_wakeup_fd` of an event loop once more."""
    done = _MainThread.done
    try:
        for number in SIGNALS:
            handler = _raw.getsignal(number)
            if type(handler) is _Deferred:
                _raw.signal(number, handler.handler)
        while _pending:
            first = _pending[0]
            handler = _raw.getsignal(first[0])
            run = handler if callable(handler) else _drop
            if _pending and _pending[0] is first:
                del _pending[0]
                run(*first)  # Python looks for signals in calls: none came since the `del`
    except BaseException as error:
        if done:
            error.add_note(done)
        _restore()
        raise


def _drop(number: int, frame: FrameType | None) -> None:
    """What Python does if a handler is gone when its signal's turn comes."""


def _raise_carried(carried: _Raised) -> None:
    error = carried.error
    for note in getattr(carried, "__notes__", ()):
        error.add_note(note)
    try:
        raise error
    finally:
        error.__context__ = carried.context


def _after_fork() -> None:
    """In a forked child: what waits is its parent's, and the forking thread is the main one. If another one had
    deferred, nobody is left to end its blocks."""
    _pending.clear()
    if _MainThread.main != threading.get_ident():
        _MainThread.main = threading.get_ident()
        _MainThread.depth = 0
        _restore()


os.register_at_fork(after_in_child=_after_fork)
