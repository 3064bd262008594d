"""See it work, in ten seconds: the quick start, and two processes that are killed. Started by `make demo`.

    python tools/demo.py

1. The quick start is read out of README.md and run as it stands there, once with each import; only its folder is
   a new temporary one.
2. Two processes are killed with SIGKILL: one in the middle of a transaction, one when its commit is durable but its
   files have not followed.
3. `metatree-recover` runs. What was committed must be there to the last byte, of the rest there must be nothing.

Exit status: 0 if everything was as promised, 1 at the first thing that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from metatree import Metatree

README = Path(__file__).resolve().parent.parent / "README.md"
CRASHES = Path(__file__).resolve().with_name("crash_demo.py")
PUBLISHED = "/tmp/my-model-repository"  # noqa: S108  the folder that the published text names
ATTEMPTS = 50  # to kill a process within the milliseconds between its commit and its files


class BrokenPromiseError(Exception):
    """Something was not as the README says."""


def main() -> int:
    """The whole demonstration; the exit status."""
    base = Path(tempfile.mkdtemp(prefix="metatree-demo-"))
    try:
        root = base / "my-model-repository"
        show_quick_start(base, root)
        before = visible(root)
        show_crashes(root, before)
        show_recovery(root, before)
    except BrokenPromiseError as error:
        print(f"\nNOT AS PROMISED: {error}\nThe tree is kept for a look: {base}", file=sys.stderr)
        return 1
    shutil.rmtree(base)
    print("\nEverything was as promised; the folders of this demo are removed.")
    return 0


# --- 1. the quick start -----------------------------------------------------------------------------------------------


def show_quick_start(base: Path, root: Path) -> None:
    """Run it with each import; the second tree must have the same folders as the first."""
    code = quick_start()
    title("The quick start of README.md")
    print(code)
    run_program(code.replace(PUBLISHED, str(root)))
    say(f"it printed the location of the active version, and made {root}:")
    show_folders(root)
    promise(parsed(root) == expected("v2", "v1", "v2", "v3"), "every metadata.json holds what the README says")
    twin = base / "with-the-other-import"
    run_program(code.replace(PUBLISHED, str(twin)).replace("from metatree import", "from metatreedb import"))
    promise(parsed(twin) == parsed(root), "`from metatreedb import Metatree` does the same")


def quick_start() -> str:
    """The first Python block below the heading, so that this program cannot drift from what is published."""
    chapter = README.read_text().partition("\n## Quick start\n")[2]
    code = chapter.partition("```python\n")[2].partition("```")[0]
    promise(PUBLISHED in code and "from metatree import Metatree" in code, "README.md has its quick start", quiet=True)
    return code


def run_program(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    promise(done.returncode == 0, f"the program runs\n{done.stderr}", quiet=True)


# --- 2. two crashes ---------------------------------------------------------------------------------------------------


def show_crashes(root: Path, before: dict[str, bytes]) -> None:
    """Leave the tree as two processes left it that were killed, and show what its folders then say."""
    title("Two processes are killed (kill -9)")
    for _ in range(ATTEMPTS):
        if kill_two(root):
            break
        undo_v4(root)  # the files were faster than the signal: once more
    say("one had put v5 and made it active, in a transaction whose end it never reached")
    say("one had put v4 and made it active, its block had ended: the files had no time to follow")
    promise(visible(root) == before, "the folders show neither: all files are as they were before")
    staged = sorted((root / ".wal" / "staged").iterdir())
    promise(len(staged) == 1, "of v5 there are only staged bytes, in the engine's own folder")
    with Metatree(str(root), read_only=True) as tree:
        promise(tree.find("my-awful-model").metadata["active"] == "v4", "a reader sees v4 already: it is in the log")
        promise(not tree.exists("my-awful-model/v5"), "... and no v5: it never was committed")


def kill_two(root: Path) -> bool:
    """Whether the second process died before its files followed."""
    command = [sys.executable, str(CRASHES)]
    middle = subprocess.Popen([*command, "unfinished", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with middle:
        assert middle.stdout is not None  # noqa: S101  Popen was asked for it
        promise(middle.stdout.readline() == b"in the middle\n", "the transaction is under way", quiet=True)
        done = subprocess.run([*command, "committed", str(root)])
        middle.kill()
    killed = {middle.returncode, done.returncode} == {-9}
    promise(killed, "both processes died by SIGKILL", quiet=True)
    return not (root / "my-awful-model" / "v4").exists() and '"v4"' not in model_file(root).read_text()


def undo_v4(root: Path) -> None:
    with Metatree(str(root)) as tree, tree.transaction():
        tree.delete("my-awful-model/v4", recursive=True)
        tree.update("my-awful-model", active="v2")
    shutil.rmtree(root / ".wal" / "quarantine", ignore_errors=True)


# --- 3. recovery ------------------------------------------------------------------------------------------------------


def show_recovery(root: Path, before: dict[str, bytes]) -> None:
    """Recover twice; then compare with what was before, and with what was committed."""
    title("metatree-recover")
    promise("1 transactions were replayed" in recover(root), "it replayed the one commit", quiet=True)
    say("the folders afterwards:")
    show_folders(root)
    after = visible(root)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    v4 = ["my-awful-model/v4/metadata.json", "my-awful-model/v4/trained.pkl"]
    promise(changed == ["my-awful-model/metadata.json", *v4], "v4 is there whole, no other file has changed")
    promise(parsed(root) == expected("v4", "v1", "v2", "v3", "v4"), "every metadata.json holds what was committed")
    promise(after[v4[1]] == b"four", "the blob holds every byte of what was committed")
    promise(not (root / "my-awful-model" / "v5").exists(), "of v5 nothing is there: nothing is half done")
    with Metatree(str(root)) as tree:
        report = tree.check(deep=True)
    promise(report.ok, f"check() finds no problem ({report.nodes} nodes, {report.blobs} blobs)")
    promise("clean" in recover(root), "a second recovery has nothing to do")


def recover(root: Path) -> str:
    """Run the command as an operator would; what it printed."""
    script = Path(sys.executable).with_name("metatree-recover")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "metatree.recover_command"]
    print(f"  $ metatree-recover {root}")
    done = subprocess.run([*command, str(root)], capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"    {line}")
    promise(done.returncode == 0, "metatree-recover succeeds", quiet=True)
    return done.stdout


# --- looking and telling ----------------------------------------------------------------------------------------------


def visible(root: Path) -> dict[str, bytes]:
    """Every file that people and other programs see, and its content: all but what begins with a dot in the root."""
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {name.as_posix(): (root / name).read_bytes() for name in names if not name.parts[0].startswith(".")}


def parsed(root: Path) -> dict[str, object]:
    """Every metadata.json, parsed."""
    return {name: json.loads(data) for name, data in visible(root).items() if name.endswith("metadata.json")}


def expected(active: str, *versions: str) -> dict[str, object]:
    """Every metadata.json as the quick start, and the transaction that was committed, should leave it."""
    nodes: dict[str, object] = {
        "metadata.json": {"children": ["my-awful-model"]},
        "my-awful-model/metadata.json": {"children": [*versions], "active": active},
    }
    return nodes | {f"my-awful-model/{v}/metadata.json": {"model_file": "trained.pkl"} for v in versions}


def model_file(root: Path) -> Path:
    return root / "my-awful-model" / "metadata.json"


def show_folders(root: Path) -> None:
    """The folders as a tree; each metadata.json with its content in one line."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        depth = len(Path(folder).relative_to(root).parts)
        print(f"    {'  ' * depth}{Path(folder).name}/")
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(folder, name)
            content = json.dumps(json.loads(path.read_bytes())) if name == "metadata.json" else ""
            print(f"    {'  ' * depth}  {name}  {content}".rstrip())


def title(text: str) -> None:
    print(f"\n=== {text} ===\n")


def say(text: str) -> None:
    print(f"  {text}")


def promise(kept: bool, text: str, *, quiet: bool = False) -> None:
    """Say that something is as it should be. Raises BrokenPromiseError if it is not."""
    if not kept:
        raise BrokenPromiseError(text)
    if not quiet:
        print(f"  [ok] {text}")


if __name__ == "__main__":
    sys.exit(main())
