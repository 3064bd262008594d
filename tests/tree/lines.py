"""The line between a host and the storage, on which something may happen at its k-th call: it is slept before, it is
the last, or it fails.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import greenlet

from metatree import MetatreeError


class Dead(BaseException):
    """The host is no more."""


class Line:
    """To be given to `watched` as `line.around`."""

    def __init__(self) -> None:
        self.dead = False
        self._left = 0  # calls until it happens; 0: nothing does
        self._kind = ""  # how calls begin that count
        self._happen: Callable[[Callable[[], Any]], Any] = lambda call: call()

    def quiet(self) -> None:
        """From now on nothing happens."""
        self._left = 0

    def sleep(self, call: int, before: str = "") -> None:
        """Before this call, of those that begin so, its greenlet goes to sleep, until it is switched to."""

        def happen(run: Callable[[], Any]) -> Any:
            self._left = 0
            greenlet.getcurrent().parent.switch()
            if self.dead:
                raise Dead
            return run()

        self._left, self._happen, self._kind = call, happen, before

    def die(self, call: int, *, late: bool) -> None:
        """This call is the last, or (`late`) the first whose reply it does not live to see."""

        def happen(run: Callable[[], Any]) -> Any:
            self.dead = True
            if late:
                run()
            raise Dead

        self._left, self._happen, self._kind = call, happen, ""

    def fail(self, call: int, *, lost: bool, times: int) -> None:
        """This call fails, and some after it; `lost`: only their replies are lost."""
        left = times

        def happen(run: Callable[[], Any]) -> Any:
            nonlocal left
            left -= 1
            self._left = 1 if left else 0
            if lost:
                run()
            raise OSError(errno.ETIMEDOUT, "the reply was lost" if lost else "no connection")

        self._left, self._happen, self._kind = call, happen, ""

    def around(self, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """See `watched`."""
        if self.dead:
            raise Dead
        if not (self._left and f"{method} {arguments[0] if arguments else ''}".startswith(self._kind)):
            return run()
        self._left -= 1
        return run() if self._left else self._happen(run)


class Sleeping:
    """Something that a host falls asleep in, until it is woken."""

    def __init__(self, line: Line, work: Callable[[], object]) -> None:
        self._line = line
        self.error: BaseException | None = None
        self._greenlet = greenlet.greenlet(lambda: self._run(work))
        self.go_on()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (MetatreeError, Dead) as error:
            self.error = error

    def go_on(self) -> None:
        """Until it sleeps or is done."""
        self._greenlet.switch()

    @property
    def done(self) -> bool:
        return bool(self._greenlet.dead)

    def die(self) -> None:
        """It never wakes up."""
        self._line.dead = True
        self.go_on()
