"""Who holds a right, in words for people."""

from __future__ import annotations

import getpass
import os

import pytest

from wal import claim, whoami


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found"), OSError("no username set")])
def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As in many containers."""

    def unknown() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", unknown)
    claim._user_and_host.cache_clear()
    try:
        assert whoami() == f"{os.getuid()}@{os.uname().nodename}:{os.getpid()}"
    finally:
        claim._user_and_host.cache_clear()
