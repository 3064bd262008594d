"""What this distribution promises by name: exports, the tree of errors, signatures. A change here is a decision."""

from __future__ import annotations

import builtins
import inspect
import pickle
import re
from pathlib import Path

import pytest

import metatree
import metatree.errors
import metatreedb
import wal
from metatree import Metatree, MetatreeError, Node, Transaction

METATREE = {
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
}

WAL = {
    "Applying",
    "Batch",
    "Capabilities",
    "ChangedError",
    "Clock",
    "Condition",
    "Content",
    "CutShortError",
    "Deferred",
    "DeferredInterrupt",
    "Entry",
    "Fence",
    "InDoubtError",
    "Kind",
    "LSN",
    "LocalStorage",
    "Lock",
    "LockBusyError",
    "LogClosedError",
    "LogCorruptionError",
    "LogFormatError",
    "LogMissingError",
    "MemoryPosix",
    "MemoryStorage",
    "PoisonedError",
    "Position",
    "Posix",
    "Prepare",
    "Publication",
    "RandomFile",
    "Record",
    "Renewal",
    "RightLostError",
    "Staged",
    "StagedFile",
    "Storage",
    "Stored",
    "TTL",
    "TailReport",
    "Tenure",
    "Turn",
    "UnsafePathError",
    "UnsupportedError",
    "Verification",
    "WalError",
    "WriteAheadLog",
    "list_source",
    "local_path",
    "make_root",
    "open_log",
    "open_source",
    "open_storage",
    "probe_storage",
    "safe_point",
    "spread",
    "try_conditions",
    "whoami",
    "written_at",
}

# class -> what it also is, so that programs which know only Python's own classes catch it
ERRORS: dict[str, tuple[type[BaseException], ...]] = {
    "ConflictError": (),
    "LockTimeoutError": (TimeoutError,),
    "UnavailableError": (OSError,),
    "CommitUnknownError": (),
    "CorruptionError": (),
    "FormatError": (),
    "ReadOnlyError": (),
    "ClosedError": (),
    "TransactionError": (),
    "InvalidLocationError": (ValueError,),
    "InvalidMetadataError": (ValueError,),
    "NodeNotFoundError": (KeyError,),
    "BlobNotFoundError": (FileNotFoundError,),
    "NodeExistsError": (FileExistsError,),
    "BlobExistsError": (FileExistsError,),
    "UnsupportedStorageError": (),
}

SIGNATURES = {
    "__init__": "(self, root, keys=None, *, locking_enabled=True, read_only=False, apply='sync', consistency='strong', "
    "storage_options=None, **fs_kwargs)",
    "put": "(self, location, source, *, name=None, force=False, recursive=False)",
    "find": "(self, location)",
    "get": "(self, location, outfile=None, *, recursive=False)",
    "open": "(self, location, mode='rb')",
    "update": "(self, location=None, values=None, /, **more)",
    "unset": "(self, location, *keys)",
    "delete": "(self, location, *, recursive=False)",
    "move": "(self, src, dst)",
    "copy": "(self, src, dst)",
    "compare_and_set": "(self, location, key, expect, value)",
    "list": "(self, location=None)",
    "children": "(self, location=None)",
    "exists": "(self, location)",
    "walk": "(self, location=None)",
    "transaction": "(self, message=None, *, idempotency_key=None)",
    "run": "(self, fn, *, attempts=10)",
    "status": "(self, txid)",
    "gc": "(self, older_than=86400.0, *, dry_run=False)",
    "check": "(self, *, deep=False, progress=None)",
    "recover": "(self, dry_run=False)",
    "repair": "(self, *, edits=None, paths=(), deep=False, dry_run=False)",
    "checkpoint": "(self)",
    "flush": "(self)",
    "close": "(self)",
}
PROPERTIES = {"root", "keys", "lsn", "unapplied", "location", "metadata"}

