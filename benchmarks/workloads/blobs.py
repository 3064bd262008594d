"""W5: large blobs in and out."""

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


def contestant(peer: Peer, prepare: Callable[[Store, Path], Step], size: int) -> Contestant:
    @contextmanager
    def opened(folder: Path) -> Iterator[Ready]:
        with peer.open(folder) as store:
            yield Ready(prepare(store, make(folder, size)), store.rest)

    return Contestant(peer.name, opened)


def workloads(sizes: Sizes) -> list[Workload]:
    small, large = sizes.blobs
    puts = [contestant(PEERS[name], put, small) for name in PUTTING]
    larges = [contestant(PEERS[name], put, large) for name in LARGE]
    gets = [contestant(PEERS[name], get, small) for name in READING]
    downloads = [contestant(PEERS[name], download, small) for name in DOWNLOADING]
    shown = partial("{:,.4g} MiB".format)
    title = shown(small / MIB)
    return [
        Workload("W5 put", f"put {title} from a file", puts, steps=5, warmup=1, verb="put_file"),
        Workload("W5 large", f"put {shown(large / MIB)} from a file", larges, 1, warmup=1, verb="put_file", rounds=2),
        Workload("W5 get", f"read a blob of {title}", gets, steps=20, warmup=2),
        Workload("W5 download", f"a blob of {title} into a new file", downloads, steps=5, warmup=1),
    ]
