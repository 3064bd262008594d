"""A tree from a stranger, or one that somebody tampers with: nothing outside its root is read, written or removed."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

import wal
from metatree import ApplyPendingWarning, Metatree, MetatreeError
from metatree.facts import Header, encode_header
from tests.figures import Layer
from tests.tree.model import BIG, LEVELS
from tests.trust.walls import Walls, canary, picture

PLACES = (
    "metadata.json",
    ".metatree",
    ".lock",
    "stray",
    "m",
    "m/metadata.json",
    "m/stray",
    "m/v1",
    "m/v1/metadata.json",
    "m/v1/b",
    "m/v1/big",
    "m/v1/dir",
    "m/v1/dir/inner",
    "m/v1/dir/stray",
    "m/v9",
    ".wal",
    ".wal/head",
    ".wal/apply",
    ".wal/alive",
    ".wal/opening",
    ".wal/checkpoint.json",
    ".wal/00000000000000000001.log",
    ".wal/tmp",
    ".wal/tmp/stray",
    ".wal/staged",
    ".wal/staged/stray",
    ".wal/trash",
    ".wal/trash/7",
    ".wal/quarantine",
    ".wal/quarantine/edited",
    ".wal/history",
    ".wal/epoch",
    ".wal/epoch/00000000000000000001",
    ".wal/epoch/00000000000000000001/owner",
    ".wal/epoch/00000000000000000001/work",
    ".wal/00000000000000000001.rec",
    ".wal/00000000000000000099.rec",
)


def _socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself may be too long for a socket
    finally:
        os.close(folder)
        server.close()


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "link to a file": lambda path, outside: path.symlink_to(outside / "metadata.json"),
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "FIFO": lambda path, outside: os.mkfifo(path),
    "socket": lambda path, outside: _socket(path),
}


@pytest.fixture
def place() -> Iterator[Path]:
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="metatree-walls-", dir=base) as name:
        yield Path(name)


def _open(root: Path, walls: Walls, **options: object) -> Metatree:
    return Metatree(wal.LocalStorage(str(root), posix=walls), **options)  # type: ignore[arg-type]


def _original(place: Path, *, mount: bool) -> Path:
    """Nodes and blobs of each kind, staged files, trash. On a local disk as a killed process leaves it, so that opening
    recovers; on a mount closed, since there a successor waits for the sign of life of a holder that died."""
    root, copied = place / "original", place / "killed"
    root.mkdir()
    (place / "source").mkdir()
    (place / "source/inner").write_bytes(b"inner")
    storage = wal.LocalStorage(str(root), posix=Walls(root, mount=mount))
    wal.open_log(storage, create=True, segment_size=1 << 16).close()
    with Metatree(storage, LEVELS) as tree:
        tree.put("m/v1", b"b", name="b")
        tree.put("m/v0", b"b", name="b")
        tree.checkpoint()
        tree.put("m/v1", BIG[:66_000], name="big")
        tree.put("m/v1", place / "source", name="dir", recursive=True)
        tree.delete("m/v0", recursive=True)
        tree.update("m", active="v1")
        if not mount:
            shutil.copytree(root, copied)
    return root if mount else copied


def _use(root: Path, walls: Walls) -> None:
    """Everything that reads, writes, lists or removes. Our own errors are right answers."""
    calls: list[Callable[[Metatree], object]] = [
        lambda tree: tree.check(deep=True),
        lambda tree: tree.recover(),
        lambda tree: [node.metadata for node in tree.walk()],
        lambda tree: tree.list("m/v1"),
        lambda tree: b"".join(tree.get("m/v1/b")),
        lambda tree: b"".join(tree.get("m/v1/big")),
        lambda tree: b"".join(tree.get("m/<active>/dir/inner")),
        lambda tree: tree.update("m", more=1),
        lambda tree: tree.put("m/v1", b"forced", name="b", force=True),
        lambda tree: tree.put("m/v9", BIG[:66_000], name="big"),
        lambda tree: tree.copy("m/v1", "m/v8"),
        lambda tree: tree.move("m/v1/dir", "m/v9/dir"),
        lambda tree: tree.checkpoint(),
        lambda tree: tree.delete("m/v1", recursive=True),
        lambda tree: tree.delete("m", recursive=True),
        lambda tree: tree.checkpoint(),
        lambda tree: tree.check(deep=True),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApplyPendingWarning)
        for read_only in (True, False):
            with suppress(MetatreeError), _open(root, walls, read_only=read_only) as tree:
                for call in calls:
                    with suppress(MetatreeError):
                        call(tree)


@pytest.mark.parametrize("mount", [False, True], ids=["local", "mount"])
@pytest.mark.parametrize("trap", TRAPS)
def test_what_leads_out_of_a_tree_is_never_followed(trap: str, mount: bool, place: Path, layer: Layer) -> None:
    original, outside = _original(place, mount=mount), canary(place)
    before = picture(outside)
    places = [name for name in PLACES if not (mount and name.startswith((".wal/tmp", ".wal/epoch/")))]  # there it waits
    for name in places:
        root = place / "tree"
        shutil.copytree(original, root)
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        TRAPS[trap](target, outside)
        walls = Walls(root, mount=mount)
        _use(root, walls)
        assert not walls.escapes, f"{trap} at {name}: {walls.escapes[:5]}"
        assert picture(outside) == before, f"{trap} at {name}"
        shutil.rmtree(root)
    layer.report("traps in a tree", len(places), floor=len(places), night=len(places), unit="places × kinds × storages")


# --- a log that a stranger wrote --------------------------------------------------------------------------------------

OUT = (
    "..",
    "../outside",
    "/etc",
    "m/../../outside",
    "m//v1",
    "m/\0",
    "m/v1/..",
    ".wal",
    ".wal/tmp",
    ".metatree",
    "metadata.json",
    "m/metadata.json",
    "a\\b",
    "CON",
    "m/x.tmp",
    "lost+found",
    "m/.nfs1",
    "m/ ",
    "m/v1.",
)
SHA = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of b"foo"
ROWS: list[list[object]] = [
    *(
        [kind, path, *rest]
        for path in OUT
        for kind, *rest in (
            ["node", {}, []],
            ["gone"],
            ["keys", {"a": 1}, []],
            ["child", "x", True],
            ["unblob", "b"],
            ["blob", "b", 3, SHA, "inline", 0],
        )
    ),
    *(["node", "m", {}, [path]] for path in OUT),
    *(["child", "m", path, made] for path in OUT for made in (True, False)),
    *(["unblob", "m/v1", path] for path in OUT if path not in ("m/metadata.json", "m/v1/..")),
    *(["blob", "m/v1", path, 3, SHA, "inline", 0] for path in OUT if path != "m/metadata.json"),
    *(
        ["blob", "m/v1", "x", 3, SHA, kind, file, *more]
        for kind, more in (("staged", []), ("pack", [0]))
        for file in (
            "../outside/b",
            "/etc/passwd",
            ".wal/staged/../../outside/b",
            ".wal/staged/t/../../../../outside/b",
            ".wal/staged/t/\0",
            ".wal/head",
            "metadata.json",
            "",
            ".wal/staged/t",
            ".wal/staged//1",
        )
    ),
    ["node", "", {}, ["m", "m"]],
    ["gone", ""],
    ["blob", "m", "v1", 3, SHA, "inline", 0],
    ["blob", "m/v1/b", "x", 3, SHA, "inline", 0],
    ["blob", "m/v1", "b/c", 3, SHA, "inline", 0],
    ["node", "m/v1/b", {}, []],
    ["node", "a/b/c/d/e/f", {}, []],
]


@pytest.mark.parametrize("mount", [False, True], ids=["local", "mount"])
def test_a_strangers_log_leads_to_nothing_outside(mount: bool, place: Path, layer: Layer) -> None:
    original, outside = _original(place, mount=mount), canary(place)
    before = picture(outside)
    names = {path.name for path in place.iterdir()}
    rows = ROWS[::3] if mount else ROWS  # the same decoder reads both logs
    for row in rows:
        root = place / "tree"
        shutil.copytree(original, root)
        with suppress(MetatreeError, wal.WalError):
            storage = wal.LocalStorage(str(root), posix=Walls(root, mount=mount))
            log = wal.open_log(storage, kind="slots" if mount else "append")
            text = orjson.dumps([row])
            record = wal.Record(
                encode_header(Header("1-00", "now", "stranger")), struct.pack("<I", len(text)) + text + b"foo"
            )
            log.append(lambda head, mates, record=record: record)
            log.close()
            storage.close()
        walls = Walls(root, mount=mount)
        _use(root, walls)
        assert not walls.escapes, f"{row}: {walls.escapes[:5]}"
        assert picture(outside) == before, row
        shutil.rmtree(root)
        assert {path.name for path in place.iterdir()} == names, row
    layer.report("records of a stranger", len(rows), floor=len(rows), night=len(rows), unit="records × storages")
