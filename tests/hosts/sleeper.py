"""A process that stops itself (SIGSTOP) just before the k-th storage call after its commit, as if its host slept.

It reads a line of JSON for each round, {"change": name, "node": "m/v7", "call": k}, makes that change, and says "done".
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture_place import Place

from metatree import Metatree
from tests.hosts.stepping import Stepping
from wal.testing import Mounted
from wal.testing.boundary import Boundary, Call

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds to come to a stop or to an end

LARGE = 70_000  # bytes; is staged


def make_again(tree: Metatree, node: str) -> None:
    """... and make a checkpoint."""
    with tree.transaction():
        tree.delete(node, recursive=True)
        tree.put(node, b"x" * LARGE, name="weights")
    tree.checkpoint()


CHANGES: dict[str, Callable[[Metatree, str], object]] = {
    "put a version": lambda tree, node: tree.put(node, b"first", name="weights"),
    "put a blob": lambda tree, node: tree.put(node, b"more", name="more"),
    "replace a blob": lambda tree, node: tree.put(node, b"second", name="weights", force=True),
    "update": lambda tree, node: tree.update(node, x=1),
    "delete": lambda tree, node: tree.delete(node, recursive=True),
    "move": lambda tree, node: tree.move(node, f"{node}-moved"),
    "make again, checkpoint": make_again,
}


class Stop:
    """Counts calls once a slot was created, and stops the process before the one that was asked for."""

    def __init__(self) -> None:
        self.at = 0  # 0: never
        self._count = 0
        self._committed = False

    def arm(self, at: int) -> None:
        self.at, self._count, self._committed = at, 0, False

    def created(self, name: str) -> None:
        self._committed = self._committed or name.endswith(".rec")

    def __call__(self, method: str, arguments: tuple[Any, ...]) -> None:
        if self._committed and self.at:
            self._count += 1
            if self._count == self.at:
                self.at = 0
                os.kill(os.getpid(), signal.SIGSTOP)


class StoppingPosix(Boundary):
    """The same before calls of the system."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(Mounted())
        self._stop = stop

    def kernel_file(self, path: str) -> bytes:
        return self.inner.kernel_file(path)

    def around(self, call: Call, run: Callable[[], Any], tear: Callable[[], Any] | None) -> Any:
        if call.number:  # it changes something
            self._stop(call.method, call.arguments)
        result = run()
        if call.method == "link":
            self._stop.created(str(call.arguments[-1]))
        return result


def main() -> None:
    """In the process that sleeps."""
    warnings.simplefilter("error")
    place, by_call_of_system = Place.decode(sys.argv[1]), sys.argv[2] == "system"
    stop = Stop()
    if by_call_of_system:
        import wal

        storage: Any = wal.LocalStorage(place.root, posix=StoppingPosix(stop))
    else:
        storage = Stepping(place.storage(), stop, stop.created)
    with place.open_on(storage) as tree:
        print("ready", flush=True)
        for line in sys.stdin:
            told = json.loads(line)
            stop.arm(told["call"])
            CHANGES[told["change"]](tree, told["node"])
            stop.arm(0)
            print("done", flush=True)


class Sleeper:
    """The same from outside."""

    def __init__(self, place: Place, level: str) -> None:
        paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"}
        command = [sys.executable, "-m", "tests.hosts.sleeper", place.encode(), level]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT, env=paths
        )
        self._expect("ready")

    def begin(self, change: str, node: str, call: int) -> bool:
        """Whether it fell asleep; if not, its change is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"change": change, "node": node, "call": call}) + "\n")
        for _ in range(int(PATIENCE / 0.005)):
            pid, status = os.waitpid(self._process.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                return True
            assert not pid, f"it died: {status}"
            if select.select([self._process.stdout], [], [], 0.005)[0]:
                self._expect("done")
                return False
        raise AssertionError("it neither sleeps nor ends")

    def wake(self) -> None:
        """Go on, to the end of the change."""
        os.kill(self._process.pid, signal.SIGCONT)
        self._expect("done")

    def close(self) -> None:
        """It closes its tree."""
        with self._process:
            self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0

    def kill(self) -> None:
        with self._process:
            self._process.kill()

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == f"{word}\n", f"{said!r}, not {word!r}: see its standard error"


if __name__ == "__main__":
    main()
