"""Which process it is, in words for people."""

from __future__ import annotations

import os
import pwd
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest

from wal import Clock, MemoryStorage, open_log, process, whoami


@pytest.fixture(autouse=True)
def nameless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable tells the user's name."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    process._user_and_host.cache_clear()
    yield
    process._user_and_host.cache_clear()


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found"), OSError("no such service")])
def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As in many containers."""

    def unknown(uid: int) -> NoReturn:
        raise error

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert whoami() == f"{os.getuid()}@{os.uname().nodename}:{os.getpid()}"


def test_a_user_is_who_the_system_or_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert whoami().partition("@")[0] == pwd.getpwuid(os.getuid()).pw_name
    process._user_and_host.cache_clear()
    monkeypatch.setenv("USER", "somebody")
    assert whoami().partition("@")[0] == "somebody"


def test_who_has_opened_a_log_to_write_imports_nothing_to_name_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child that was forked while another thread imports, an import may never end."""
    open_log(MemoryStorage(), create=True).close()
    monkeypatch.setitem(sys.modules, "pwd", None)  # from now on its import fails
    assert whoami().partition("@")[0] == pwd.getpwuid(os.getuid()).pw_name


def test_the_systems_clock_says_whether_what_was_waited_for_came() -> None:
    event = threading.Event()
    assert Clock().wait(event, 0) is False
    event.set()
    assert Clock().wait(event, 0) is True
