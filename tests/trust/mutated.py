"""Draws mutants from a seed and asks the tests that should notice them, each on a copy of the product.

    python -m tests.trust.mutated [--seed S] [--count N] [--only NAME] [FILE ...]

Prints each mutant with how it was noticed, and its difference if it was not. Noticed means: a test fails, the tests
cannot start, or they take many times as long as without it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from coverage import CoverageData

from tests.trust.covering import TIMES
from tests.trust.mutants import MUTATED, ROOT, Mutant, is_equivalent, mutants
from tests.trust.planting import ALONE, OURS, copy_product

SLOW = ("schedules", "tenures", "servers")
OF_THE_TREE = """
committer mounts recover_command transactions api_changing api_put rewrites large_nodes replay_cases bucket_life
order_of_flushes bucket_crashes crash_points hand_edits many_drops stale_children threads_and_forks overtaken lost_marks
aborts isolation staleness following readers node_cache remembered api_repair repair_crashes trims_between_hosts
faults
"""
WAL, TREE = ROOT / "tests" / "wal", ROOT / "tests" / "tree"
# The fast files of `make coverage`, in which every branch has a test about it, and those that crash at each call.
TESTS = {
    "wal": [
        *(str(path) for path in sorted(WAL.glob("test_l*.py")) if not path.stem.endswith(SLOW)),
        *(
            f"{WAL}/test_{name}.py"
            for name in ("group", "deferred_signals", "parallel", "process", "storage_memory", "storage_posix")
        ),
    ],
    "metatree": [
        *(f"{TREE}/test_{name}.py" for name in OF_THE_TREE.split()),
        "--storage=memory",
        # what takes minutes; and another user cannot reach the copy
        "-k=not second_crash and not error_at_any and not flipping and not without_write_permission",
    ],
}
# a signal, so that what a hanging test made is removed
OPTIONS = "-x -q -p pytest_timeout -p no:cacheprovider -p no:tests.order --timeout=60 -o timeout_method=signal"
LONGER = 3  # times as long as without a mutant: it does not end


class Trial:
    """A copy of the product, and tests of it: files, and options of pytest."""

    def __init__(self, folder: Path, tests: Sequence[str]) -> None:
        self._folder, self._product, self._output = folder, folder / "product", folder / "output"
        self._tests = tests
        (folder / "tmp").mkdir(parents=True)
        copy_product(self._product)
        self._learn()

    def _learn(self) -> None:
        """Without a mutant the tests pass; which lines each of them runs, and how long it takes."""
        data, seconds = self._folder / "coverage", self._folder / "seconds"
        covered = ["-m", "coverage", "run", "--rcfile=/dev/null", f"--data-file={data}", f"--source={self._product}"]
        how = self._run([*covered, "-m", "pytest", "-p", "tests.trust.covering"], self._tests, None)
        if how:
            raise RuntimeError(f"without a mutant: {how}\n{self._output.read_text(errors='replace')[-4000:]}")
        self._seconds: dict[str, float] = json.loads(seconds.read_text())
        self._lines = CoverageData(str(data))
        self._lines.read()

    def noticed(self, mutant: Mutant) -> str:
        """How the tests notice it; "": they do not. Those that run its lines, the shortest first; if none does so by
        itself (a process of its own may), all."""
        path = self._product / mutant.file
        source = path.read_bytes()
        path.write_bytes(mutant.planted(source))
        try:
            return self._fail(self._running(mutant) or self._tests)
        finally:
            path.write_bytes(source)

    def _running(self, mutant: Mutant) -> list[str]:
        by_line = self._lines.contexts_by_lineno(str(self._product / mutant.file))
        found = {test for line in mutant.lines for test in by_line.get(line, ()) if test}
        return sorted(found, key=lambda test: self._seconds[test])

    def _fail(self, tests: Sequence[str]) -> str:
        known = [self._seconds[test] for test in tests if test in self._seconds] or self._seconds.values()
        return self._run(["-m", "pytest"], tests, 60 + LONGER * sum(known))

    def _run(self, program: Sequence[str], tests: Sequence[str], bound: float | None) -> str:
        arguments = self._folder / "arguments"
        arguments.write_text("\n".join(tests))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        paths = os.pathsep.join(map(str, (self._product, ROOT, ROOT / "tools")))
        own = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self._folder / "tmp")}
        own["PYTHONSAFEPATH"] = "1"  # also programs that a test starts take the product from there
        own[TIMES] = str(self._folder / "seconds")
        options = [*OPTIONS.split(), "-o", f"pythonpath={self._product}", f"@{arguments}"]
        command, environment = [sys.executable, *program, *options], {**clean, **ALONE, **own}
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            try:
                status = process.wait(bound)
            except subprocess.TimeoutExpired:
                return "does not end"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return "" if status == 0 else self._first_failure() or f"the tests ended with {status}"

    def _first_failure(self) -> str:
        lines = self._output.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith(("FAILED ", "ERROR "))), "")[:150]


def drawn(seed: str, files: Sequence[str]) -> Iterator[Mutant]:
    """All mutants of these modules that a test can notice, in an order that follows from the seed."""
    found = [mutant for file in files for mutant in mutants(file) if not is_equivalent(mutant)]
    random.Random(seed).shuffle(found)
    yield from found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=sum(MUTATED.values(), ()), metavar="FILE")
    parser.add_argument("--seed", default=os.urandom(4).hex())
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--only", metavar="NAME")
    given = parser.parse_args(argv)
    chosen = [m for m in drawn(given.seed, given.files) if given.only in (None, m.name)][: given.count]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="metatree-mutants-") as folder:
        halves = {mutant.half for mutant in chosen}
        trials = {half: Trial(Path(folder, half), TESTS[half]) for half in halves}
        for mutant in chosen:
            how = trials[mutant.half].noticed(mutant)
            survived += not how
            print(f"{mutant}\n  {how or 'NOT NOTICED'}", flush=True)
    print(f"{len(chosen)} mutants, {survived} not noticed; seed {given.seed}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
