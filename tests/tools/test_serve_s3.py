"""tools/serve_s3.py as a person starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from serve_s3 import Server

TOOL = Path(__file__).resolve().parents[2] / "tools" / "serve_s3.py"


def is_open(endpoint: str) -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(5)
        return attempt.connect_ex(("127.0.0.1", urlsplit(endpoint).port)) == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_it_says_where_it_is_and_is_gone_when_it_is_stopped_or_killed(
    seaweedfs: Server, tmp_path: Path, ending: signal.Signals
) -> None:
    """`seaweedfs` is asked for so that this is skipped, or fails, where no server can be started at all."""
    tool = subprocess.Popen([sys.executable, str(TOOL), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert tool.stdout is not None
    said = dict(word.split("=", 1) for word in tool.stdout.readline().split())
    server = Server(said["endpoint_url"], said["bucket"], said["key"], said["secret"])
    client = server.client()
    client.put_object(Bucket=server.bucket, Key="x", Body=b"x")
    client.close()
    os.kill(tool.pid, ending)
    assert tool.wait(30) == (0 if ending is signal.SIGTERM else -signal.SIGKILL)
    tool.stdout.close()
    # the watcher ends it, a moment after its parent
    while is_open(server.endpoint):
        pass
