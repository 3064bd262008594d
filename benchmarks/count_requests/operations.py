"""Counts what single operations ask for. Runs as a program of its own, in the environment of the library it counts:

    python operations.py new|old URL STORAGE_OPTIONS_AS_JSON

Prints JSON: operation -> [requests, bytes sent, bytes received], on average of its repetitions, or what was raised.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEYS = ("model", "version")
TIMES = 10
LOT = 1000  # puts of one transaction

Found = dict[str, list[float] | str]


class Counting:
    """Runs operations one after the other."""

    def __init__(self) -> None:
        from wire import Wire  # type: ignore[import-not-found]  # beside this file, which runs as a program

        self.found: Found = {}
        self._wire = Wire()
        self._wire.watch()

    def step(self, name: str, run: Callable[[], Any], times: int = TIMES) -> Any:
        """Run and note it; None if it raised."""
        before = self._figures()
        try:
            for _ in range(times):
                result = run()
        except Exception as error:  # noqa: BLE001 - it is a result
            self.found[name] = f"{type(error).__name__}: {error}"[:60]
            return None
        self.found[name] = [(now - then) / times for now, then in zip(self._figures(), before, strict=True)]
        return result

    def _figures(self) -> tuple[int, int, int]:
        return self._wire.requests, self._wire.sent, self._wire.received


def single(counting: Counting, tree: Any, blob: str) -> Callable[[], Any]:
    """The operations that both libraries have, on a warm handle; returns a put of one more version."""
    versions = iter(range(1_000_000))

    def put() -> object:
        return tree.put(f"m/v{next(versions)}", blob)

    def warm_up() -> None:
        put()
        tree.find("m")
        tree.update(active="v0")
        put()

    counting.step("warm up", warm_up, 1)
    counting.step("put", put)
    counting.step("find", lambda: tree.find("m/<active>"))
    counting.step("find + metadata", lambda: dict(tree.find("m/<active>").metadata))
    counting.step("get", lambda: b"".join(tree.get("m/<active>/b")))
    tree.find("m/<active>")
    counting.step("update", lambda: tree.update(accuracy=next(versions)))
    return put


def count_old(counting: Counting, url: str, options: dict[str, Any], blob: str) -> None:
    """metatreedb 0.2.3."""
    from metatree.metatree import Metatree  # type: ignore[import-not-found]

    tree = counting.step("create", lambda: Metatree(url, KEYS, **options), 1)
    single(counting, tree, blob)
    counting.step("open", lambda: Metatree(url, KEYS, **options), 1)


def count_new(counting: Counting, url: str, options: dict[str, Any], blob: str) -> None:
    """Metatree."""
    from metatree import Metatree

    def lot(handle: Metatree, prefix: str) -> None:
        with handle.transaction():
            for number in range(LOT):
                handle.put(f"m/{prefix}{number}", blob)

    with counting.step("create", lambda: Metatree(url, KEYS, **options), 1) as tree:
        single(counting, tree, blob)
        tree.flush()
        counting.step("open", lambda: Metatree(url, **options), 1).close()
        quiet = Metatree(url, apply="background", **options)
        quiet.put("m/w", blob)
        quiet.flush()
        quiet._engine.committer.stop()  # what is counted is the call's own
        numbers = iter(range(2 * TIMES))
        counting.step("put in the background", lambda: quiet.put(f"m/q{next(numbers)}", blob))
        counting.step("update in the background", lambda: quiet.update("m/w", accuracy=next(numbers)))
        counting.step("1,000 puts, until committed", lambda: lot(quiet, "l"), 1)
        quiet.close()
        tree.find("m")
        counting.step("1,000 puts, files in place", lambda: lot(tree, "t"), 1)


def main() -> None:
    which, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    counting = Counting()
    with tempfile.TemporaryDirectory() as folder:
        blob = Path(folder) / "b"
        blob.write_bytes(bytes(1024))
        (count_new if which == "new" else count_old)(counting, url, options, str(blob))
    print(json.dumps(counting.found))


if __name__ == "__main__":
    main()
