"""W5: large blobs in and out.

After each turn what it wrote leaves the page cache. Otherwise each file takes memory that nothing has used yet, which
on a virtual machine comes from the host, at up to ten times the price of the copy: paid by whoever's turn it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measure import Contestant, Ready, Step, Workload
from benchmarks.peers import PEERS
from benchmarks.peers.base import BLOB_NAME, CHUNK, Peer, Store
from benchmarks.workloads.sizes import MIB, Sizes

COPY = "floor: copy, fsync, rename"
PUTTING = ("metatree", "sqlite fresh", "icechunk", "metatreedb 0.2.3", "plain files", COPY)
LARGE = ("metatree", "icechunk", "metatreedb 0.2.3", "plain files", COPY)  # SQLite refuses 1 GiB
READING = ("metatree", "sqlite fresh", "icechunk", "metatreedb 0.2.3", "plain files")
DOWNLOADING = ("metatree", "metatreedb 0.2.3", "plain files")


def make(folder: Path, size: int) -> Path:
    """A file to put."""
    source = folder / "source" / BLOB_NAME
    source.parent.mkdir()
    content = os.urandom(min(size, CHUNK))
    with open(source, "wb") as file:
        for _ in range(size // len(content)):
            file.write(content)
    return source


def put(store: Store, source: Path) -> Step:
    return lambda number: store.put_file("m", f"v{number}", source)


def get(store: Store, source: Path) -> Step:
    store.put_file("m", "v", source)
    return lambda number: store.get("m", "v")


def download(store: Store, source: Path) -> Step:
    store.put_file("m", "v", source)
    return lambda number: store.download("m", "v", source.with_name(f"out{number}"))


def was_put(folder: Path, source: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path != source and path.is_file())


def was_downloaded(folder: Path, source: Path) -> Iterator[Path]:
    return source.parent.glob("out*")


def nothing(folder: Path, source: Path) -> Iterator[Path]:
    return iter(())


def leave_cache(paths: Iterator[Path]) -> None:
    os.sync()  # what is not written yet cannot leave
    for path in paths if hasattr(os, "posix_fadvise") else ():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def contestant(
    peer: Peer,
    prepare: Callable[[Store, Path], Step],
    size: int,
    written: Callable[[Path, Path], Iterator[Path]] = nothing,
) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        with peer.open(folder) as store:
            source = make(folder, size)
            step = prepare(store, source)

            def rest() -> None:
                store.rest()
                leave_cache(written(folder, source))

            yield Ready(step, rest)

    return Contestant(peer.name, opened)


def workloads(sizes: Sizes) -> list[Workload]:
    small, large = sizes.blobs
    puts = [contestant(PEERS[name], put, small, was_put) for name in PUTTING]
    larges = [contestant(PEERS[name], put, large, was_put) for name in LARGE]
    gets = [contestant(PEERS[name], get, small) for name in READING]
    downloads = [contestant(PEERS[name], download, small, was_downloaded) for name in DOWNLOADING]
    shown = partial("{:,.4g} MiB".format)
    title = shown(small / MIB)
    return [
        Workload("W5 put", f"put {title} from a file", puts, steps=5, warmup=1, verb="put_file"),
        Workload("W5 large", f"put {shown(large / MIB)} from a file", larges, 1, warmup=1, verb="put_file", rounds=2),
        Workload("W5 get", f"read a blob of {title}", gets, steps=20, warmup=2),
        Workload("W5 download", f"a blob of {title} into a new file", downloads, steps=5, warmup=1),
    ]
