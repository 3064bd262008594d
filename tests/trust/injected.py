"""Kills a real process, or fails it, at its N-th system call of a kind: `strace` attached to a forked child.

    python -B -m tests.trust.injected LIFE [--only CALL WHAT N] [--mode kill|error] [--part P] [--seconds S] [--seed S]

Without `--only` a seeded part of all points. Prints one line of JSON: how many points there are, how many were tried,
at how many the fault struck, and what was found, each with the command that repeats it. The child is forked when the
program is warm, so that N counts what the tree does and not how Python starts. N counts in each thread by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from tests.trust.lives import LIVES, Notes, copy_folder, live, make_start, states, wrong

SPACE = ("EIO", "ENOSPC", "EDQUOT")
NAMES = (*SPACE, "EROFS", "EACCES")
ERRORS = {
    "openat": ("EMFILE", "ENFILE", "EIO", "ENOSPC", "EACCES", "EINTR"),
    "pwrite64": (*SPACE, "EINTR"),
    "write": (*SPACE, "EINTR"),
    "fsync": (*SPACE, "EINTR"),
    "fdatasync": (*SPACE, "EINTR"),
    "syncfs": SPACE,
    "ftruncate": SPACE,
    "fallocate": (*SPACE, "EINTR"),
    "copy_file_range": SPACE,
    "setxattr": (*SPACE, "EPERM"),
    "fsetxattr": (*SPACE, "EPERM"),
    "rename": NAMES,
    "renameat": NAMES,
    "renameat2": NAMES,
    "link": NAMES,
    "linkat": NAMES,
    "unlink": NAMES,
    "unlinkat": NAMES,
    "rmdir": NAMES,
    "mkdir": NAMES,
    "mkdirat": NAMES,
    "flock": ("EIO", "ENOLCK", "EINTR"),
}
FLUSHES = ("fsync", "fdatasync", "syncfs")  # the data is still in memory here, and looks right: only telling shows it
BOUND = 20.0  # seconds; a life takes a hundredth of it: longer is a hang


@dataclass(frozen=True)
class Point:
    """Where the fault strikes."""

    call: str
    what: str  # "KILL", or an error; with "+" at its end: from then on
    number: int

    @property
    def injection(self) -> str:
        how = "signal=KILL" if self.what == "KILL" else f"error={self.what.rstrip('+')}"
        return f"{self.call}:{how}:when={self.number}{'+' if self.what.endswith('+') else ''}"


@dataclass
class Summary:
    """What was done."""

    life: str
    seed: str
    points: int = 0
    tried: int = 0
    struck: int = 0  # where the fault came; threads may make fewer calls than the first time
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


class Watch:
    """Runs one life again and again, each time from the same folder."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self._life, self._folder = name, LIVES[name], folder
        self._start = f"{folder}/start"
        make_start(self._life.start, self._start)
        copy_folder(self._start, f"{folder}/warm")
        self.states = states(self._life, f"{folder}/warm")
        self._number = 0

    def run(self, *options: str) -> tuple[Notes, str]:
        """One life under strace: its notes, and the folder that it left."""
        self._number += 1
        root = f"{self._folder}/{self._number}"
        copy_folder(self._start, root)
        notes = Notes()
        pid = os.fork()
        if pid == 0:
            try:
                notes.wait()
                live(self._life, root, notes)
            finally:
                os._exit(0)
        command = ["strace", "-f", "-q", "-p", str(pid), *options]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _await_tracer(pid, tracer)
            notes.let_go()
            notes.hangs = not _await_end(pid)
        finally:
            tracer.wait()
        return notes, root

    def calls(self) -> dict[str, int]:
        """How many calls of each kind there are, in the thread that has most."""
        trace = f"{self._folder}/trace"
        notes, root = self.run("-o", trace, "-e", f"trace={','.join(ERRORS)}")
        problem = wrong(self.states, notes, root)
        if problem is not None:
            raise AssertionError(f"without a fault: {problem}")
        shutil.rmtree(root)
        with open(trace, encoding="utf-8", errors="replace") as lines:
            found = Counter(match.groups() for line in lines if (match := re.match(r"(\d+) +(\w+)\(", line)))
        os.unlink(trace)
        most: dict[str, int] = {}
        for (_, call), count in found.items():
            most[call] = max(most.get(call, 0), count)
        return most

    def strike(self, point: Point, summary: Summary) -> None:
        trace = f"{self._folder}/trace"
        inject = ["-e", f"trace={point.call},getppid", "-e", f"inject={point.injection}"]
        notes, root = self.run("-o", trace, *inject)
        with open(trace, "rb") as lines:
            before, _, closing = lines.read().partition(b"getppid(")
        acting = b"(INJECTED)" in before
        summary.tried += 1
        summary.struck += notes.ending is None or acting or b"(INJECTED)" in closing
        problem = self._problem(point, notes, root, acting=acting)
        shutil.rmtree(root)
        if problem is not None:
            again = f'"{self.name}" --only {point.call} {point.what} {point.number}'
            summary.findings.append(f"{problem}\nagain: python -B -m tests.trust.injected {again}")

    def _problem(self, point: Point, notes: Notes, root: str, *, acting: bool) -> str | None:
        problem, ending = wrong(self.states, notes, root), notes.ending
        if point.what == "KILL":
            return problem
        if ending is None:
            return f"it {f'hung for {BOUND} s' if notes.hangs else 'died'}: {problem}"
        # A checkpoint that fails when the tree is closed is no error, the log is kept.
        if acting and not ending.raised and point.call in FLUSHES and point.what != "EINTR":
            return "a flush failed, and nobody was told"
        return problem


def _await_tracer(pid: int, tracer: subprocess.Popen[bytes]) -> None:
    while True:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            if "TracerPid:\t0\n" not in status.read():
                return
        if tracer.poll() is not None:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise OSError(f"strace could not attach, status {tracer.returncode}")
        time.sleep(0.0005)


def _await_end(pid: int) -> bool:
    """False: it did not come to an end."""
    end = time.monotonic() + BOUND
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.0005)
    return True


def points(calls: dict[str, int], mode: str) -> Iterator[Point]:
    """Every one."""
    for call in sorted(calls):
        for number in range(1, calls[call] + 1):
            if mode == "kill":
                yield Point(call, "KILL", number)
                continue
            for error in ERRORS[call]:
                yield Point(call, error, number)
                if error != "EINTR":  # interrupted for ever is tried again for ever
                    yield Point(call, f"{error}+", number)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("life", choices=LIVES)
    parser.add_argument("--only", nargs=3, metavar=("CALL", "WHAT", "N"))
    parser.add_argument("--mode", choices=("kill", "error"), default="kill")
    parser.add_argument("--part", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=0.0, help="go on with the rest of the points for so long")
    parser.add_argument("--seed", default=os.urandom(4).hex())
    given = parser.parse_args(argv)
    summary = Summary(given.life, given.seed)
    started = time.monotonic()
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="metatree-injected-", dir=base) as folder:
        watch = Watch(given.life, folder)
        if given.only:
            watch.strike(Point(given.only[0], given.only[1], int(given.only[2])), summary)
        else:
            every = list(points(watch.calls(), given.mode))
            random.Random(given.seed).shuffle(every)
            summary.points = len(every)
            least = max(1, round(given.part * len(every)))
            for index, point in enumerate(every):
                if index >= least and time.monotonic() - started > given.seconds:
                    break
                watch.strike(point, summary)
    summary.seconds = round(time.monotonic() - started, 1)
    print(json.dumps(asdict(summary)))
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
