"""The name of this process, for people. As `getpass.getuser` finds it, whose import takes longer than opening a log.

It is found out when it is first needed: asking for the account takes a tenth of the time that opening takes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache

with suppress(ImportError):  # Windows: trees are only read there, which asks for nobody's name
    import pwd  # not in the function: a child forked while another thread imports could never import it


def whoami() -> str:
    """This process, for people: user@host:pid."""
    return f"{_user_and_host()}:{os.getpid()}"


@cache
def _user_and_host() -> str:
    named = (os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    return f"{next(filter(None, named), '') or _account()}@{os.uname().nodename}"


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except (KeyError, OSError):  # no entry for this uid, as in many containers
        return str(os.getuid())
