"""Metatree: the transactional, file-native tree database. Plain folders and metadata.json, with the guarantees of a
database and no server. Start with the class `Metatree`; `metatree.errors` describes the errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import (
    ApplyPendingWarning,
    BlobExistsError,
    BlobNotFoundError,
    ClosedError,
    CommitUnknownError,
    ConflictError,
    CorruptionError,
    FormatError,
    InvalidLocationError,
    InvalidMetadataError,
    LockTimeoutError,
    MetatreeError,
    NodeExistsError,
    NodeNotFoundError,
    ReadOnlyError,
    TransactionError,
    UnavailableError,
    UnsupportedStorageError,
)
from .node import Node
from .recovery import Recovered
from .transaction import Transaction
from .tree import Metatree

if TYPE_CHECKING:
    from .findings import Finding, Report
    from .repair_plan import Repaired, Step

__version__ = "0.3.0"

__all__ = [
    "ApplyPendingWarning",
    "BlobExistsError",
    "BlobNotFoundError",
    "ClosedError",
    "CommitUnknownError",
    "ConflictError",
    "CorruptionError",
    "Finding",
    "FormatError",
    "InvalidLocationError",
    "InvalidMetadataError",
    "LockTimeoutError",
    "Metatree",
    "MetatreeError",
    "Node",
    "NodeExistsError",
    "NodeNotFoundError",
    "ReadOnlyError",
    "Recovered",
    "Repaired",
    "Report",
    "Step",
    "Transaction",
    "TransactionError",
    "UnavailableError",
    "UnsupportedStorageError",
    "__version__",
]


def __getattr__(name: str) -> object:
    # Results of check() and repair() are imported on first use, since most programs never call these.
    if name in ("Finding", "Report"):
        from . import findings

        return getattr(findings, name)
    if name in ("Repaired", "Step"):
        from . import repair_plan

        return getattr(repair_plan, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
