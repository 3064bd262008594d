"""The servers, started for a run: SeaweedFS, and an HDFS of one NameNode and one DataNode."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# how often HDFS asks whether a file's last block is there before it refuses to close the file: a busy disk is late
PATIENT = {"dfs.client.block.write.locateFollowingBlock.retries": 12}
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Place:
    """Where trees can be made on a server."""

    name: str
    url: str  # of a folder
    old_url: str  # the same for metatreedb 0.2.3
    options: dict[str, Any] = field(default_factory=dict)
    old_options: dict[str, Any] = field(default_factory=dict)


@contextmanager
def s3(folder: Path) -> Iterator[Place]:
    """A bucket."""
    sys.path.insert(0, str(CHECKOUT / "tools"))
    from serve_s3 import serving

    with serving(folder) as server:
        url = f"s3://{server.bucket}"
        old = {"key": server.key, "secret": server.secret, "client_kwargs": {"endpoint_url": server.endpoint}}
        yield Place("S3 (SeaweedFS)", url, url, server.options, old)


@contextmanager
def hdfs(folder: Path) -> Iterator[Place]:
    """A folder on HDFS."""
    sys.path.insert(0, str(CHECKOUT / "tools"))
    from serve_hdfs import running

    with running(folder, PATIENT) as server:
        old = {"host": server.host, "port": server.port, "user": "root"}
        url = f"webhdfs://{server.host}:{server.port}/trees"
        yield Place("HDFS", url, "webhdfs:///trees", {"user": "root"}, old)


SERVERS = {"s3": s3, "hdfs": hdfs}
