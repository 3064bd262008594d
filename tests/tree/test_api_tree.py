"""The tree as a whole: its properties, upkeep, closing, pickling, forks; and the bytes that it writes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metatree import ClosedError, Metatree, MetatreeError, Recovered, Report, TransactionError, jsontext
from tests.tree.conftest import assert_clean
from tests.tree.storages import again, at

LEVELS = ("model", "version")
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.local("its root is a path")
def test_the_properties_of_a_tree(tree: Metatree, fast_path: Path) -> None:
    assert tree.root == str(fast_path / "tree")
    assert tree.keys == LEVELS
    assert (tree.lsn, tree.unapplied) == (0, 0)
    assert tree.location == tree.root and dict(tree.metadata) == {}
    tree.put("m", b"x", name="b")
    tree.update("m", a=1)
    assert tree.lsn == 2
    tree.flush()
    assert tree.unapplied == 0
    for name in ("root", "keys", "lsn", "unapplied", "location", "metadata"):
        with pytest.raises(AttributeError):
            setattr(tree, name, 1)


@pytest.mark.everywhere
def test_in_the_background_readers_see_every_commit_before_the_files_do(make_tree: Callable[..., Metatree]) -> None:
    tree = make_tree(apply="background")
    reader = make_tree(keys=None, read_only=True)
    for number in range(50):
        tree.update("", n=number)
        assert tree.metadata["n"] == number and reader.metadata["n"] == number
        assert tree.unapplied >= 0
    tree.flush()
    assert tree.unapplied == 0
    assert json.loads(at(tree, "metadata.json").read_text()) == {"n": 49}


@pytest.mark.everywhere
def test_with_sync_the_files_are_in_place_when_the_call_returns(make_tree: Callable[..., Metatree]) -> None:
    tree = make_tree(apply="sync")
    for number in range(20):
        tree.put(f"m/v{number}", str(number).encode(), name="b")
        assert tree.unapplied == 0
        assert at(tree, f"m/v{number}/b").read_bytes() == str(number).encode()
        assert json.loads(at(tree, "m/metadata.json").read_text())["children"][-1] == f"v{number}"


def test_locking_enabled_is_accepted_and_changes_nothing(make_tree: Callable[..., Metatree]) -> None:
    tree = make_tree(locking_enabled=False)
    with again(tree, locking_enabled=False) as second:
        tree.update("", a=1)
        second.update("", b=2)
        assert dict(tree.find("").metadata) == {"a": 1, "b": 2}
    assert json.loads(at(tree, ".metatree").read_text())["locking_enabled"] is True


@pytest.mark.everywhere
def test_check_counts_what_it_looked_at_and_reads_blobs_only_if_deep(tree: Metatree) -> None:
    for version in ("v1", "v2"):
        tree.put(f"m/{version}", b"x", name="b")
    for deep in (False, True):
        report = tree.check(deep=deep)
        assert isinstance(report, Report) and report.ok
        assert (report.head, report.nodes, report.blobs, report.deep) == (tree.lsn, 4, 2, deep)
        assert (report.problems, report.notes) == ([], [])
        assert report.as_dict()["ok"] is True
        json.dumps(report.as_dict())
        assert "4 nodes, 2 blobs" in str(report)


@pytest.mark.everywhere
def test_checkpoint_returns_its_lsn_and_is_repeatable(tree: Metatree) -> None:
    first = tree.checkpoint()
    assert first == tree.lsn
    tree.put("m", b"x" * 100_000, name="b")
    tree.update("m", a=1)
    assert tree.checkpoint() == first + 2
    assert tree.checkpoint() == first + 2
    assert json.loads(at(tree, ".wal/checkpoint.json").read_text())["redo"] == first + 2
    assert at(tree, ".wal/trash").iterdir() == at(tree, ".wal/staged").iterdir() == []
    assert b"".join(tree.get("m/b")) == b"x" * 100_000


def test_recover_plans_without_changing_anything(make_tree: Callable[..., Metatree]) -> None:
    tree = make_tree()
    tree.put("m/v1", b"x", name="b")
    tree.put("m/v2", b"x", name="b")
    tree.delete("m/v1", recursive=True)
    before = at(tree, "").files()
    for reader in (tree, make_tree(keys=None, read_only=True)):
        plan = reader.recover(dry_run=True)
        assert isinstance(plan, Recovered)
        assert (plan.redo, plan.head, plan.records) == (0, tree.lsn, 3) and not plan.clean
        json.dumps(plan.as_dict())
    assert at(tree, "").files() == before
    tree.checkpoint()
    assert tree.recover(dry_run=True).clean


def test_recover_tells_what_opening_did_after_a_kill(fast_path: Path) -> None:
    code = (
        "import os, signal, sys; from metatree import Metatree\n"
        "t = Metatree(sys.argv[1], ('model', 'version'), apply='background')\n"
        "[t.put(f'm/v{n}', b'x', name='b') for n in range(5)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = fast_path / "tree"
    assert subprocess.run([sys.executable, "-c", code, str(root)]).returncode == -9
    with Metatree(root) as tree:
        recovered = tree.recover()
        assert (recovered.redo, recovered.head, recovered.records) == (0, 5, 5) and not recovered.failed
        assert json.loads((root / "m/metadata.json").read_text())["children"] == [f"v{n}" for n in range(5)]
    with Metatree(root) as tree:
        assert tree.recover().clean
    assert_clean(root)


def test_close_drains_and_a_second_close_does_nothing(fast_path: Path) -> None:
    root = fast_path / "tree"
    tree = Metatree(root, LEVELS, apply="background")
    tree.put("m/v1", b"x", name="b")
    tree.close()
    assert (root / "m/v1/b").read_bytes() == b"x"
    assert json.loads((root / ".wal/checkpoint.json").read_text())["redo"] == 1
    tree.close()
    with pytest.raises(ClosedError, match="closed"):
        tree.find("m")
    assert (tree.root, tree.keys) == (str(root), LEVELS)
    assert_clean(root)


def test_a_tree_is_a_context_manager_that_closes_on_errors_too(fast_path: Path) -> None:
    with pytest.raises(RuntimeError), Metatree(fast_path / "tree", LEVELS) as tree:
        tree.update("", a=1)
        raise RuntimeError
    with pytest.raises(ClosedError):
        tree.update("", a=2)
    assert_clean(fast_path / "tree")


def test_a_tree_cannot_be_closed_inside_a_transaction(tree: Metatree) -> None:
    with tree.transaction():
        tree.update("", a=1)
        with pytest.raises(TransactionError):
            tree.close()
    assert dict(tree.find("").metadata) == {"a": 1}


def test_a_program_that_ends_without_closing_leaves_files_that_show_every_commit(fast_path: Path) -> None:
    code = (
        "import sys; from metatree import Metatree\n"
        "t = Metatree(sys.argv[1], ('model',), apply='background'); t.put('m', b'x', name='b')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(fast_path / "tree")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (fast_path / "tree/m/b").read_bytes() == b"x"
    assert_clean(fast_path / "tree")


@pytest.mark.by_url
@pytest.mark.everywhere
def test_a_pickled_tree_is_the_same_tree_opened_again(tree: Metatree) -> None:
    tree.put("m/v1", b"x", name="b")
    with pickle.loads(pickle.dumps(tree)) as other:
        assert (other.root, other.keys, other.lsn) == (tree.root, tree.keys, tree.lsn)
        other.update("m", a=1)
        assert tree.find("m").metadata["a"] == 1
    with again(tree, read_only=True) as reader:
        copied = pickle.dumps(reader)
    with pickle.loads(copied) as second, pytest.raises(MetatreeError, match="read_only"):
        second.update("m", a=2)


@pytest.mark.outside
@pytest.mark.everywhere
def test_a_forked_child_may_use_the_tree_and_so_may_its_parent(tree: Metatree) -> None:
    tree.put("m", b"x", name="b")
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            tree.update("m", child=1)
            ok = tree.find("m").metadata["child"] == 1
            tree.close()
        except BaseException:  # noqa: BLE001 - nothing may escape into the test runner's copy
            ok = False
        os._exit(0 if ok else 1)
    tree.update("m", parent=1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert dict(tree.find("m").metadata) == {"child": 1, "parent": 1}


# --- the bytes of metadata.json ---------------------------------------------------------------------------------------

KEYS = {
    "text": 'ünï 漢字 "quoted" \\ / \u2028 <&>',
    "control": "\t\n\r\x01\x7f",
    "integer": 2**64 - 1,
    "negative": -(2**63),
    "float": 0.93,
    "whole float": 1.0,
    "true": True,
    "null": None,
    "list": [1, [], {}, ["a", {"b": 0.5}]],
    "object": {"z": 1, "a": {"": "empty key"}},
}


def text(tree: Metatree, name: str) -> bytes:
    """A metadata.json; in a bucket without the run of white space that tells its versions apart."""
    return at(tree, name).read_bytes().rstrip(b" \t")


@pytest.mark.parametrize("serializer", ["orjson", "json"])
def test_metadata_json_has_the_bytes_of_the_golden_file_whoever_writes_it(
    serializer: str, make_tree: Callable[..., Metatree], monkeypatch: pytest.MonkeyPatch
) -> None:
    if serializer == "json":
        monkeypatch.setattr(jsontext, "orjson", None)
    tree = make_tree()
    for version in ("v1", "v10", "v2"):
        tree.put(f"m/{version}", b"", name="b")
    tree.update("m", KEYS)
    tree.checkpoint()
    assert text(tree, "m/metadata.json") == (GOLDEN / "metadata.json").read_bytes()
    assert text(tree, "m/v1/metadata.json") == (GOLDEN / "no_keys.json").read_bytes()
    assert dict(tree.find("m").metadata) == KEYS


def contents(root: Path) -> dict[str, bytes]:
    return {p.as_posix(): p.read_bytes().rstrip(b"\0") for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_tree_of_this_version_opens_as_the_golden_tree_says(fast_path: Path) -> None:
    """A small tree kept as it was written, log included: a later version must open it to exactly this."""
    root = Path(shutil.copytree(GOLDEN / "tree", fast_path / "tree"))
    # zeros to a segment's end are not kept in the repository
    for segment in (root / ".wal").glob("*.log"):
        os.truncate(segment, 16 << 20)
    before = contents(root)
    with Metatree(root, read_only=True) as reader:
        assert reader.keys == LEVELS and reader.lsn == 5
        assert reader.children("m") == ["v1", "v2"]
        assert dict(reader.find("m").metadata) == {"active": "v2"}
        assert b"".join(reader.get("m/<active>/b")) == b"two"
    assert contents(root) == before
    with Metatree(root) as tree:
        assert b"".join(tree.get("m/v1/b")) == b"one"
        tree.update("m", more=1)
        assert tree.lsn == 6
    assert_clean(root)