NODE_SIGNATURES = {
    "update": "(self, values=None, /, **more)",
    "unset": "(self, *keys)",
    "put": "(self, source, *, name=None, force=False, recursive=False)",
    "get": "(self, blob, outfile=None, *, recursive=False)",
    "open": "(self, blob, mode='rb')",
    "list": "(self)",
    "delete": "(self, *, recursive=False)",
}
NODE_PROPERTIES = {"path", "name", "parent", "location", "metadata", "children"}


def bare(function: object) -> str:
    """A signature without annotations."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_metatree_exports_exactly_these_names() -> None:
    assert set(metatree.__all__) == METATREE
    assert len(metatree.__all__) == len(METATREE)
    assert all(hasattr(metatree, name) for name in METATREE)


def test_metatreedb_exports_the_same_objects() -> None:
    for name in METATREE - {"__version__"}:
        assert getattr(metatreedb, name) is getattr(metatree, name)
    assert metatreedb.__version__ == metatree.__version__ == "0.3.0"


def test_wal_exports_exactly_these_names() -> None:
    assert set(wal.__all__) == WAL
    assert all(hasattr(wal, name) for name in WAL)


def test_every_error_has_these_bases_and_no_others() -> None:
    for name, also in ERRORS.items():
        kind = getattr(metatree, name)
        assert kind.__bases__ == (MetatreeError, *also), name
    assert MetatreeError.__bases__ == (Exception,)
    assert metatree.ApplyPendingWarning.__bases__ == (UserWarning,)
    defined = {
        name
        for name, kind in vars(metatree.errors).items()
        if isinstance(kind, type) and issubclass(kind, MetatreeError) and kind is not MetatreeError
    }
    assert defined == set(ERRORS)


def test_the_tree_of_errors_in_the_docstring_is_the_tree_of_errors() -> None:
    text = metatree.errors.__doc__ or ""
    lines = re.findall(r"[├└]── (\w+)(.*)", text)
    assert [name for name, _ in lines] == list(ERRORS)
    for name, rest in lines:
        said = re.search(r"\(also (\w+)\)", rest)
        assert ((getattr(builtins, said[1]),) if said else ()) == ERRORS[name], name
    assert "    MetatreeError\n" in text


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_survives_a_pickle_and_prints_its_sentence(name: str) -> None:
    kind = getattr(metatree, name)
    error = kind("a sentence", "0-00") if name == "CommitUnknownError" else kind("a sentence")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) == "a sentence"
    if name == "CommitUnknownError":
        assert again.txid == "0-00"


def test_the_signatures_of_a_tree_are_these() -> None:
    assert {name: bare(getattr(Metatree, name)) for name in SIGNATURES} == SIGNATURES
    assert public(Metatree) == (set(SIGNATURES) - {"__init__"}) | PROPERTIES
    for name in PROPERTIES:
        attribute = inspect.getattr_static(Metatree, name)
        assert isinstance(attribute, property) and attribute.fset is None, name


def test_the_signatures_of_a_node_are_these() -> None:
    assert {name: bare(getattr(Node, name)) for name in NODE_SIGNATURES} == NODE_SIGNATURES
    assert public(Node) == set(NODE_SIGNATURES) | NODE_PROPERTIES
    for name in NODE_PROPERTIES:
        attribute = inspect.getattr_static(Node, name)
        assert isinstance(attribute, property) and attribute.fset is None, name


def test_a_transaction_shows_what_was_promised(tmp_path: Path) -> None:
    with Metatree(tmp_path / "tree", ("model",)) as tree:
        with tree.transaction("why") as txn:
            assert (txn.message, txn.lsn, txn.replayed) == ("why", None, False)
        assert isinstance(txn, Transaction) and isinstance(txn.txid, str)


def test_everything_public_says_what_it_is() -> None:
    for name in METATREE - {"__version__"}:
        assert inspect.getdoc(getattr(metatree, name)), name
    for kind in (Metatree, Node, Transaction):
        for name in public(kind):
            assert inspect.getdoc(inspect.getattr_static(kind, name)), f"{kind.__name__}.{name}"
