"""S3 servers for tests, one of each (of moto, for each worker) for a whole run. Each test uses a prefix of its own."""

from __future__ import annotations

import functools
import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from serve_s3 import BUCKET, KEY, SECRET, Server, ServerError, serving

from tests.servers.shared import shared


def cannot_start(what: str, error: Exception) -> NoReturn:
    """In continuous integration a server that does not start is a failure: a skip there is a layer that never ran."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} cannot be started: {error}")
    pytest.skip(f"{what} cannot be started: {error}")


@pytest.fixture(scope="session")
def read_once() -> Iterator[None]:
    """What botocore reads from its own package for each client, and then keeps for each, is read once for all; the
    certificates of authorities, which no server here has anything to do with, not at all."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *arguments: None)
        yield


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with serving(folder) as server:
        yield server.endpoint


@pytest.fixture(scope="session")
def seaweedfs(request: pytest.FixtureRequest, read_once: None) -> Server:
    """A real S3 server, whose conditions are atomic; that of all workers."""
    try:
        return Server(shared("seaweedfs", request, _served), BUCKET, KEY, SECRET)
    except ServerError as error:
        cannot_start("SeaweedFS", error)


@pytest.fixture(scope="session")
def moto(read_once: None) -> Iterator[Server]:
    """Answers nearest to those of AWS; keeps everything in this process, and is not atomic."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        cannot_start("moto", error)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    server = Server(f"http://{host}:{port}", BUCKET, "metatree", "metatree-secret")
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield server
    started.stop()
