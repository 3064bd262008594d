"""Several requests at once, by threads that live no longer than the call.

Not `concurrent.futures`: its pools refuse work once the interpreter is shutting down, which is the last chance to close
a log that the program left open. Where no thread can be started any more, the caller's thread does all the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 8  # requests at once


def spread(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`[function(item) for item in items]`, up to WORKERS at a time, counting the caller's thread.

    After the first error no further item is begun; those in progress are waited for, and that error is raised.
    """
    work = list(items)
    job = _Job(function, work)
    threads: list[threading.Thread] = []
    try:
        for _ in range(min(WORKERS, len(work)) - 1):
            thread = threading.Thread(target=job.run, name="wal-spread", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                break
            threads.append(thread)
        job.run()
    except BaseException as error:
        job.fail(error)
        raise
    finally:
        for thread in threads:
            thread.join()
    if job.error is not None:
        raise job.error
    return [job.results[number] for number in range(len(work))]


class _Job(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], work: list[T]) -> None:
        self._function = function
        self._left: Iterator[tuple[int, T]] = iter(list(enumerate(work)))
        self._mutex = threading.Lock()
        self.results: dict[int, R] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run by each thread: item after item, until none is left or one has failed."""
        while True:
            with self._mutex:
                following = next(self._left, None)
            if following is None or self.error is not None:
                return
            number, item = following
            try:
                self.results[number] = self._function(item)
            except BaseException as error:  # noqa: BLE001  raised by the caller's thread
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Keep the first error."""
        with self._mutex:
            self.error = self.error or error
