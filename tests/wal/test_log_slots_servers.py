"""The conformance suite of slot logs on real servers: SeaweedFS, moto (the closest answers to those of AWS), HDFS.

None of these tests lets two handles race for a slot: moto is not atomic, and says nothing about races.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from serve_s3 import Server

from wal import WriteAheadLog, open_log
from wal.storage import open_storage
from wal.testing.log_access import Opener
from wal.testing.slot_log_suite import SlotLogSuite

_numbers = itertools.count()


class OnUrl(SlotLogSuite):
    """Each handle has its own connection, as on hosts of their own."""

    @pytest.fixture
    def place(self) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError

    @pytest.fixture
    def opener(self, place: tuple[str, dict[str, Any]]) -> Iterator[Opener]:
        url, options = place
        with ExitStack() as opened:

            def open_again(**how: Any) -> WriteAheadLog:
                storage = open_storage(url, options)
                opened.callback(storage.close)
                return open_log(storage, **how)

            yield open_again


class S3(OnUrl):
    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError

    @pytest.fixture
    def place(self, server: Server) -> tuple[str, dict[str, Any]]:
        return f"s3://{server.bucket}/slots/{os.getpid()}-{next(_numbers)}", server.options


class TestSlotsOnSeaweedFS(S3):
    @pytest.fixture
    def server(self, seaweedfs: Server) -> Server:
        return seaweedfs


class TestSlotsOnMoto(S3):
    @pytest.fixture
    def server(self, moto: Server) -> Server:
        return moto


class TestSlotsOnHdfs(OnUrl):
    @pytest.fixture
    def place(self, hdfs_url: str) -> tuple[str, dict[str, Any]]:
        return hdfs_url, {"user": "root"}
