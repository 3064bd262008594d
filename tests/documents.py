"""Runs the examples of one Markdown file as a reader would: in order, in one folder, in one Python.

    python tests/documents.py FILE WORKDIR

`python` blocks share one namespace, `shell` and `bash` blocks run with `bash -e` in the same folder. Paths under /tmp
become paths under WORKDIR/tmp, so that no run meets another's leftovers. The checkout's programs are there as they
would be for somebody who stands in it. A first failing block ends the run and is named by file and line.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
TEMPORARY = re.compile(r"(?<![\w./:-])/tmp/")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced example."""

    language: str  # first word of the info string
    line: int  # of its first line of code, from 1
    code: str


def blocks(text: str) -> list[Block]:
    """Every fenced block of a Markdown text, in order."""
    found = []
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["body"].splitlines(keepends=True))
        language = (match["info"].split() or [""])[0]
        found.append(Block(language, text.count("\n", 0, match.start("body")) + 1, code))
    return found


def runnable(path: Path) -> list[Block]:
    return [block for block in blocks(path.read_text()) if block.language in {"python", "shell", "bash", "sh"}]


def link_checkout(workdir: Path) -> None:
    (workdir / "tmp").mkdir()
    for name in ("tools", "examples", "benchmarks", "docs"):
        if (ROOT / name).is_dir():
            (workdir / name).symlink_to(ROOT / name)


def run(path: Path, workdir: Path) -> None:
    """Run all blocks in the current process, whose working folder is `workdir`."""
    link_checkout(workdir)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in runnable(path):
        print(f"--- {path.name}:{block.line} ({block.language})", flush=True)
        code = TEMPORARY.sub(f"{workdir}/tmp/", block.code)
        if block.language == "python":
            # newlines in front: tracebacks show the line of the document
            exec(compile("\n" * (block.line - 1) + code, str(path), "exec"), namespace)  # noqa: S102
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
