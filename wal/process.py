"""Which process this is, for people."""

from __future__ import annotations

import os
from functools import cache


def whoami() -> str:
    """This process, for people: user@host:pid."""
    return f"{_user_and_host()}:{os.getpid()}"


@cache
def _user_and_host() -> str:
    import getpass  # late: readers do not say who they are

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid, as in many containers
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
