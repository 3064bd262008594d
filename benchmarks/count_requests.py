"""python benchmarks/count_requests.py [--old PYTHON]

Prints how many requests a tree in a bucket makes, counted in the client (aiobotocore), on a SeaweedFS started for it:
Metatree of this checkout and, with `--old`, metatreedb 0.2.3 beside it. PYTHON is an interpreter that has it:

    python -m venv /tmp/old && /tmp/old/bin/pip install metatreedb==0.2.3 s3fs
    python benchmarks/count_requests.py --old /tmp/old/bin/python

`create` asks the server once whether it honours conditions; the answer is kept in the user's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
STEPS = ("create", "put", "put in the background", "find", "update", "transaction of 1,000 puts", "open")

# Runs in a process of its own; argv: "new" | "old", the bucket's URL, storage options as JSON.
# Prints JSON: step -> requests, on average of those repetitions that it makes, or what was raised.
CHILD = """
import json, sys, tempfile, pathlib
import aiobotocore.client as client
which, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
counted, plain = [0], client.AioBaseClient._make_request
async def counting(self, *arguments):
    counted[0] += 1
    return await plain(self, *arguments)
client.AioBaseClient._make_request = counting
if which == "new":
    from metatree import Metatree
else:
    from metatree.metatree import Metatree
    options["client_kwargs"] = {"endpoint_url": options.pop("endpoint_url")}
found = {}
def step(name, run, times=1):
    counted[0] = 0
    try:
        for _ in range(times):
            result = run()
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"[:70]
        return None
    found[name] = round(counted[0] / times, 1)
    return result
blob = pathlib.Path(tempfile.mkdtemp()) / "b"
blob.write_bytes(bytes(1024))
keys = ("model", "version")
tree = step("create", lambda: Metatree(url, keys, **options))
versions = iter(range(10_000))
put = lambda: tree.put(f"m/v{next(versions)}", str(blob))
def prepare():
    put(); tree.find("m"); tree.update(active="v0"); put()
step("warm up", prepare)
step("put", put, 10)
step("find", lambda: tree.find("m/<active>"), 10)
def update():
    tree.update(accuracy=next(versions))
tree.find("m/<active>")
step("update", update, 10)
if which == "new":
    tree.flush()
    step("open", lambda: Metatree(url, **options))
    quiet = Metatree(url, apply="background", **options)
    quiet.put("m/w", str(blob)); quiet.flush(); quiet._engine.committer.stop()
    step("put in the background", lambda: quiet.put(f"m/v{next(versions)}", str(blob)), 10)
    tree.flush()
    def block():
        with tree.transaction():
            for _ in range(1000):
                put()
    step("transaction of 1,000 puts", block)
else:
    step("open", lambda: Metatree(url, keys, **options))
    found["put in the background"] = "cannot"
    found["transaction of 1,000 puts"] = "cannot"
tree.close() if which == "new" else None
print(json.dumps(found))
"""


def count(python: str, which: str, url: str, options: dict[str, str]) -> dict[str, object]:
    """What one library needs."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT) if which == "new" else ""}
    with tempfile.TemporaryDirectory() as folder:  # the checkout's `metatree` must not be found from where it runs
        done = subprocess.run(
            [python, "-c", CHILD, which, url, json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            check=True,
        )
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", help="a Python that has metatreedb 0.2.3")
    given = parser.parse_args()
    sys.path.insert(0, str(CHECKOUT / "tools"))
    from serve_s3 import serving

    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        found = {"metatree": count(sys.executable, "new", f"s3://{server.bucket}/new", server.options)}
        if given.old:
            found["metatreedb 0.2.3"] = count(given.old, "old", f"s3://{server.bucket}/old", server.options)
    print(f"{'requests (each)':<28}", *(f"{name:>20}" for name in found))
    for step in STEPS:
        print(f"{step:<28}", *(f"{results.get(step, '')!s:>20}" for results in found.values()))


if __name__ == "__main__":
    main()
