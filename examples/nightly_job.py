"""A nightly job that may be killed, started twice, or run beside others: it adds each night's version once.

python examples/nightly_job.py ROOT DAY
"""

from __future__ import annotations

import json
import sys

from metatree import Metatree, Transaction


def train(day: str) -> tuple[bytes, float]:
    """Stands for hours of work: the model's bytes and how good it is."""
    score = sum(map(ord, day)) % 100 / 100
    return json.dumps({"trained": day, "threshold": score}).encode(), score


def main() -> None:
    if len(sys.argv) != 3:
        print(f"usage: {sys.argv[0]} ROOT DAY, such as /tmp/my-model-repository 2024-05-01", file=sys.stderr)
        sys.exit(2)
    root, day = sys.argv[1:]
    weights, score = train(day)
    with Metatree(root, ("model", "version")) as tree:
        with tree.transaction(f"night of {day}", idempotency_key=f"nightly {day}") as txn:
            tree.put(f"nightly/{day}", weights, name="weights.json", force=True)
            tree.update(f"nightly/{day}", score=score)
        print("was there already" if txn.replayed else "added", f"at {txn.lsn}")

        def activate_the_best(_: Transaction) -> str:
            """Reads all versions: if another job adds one meanwhile, it conflicts, and `run` does it again."""
            versions = tree.find("nightly").children
            best = max(versions, key=lambda version: tree.find(f"nightly/{version}").metadata["score"])
            tree.update("nightly", active=best)
            return best

        print("active:", tree.run(activate_the_best))


if __name__ == "__main__":
    main()
