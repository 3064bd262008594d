"""Metatree: the transactional, file-native tree database. Plain folders and metadata.json, with the guarantees of a
database, on a storage without a server. `Metatree` is the way in; errors are described in `metatree.errors`.
"""

from __future__ import annotations

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
from .findings import Finding, Report
from .node import Node
from .recovery import Recovered
from .repair import Repaired, Step
from .transaction import Transaction
from .tree import Metatree

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
