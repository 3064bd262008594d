"""Boundaries that crash or fail at the k-th call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeVar

from wal.storage.posix import Posix
from wal.testing.boundary import MUTATING_CALLS, Boundary, Call

T = TypeVar("T")


class Crash(BaseException):
    """Stands for the death of the process. Not an `Exception`, so that code under test does not catch it."""


@dataclass(frozen=True, slots=True)
class Crashing:
    """When to crash."""

    call: int  # the number of the counted call, from 1
    when: Literal["before", "after", "torn"]  # torn: half of a write is done; for other calls the same as "before"
    action: Literal["raise", "kill"] = "raise"  # kill: SIGKILL to the calling process, for use in a forked child


class CrashStorage(Boundary):
    """Crashes at the planned call; from then on every call except close raises `Crash`."""

    def __init__(self, plan: Crashing, inner: Posix | None = None, *, counted: frozenset[str] = MUTATING_CALLS) -> None:
        super().__init__(inner, counted=counted)
        self.plan = plan
        self.crashed: Call | None = None  # the call at which it crashed

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        if self.crashed is not None:
            raise Crash(f"called {call.method} after the crash")
        if call.number != self.plan.call:
            return run()
        if self.plan.when == "after":
            # An error of the call does not matter: the process dies right after it.
            with suppress(OSError):
                run()
        elif self.plan.when == "torn" and tear is not None:
            with suppress(OSError):
                tear()
        self._die(call)

    def closing(self, fd: int) -> None:
        # The crash has closed it already. No error, since file objects also close when they are garbage-collected.
        if self.crashed is None:
            super().closing(fd)

    def _die(self, call: Call) -> NoReturn:
        if self.plan.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.crashed = call
        # As the kernel does for a dead process, which also frees its locks.
        for fd in list(self._paths):
            with suppress(OSError):
                self.inner.close(fd)
        self._paths.clear()
        raise Crash(f"{self.plan.when} call {call.number}: {call.method} {call.path}")


@dataclass(frozen=True, slots=True)
class Failing:
    """When to fail, and how."""

    call: int  # the number of the counted call, from 1
    error: int | None = None  # the errno to raise; None only together with `short`
    lasting: bool = False  # True: also every later counted call
    short: bool = False  # a write succeeds with half its bytes; the error comes with the next counted call


class FaultyStorage(Boundary):
    """Fails as planned; a failing call does nothing. With `counted=ALL_CALLS`, reads can fail too."""

    def __init__(self, plan: Failing, inner: Posix | None = None, *, counted: frozenset[str] = MUTATING_CALLS) -> None:
        super().__init__(inner, counted=counted)
        self.plan = plan
        self.failed: list[Call] = []  # the calls that failed or wrote short

    def around(self, call: Call, run: Callable[[], T], tear: Callable[[], T] | None) -> T:
        plan = self.plan
        if plan.short and call.number == plan.call:
            if tear is None:
                return run()
            self.failed.append(call)
            return tear()
        first = plan.call + plan.short
        if plan.error is not None and (call.number == first or (plan.lasting and call.number > first)):
            self.failed.append(call)
            raise OSError(plan.error, os.strerror(plan.error), call.path)
        return run()
