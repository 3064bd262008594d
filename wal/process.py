"""The name of this process, for people. As `getpass.getuser` finds it, whose import takes longer than opening a log."""

from __future__ import annotations

import os
from functools import cache


def whoami() -> str:
    """This process, for people: user@host:pid."""
    return f"{_user_and_host()}:{os.getpid()}"


@cache
def _user_and_host() -> str:
    named = (os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    return f"{next(filter(None, named), '') or _account()}@{os.uname().nodename}"


def _account() -> str:
    import pwd  # imported here: Windows, where trees are only read, lacks it

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except (KeyError, OSError):  # no entry for this uid, as in many containers
        return str(os.getuid())
