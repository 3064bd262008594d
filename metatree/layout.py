"""Every name of the tree on its storage is made and parsed here, and only here. Contents: docs/log_format.md.

metadata.json                   of the root; <model>/metadata.json, <model>/<version>/metadata.json, …
.metatree                       what kind of tree this is; created last, then immutable
.lock                           a tripwire for metatreedb 0.2.3; not our lock
.wal/                           the log's folder (its own names: wal/names.py)
.wal/staged/<txid>/<n>          staged blobs; small ones together in a `pack`
.wal/tmp/                       files being written, before their rename
.wal/trash/<lsn>/               removed nodes and blobs until the next checkpoint
.wal/quarantine/                what was set aside for a person to look at
.metatree-probe-<token>/        of a running `metatree doctor`; belongs to no tree
"""

from __future__ import annotations

import re

from .location import Path

METADATA = "metadata.json"
CONFIG = ".metatree"
TRIPWIRE = ".lock"
LOG = ".wal"
SCRATCH = ".wal/tmp"
STAGED = ".wal/staged"
TRASH = ".wal/trash"
QUARANTINE = ".wal/quarantine"
PROBE = ".metatree-probe-"  # prefix of the temporary folder in which `metatree doctor` tests a storage

ENGINE_NAMES = frozenset({CONFIG, TRIPWIRE, LOG})  # in the root only
BORN_BEFORE_CONFIG = frozenset({LOG, TRIPWIRE, METADATA})  # what a killed `create` may leave

_STAGED = re.compile(re.escape(STAGED) + r"/[0-9A-Za-z-]{1,100}/[0-9A-Za-z]{1,20}").fullmatch


def folder(path: Path) -> str:
    """The folder of a node; '' is the root."""
    return "/".join(path)


def metadata(path: Path) -> str:
    """A node's metadata.json."""
    return "/".join((*path, METADATA))


def blob(path: Path, name: str) -> str:
    """A blob of a node; `name` may be that of a file in a directory blob."""
    return "/".join((*path, name))


def staged_folder(txid: str) -> str:
    """The folder of a transaction's staged blobs."""
    return f"{STAGED}/{txid}"


def staged(txid: str, number: int) -> str:
    """One staged blob."""
    return f"{STAGED}/{txid}/{number}"


def check_staged(name: str) -> str:
    """`name` if it is that of a staged file. Raises ValueError."""
    if not _STAGED(name):
        raise ValueError(f"{name!r} is not the name of a staged file")
    return name


def pack(txid: str, number: int = 0) -> str:
    """A file of a transaction's small blobs, one after another; usually there is only one."""
    return f"{STAGED}/{txid}/pack{number or ''}"


def trash(lsn: int, name: str) -> str:
    """Where something goes that is removed when applying records up to `lsn`."""
    return f"{TRASH}/{lsn}/{name}"


def trash_of(lsn: str, name: str) -> str:
    """The same for a name in the trash; '' is the whole folder."""
    return f"{TRASH}/{lsn}/{name}" if name else f"{TRASH}/{lsn}"


def quarantine(reason: str, name: str) -> str:
    """Where something is kept for a person to look at; `reason` is one word, such as 'edited', 'staged', 'tmp'."""
    return f"{QUARANTINE}/{reason}/{name}"
