"""The two programs that `demo.py` kills. Each works on the tree that the quick start of README.md made.

    python tools/crash_demo.py unfinished ROOT    stands in the middle of a transaction until it is killed
    python tools/crash_demo.py committed ROOT     commits in the background, and kills itself before the files follow

Nothing is simulated: both die by SIGKILL, which no program can catch.
"""

from __future__ import annotations

import os
import signal
import sys

from metatree import Metatree


def unfinished(root: str) -> None:
    """Three changes of a transaction that never ends; the blob is large enough to wait in the staging area."""
    tree = Metatree(root)
    with tree.transaction("release of v5, never finished"):
        tree.put("my-awful-model/v5", bytes(1_000_000), name="weights.bin")
        tree.update("my-awful-model/v5", stage="candidate")
        tree.update("my-awful-model", active="v5")
        print("in the middle", flush=True)
        sys.stdin.read()  # until it is killed: nobody ever writes


def committed(root: str) -> None:
    """A transaction whose block ended, so that it is durable; the folders would follow within 50 ms."""
    tree = Metatree(root, apply="background")
    with tree.transaction("release of v4"):
        tree.put("my-awful-model/v4", b"four", name="trained.pkl")
        tree.update("my-awful-model/v4", model_file="trained.pkl")
        tree.update("my-awful-model", active="v4")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    {"unfinished": unfinished, "committed": committed}[sys.argv[1]](sys.argv[2])
