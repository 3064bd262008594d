"""Worker processes, with several threads each, that all do the same thing at the same moment."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import wal

PROCESSES = 2
THREADS = 2  # in each
_PATIENCE = 300.0  # seconds for one turn: longer than the time-outs of storages
_LEAVING = 5.0  # seconds for a process to end by itself

# What a thread does: called with the process's storage, the thread's name, and the arguments of `race`.
Turn = Callable[..., Any]


class ContenderError(Exception):
    """A thread's turn failed; the message is that of its error."""


class Contenders:
    """The processes; each opens the storage itself. They are spawned, not forked, so that they share nothing, and get
    the options through a pipe: other users can read secrets on a command line."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        self._question = 0  # number of the turn: after a failure, answers to an earlier one may be left in a pipe
        try:
            for number in range(PROCESSES):
                ours, theirs = context.Pipe()
                self._connections.append(ours)
                process = context.Process(target=_serve, args=(theirs, url, dict(options), number), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
        except BaseException:
            self.close(kill=True)
            raise

    def race(self, turn: Turn, *arguments: Any) -> list[Any]:
        """Run a turn in every thread; returns the results. Raises ContenderError."""
        self.start(turn, *arguments)
        return self.finish()

    def start(self, turn: Turn, *arguments: Any) -> None:
        """Begin a turn in every thread; to be followed by `finish`."""
        self._question += 1
        for connection in self._connections:
            self._send(connection, (self._question, turn, arguments))

    def busy(self) -> bool:
        """Whether any process is still busy. One with an unread answer to an earlier turn counts as ready."""
        return not all(connection.poll() for connection in self._connections)

    def finish(self) -> list[Any]:
        """Wait for all threads; returns the results. Raises ContenderError."""
        results: list[Any] = []
        failed = ""
        for connection, process in zip(self._connections, self._processes, strict=True):
            done, told = self._receive(connection)
            if done is None:
                process.kill()
            if done:
                results += told
            else:
                failed = failed or str(told)
        if failed:
            raise ContenderError(failed)
        return results

    def send_to_death(self, turn: Turn, *arguments: Any) -> bool:
        """Run a turn that kills its process, the last one, and go on without it; returns whether it was killed."""
        connection, process = self._connections.pop(), self._processes.pop()
        self._send(connection, (self._question, turn, arguments))
        process.join(_PATIENCE)
        died = process.exitcode == -signal.SIGKILL
        connection.close()
        process.kill()
        process.join()
        return died

    def _send(self, connection: Connection, job: object) -> None:
        with suppress(OSError):  # a dead process is reported by `finish`, which must also read the others' answers
            connection.send(job)

    def _receive(self, connection: Connection) -> tuple[bool | None, Any]:
        """(whether the turn succeeded, None if there was no answer; its results or an error message)."""
        question = None
        while question != self._question:
            if not wait([connection], _PATIENCE):
                return None, f"no answer within {_PATIENCE:.0f} s"
            try:
                question, done, told = connection.recv()
            except (EOFError, OSError):
                return False, "a process that took part ended unexpectedly"
        return bool(done), told

    def close(self, *, kill: bool = False) -> None:
        """End the processes; `kill`: without waiting for them."""
        for connection in self._connections:
            with suppress(OSError):
                connection.send(None)
        for process in self._processes:
            if not kill:
                process.join(_LEAVING)
            process.kill()
            process.join()
        for connection in self._connections:
            connection.close()
        self._connections, self._processes = [], []


def _serve(connection: Connection, url: str, options: Mapping[str, Any], number: int) -> None:
    """The main function of a process: runs turns until it is told to end or its parent has exited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    storage: wal.Storage | None = None
    with suppress(EOFError, OSError), ThreadPoolExecutor(THREADS) as threads:
        while (job := connection.recv()) is not None:
            try:
                storage = storage or wal.open_storage(url, options)
                told: tuple[bool, Any] = True, _together(threads, storage, number, *job[1:])
            except Exception as error:  # noqa: BLE001 - reported by the parent
                told = False, f"{type(error).__name__}: {error}"
            connection.send((job[0], *told))
    if storage is not None:
        storage.close()


def _together(
    threads: ThreadPoolExecutor, storage: wal.Storage, number: int, turn: Turn, arguments: Sequence[Any]
) -> list[Any]:
    line = threading.Barrier(THREADS)

    def run(thread: int) -> Any:
        line.wait()
        return turn(storage, f"{number}.{thread}", *arguments)

    return list(threads.map(run, range(THREADS)))
