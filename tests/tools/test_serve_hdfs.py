"""The HDFS for tests: it serves, keeps its data, and leaves no server behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from serve_hdfs import HOST, Hdfs

from tests.servers.hdfs import Raw

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "serve_hdfs.py"


def serve(folder: Path) -> tuple[subprocess.Popen[str], Raw]:
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    host, port = process.stdout.readline().split()
    return process, Raw(host, int(port), "/kept")


def servers_on(folder: Path) -> list[int]:
    """Process numbers of the Java servers that work on a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command.startswith(b"java\0") and os.fsencode(folder) in command:
                found.append(int(entry.name))
    return found


def wait_until_gone(folder: Path) -> None:
    while servers_on(folder):  # the test's own time-out ends it
        time.sleep(0.05)


def test_the_servers_die_with_their_starter_and_find_their_data_again(hdfs: Hdfs, tmp_path: Path) -> None:
    """`hdfs` is asked for because it knows what to do where no HDFS can be had."""
    process, raw = serve(tmp_path)
    raw.write("x", b"kept")
    assert len(servers_on(tmp_path)) == 2
    process.kill()
    process.communicate()
    wait_until_gone(tmp_path)
    process, again = serve(tmp_path)
    assert again.read("x") == b"kept"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0
    assert servers_on(tmp_path) == []


def listening(pid: int) -> set[str]:
    """Addresses that a process listens on, as the kernel writes them: hexadecimal, in the machine's byte order."""
    sockets = {os.readlink(link) for link in Path("/proc", str(pid), "fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc", str(pid), "net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(local.partition(":")[0])
    return found


def test_it_listens_on_this_machine_only(hdfs: Hdfs) -> None:
    assert HOST == "127.0.0.1"
    servers = servers_on(hdfs.folder)
    assert len(servers) == 2
    for pid in servers:
        assert listening(pid) == {"0100007F"}
