"""metatreedb 0.2.3, as published. Its import name is `metatree` as well: it lives in an environment of its own, made
when it is first asked for, and works in a child process that times itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.peers.base import BLOB_NAME, Measured, NotInstalled, Peer, Store

RELEASE = "metatreedb==0.2.3"
ENVIRONMENT = Path(__file__).resolve().parents[2] / ".environments" / "metatreedb-0.2.3"
CHILD = Path(__file__).with_name("metatreedb_child.py")


class OldTree(Store):
    """A tree in a child process: each verb is one line there and one line back."""

    def __init__(self, child: subprocess.Popen[str], folder: Path) -> None:
        self._child = child
        self._sources = folder / "sources"
        self._made: dict[bytes, str] = {}
        self.opening = self._hear().value

    def put(self, model: str, version: str, content: bytes) -> Measured:
        """From a file, for it takes nothing else."""
        if content not in self._made:
            source = self._sources / str(len(self._made)) / BLOB_NAME
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(content)
            self._made[content] = str(source)
        return self._ask("put", f"{model}/{version}", self._made[content])

    def put_many(self, model: str, versions: Sequence[str], content: bytes) -> Measured:
        """One by one: it has no transactions."""
        return Measured(sum(self.put(model, version, content).value for version in versions))

    def put_file(self, model: str, version: str, source: Path) -> Measured:
        return self._ask("put", f"{model}/{version}", str(source))

    def update(self, model: str, version: str, values: Mapping[str, Any]) -> Measured:
        return self._ask("update", f"{model}/{version}".rstrip("/"), values)

    def find_active(self, model: str) -> Measured:
        return self._ask("metadata", f"{model}/<active>")

    def get(self, model: str, version: str) -> Measured:
        return self._ask("get", f"{model}/{version}/{BLOB_NAME}")

    def download(self, model: str, version: str, target: Path) -> Measured:
        return self._ask("download", f"{model}/{version}/{BLOB_NAME}", str(target))

    def fill(self, model: str, versions: Sequence[str]) -> None:
        self.put(model, versions[0], b"")
        metadata = self._sources.parent / "tree" / model / "metadata.json"
        metadata.write_text(json.dumps({"children": [*versions]}))

    def versions(self, model: str) -> set[str]:
        return set(self._ask("metadata", model).result["children"])

    def _ask(self, verb: str, *arguments: object) -> Measured:
        print(json.dumps([verb, *arguments]), file=self._child.stdin, flush=True)
        return self._hear()

    def _hear(self) -> Measured:
        assert self._child.stdout is not None
        answer = json.loads(self._child.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"metatreedb: {answer['error']}")
        return Measured(answer["micros"], answer["result"])


@cache
def interpreter() -> str:
    """The Python that has it, made and filled if it is not there. Raises NotInstalled."""
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "complete"
    if not done.exists():
        print(f"(installing {RELEASE} into {ENVIRONMENT})", file=sys.stderr)
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", RELEASE]
        made = subprocess.run(pip, capture_output=True, text=True)
        if made.returncode:
            raise NotInstalled(f"not installed ({(made.stderr.splitlines() or ['pip failed'])[-1][:80]})")
        done.touch()
    return str(python)


@contextmanager
def opened(folder: Path) -> Iterator[OldTree]:
    # -I: neither PYTHONPATH nor the current folder may lead it to this checkout's `metatree`
    command = [interpreter(), "-I", str(CHILD), str(folder / "tree")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield OldTree(child, folder)


PEERS = (Peer("metatreedb 0.2.3", opened, "metatree", python=interpreter),)
