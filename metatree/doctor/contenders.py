"""Other processes, several threads in each, that try one thing at the same moment."""

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
_PATIENCE = 300.0  # seconds for one thing: storages have time-outs of their own, which are shorter
_LEAVING = 5.0  # seconds for a process to end by itself

# What a thread does: called with the process's storage, with who it is, and with the arguments of `race`.
Turn = Callable[..., Any]


class ContenderError(Exception):
    """A thread could not do its part; the message is that of its error."""


class Contenders:
    """The processes; each opens the storage for itself. They are started anew, not forked, so that they share nothing,
    and get the options through a pipe: on a command line everybody could read the secrets in them."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        self._question = 0  # a trial that failed half way leaves answers behind, to an earlier one
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
        """What each thread's turn returned. Raises ContenderError."""
        self.start(turn, *arguments)
        return self.finish()

    def start(self, turn: Turn, *arguments: Any) -> None:
        """Let all begin; `finish` is to follow."""
        self._question += 1
        for connection in self._connections:
            self._send(connection, (self._question, turn, arguments))

    def busy(self) -> bool:
        """Whether anybody is still at it; one whose earlier answer was never asked for counts as ready."""
        return not all(connection.poll() for connection in self._connections)

    def finish(self) -> list[Any]:
        """Wait for all. Raises ContenderError."""
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
        """Let the last process do what kills it, and go on without it; whether it died of it."""
        connection, process = self._connections.pop(), self._processes.pop()
        self._send(connection, (self._question, turn, arguments))
        process.join(_PATIENCE)
        died = process.exitcode == -signal.SIGKILL
        connection.close()
        process.kill()
        process.join()
        return died

    def _send(self, connection: Connection, job: object) -> None:
        with suppress(OSError):  # that it is gone is told where its answer is read: the others' must be read as well
            connection.send(job)

    def _receive(self, connection: Connection) -> tuple[bool | None, Any]:
        """Whether it was done, and what came of it; None: no answer."""
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
        """End the processes; `kill`: whatever they are doing."""
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
    """The life of a process: turns, until it is told to go or nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us ends us
    storage: wal.Storage | None = None
    with suppress(EOFError, OSError), ThreadPoolExecutor(THREADS) as threads:
        while (job := connection.recv()) is not None:
            try:
                storage = storage or wal.open_storage(url, options)
                told: tuple[bool, Any] = True, _together(threads, storage, number, *job[1:])
            except Exception as error:  # noqa: BLE001 - reported by whoever asked
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
