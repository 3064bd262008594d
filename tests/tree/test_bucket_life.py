"""Handles on a tree in a bucket that live long, or end without being closed."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serve_s3 import Server

from metatree import ApplyPendingWarning, CorruptionError, Metatree
from tests.tree import storages
from tests.tree.conftest import LEVELS
from tests.tree.storages import NamedObjects, TextBucket
from tests.tree.test_overtaken import Host, Hosted, directory, opened, prepared, shown
from wal.testing.hosts import watched

REPOSITORY = Path(__file__).resolve().parents[2]
LARGE = bytes(100_000)


def test_a_large_node_follows_the_changes_that_its_records_hold_and_without_its_object_nothing_is_made_up() -> None:
    bucket, name = TextBucket(), "m/metadata.json"
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        tree.update("m", text="x" * 20_000)
        tree.update("m", active="v2", n=1)
        tree.unset("m", "text")
        tree.update("m", text="y" * 20_000)
        tree.put("m/v3", b"three", name="b")
        expected = {"children": ["v1", "v2", "v3"], "active": "v2", "n": 1, "text": "y" * 20_000}
        assert shown(bucket)[name] == expected
        kept = bucket.objects.pop(name)
        with pytest.warns(ApplyPendingWarning, match="is missing, and the log holds only its changes"):
            tree.update("m", n=2)
        assert name not in bucket.objects
        bucket.objects[name] = kept
        tree.flush()
        assert shown(bucket)[name] == {**expected, "n": 2}


PROGRAM = """
import json, sys
from metatree import CorruptionError, Metatree
url, apply, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tree = Metatree(url, ("model", "version"), apply=apply, **options)
for number in range(20):
    tree.put(f"m/v{number}", b"x", name="b")
"""


@pytest.mark.parametrize("apply", ["sync", "background"])
def test_a_program_that_ends_without_closing_leaves_files_that_show_every_commit(
    apply: str, seaweedfs: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(storages.CACHE, str(tmp_path))
    url = f"s3://{seaweedfs.bucket}/{tmp_path.name}-{apply}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, url, apply, json.dumps(seaweedfs.options)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Metatree(url, read_only=True, **seaweedfs.options) as reader:
        assert len(reader.children("m")) == 20
        assert reader._engine.log.trimmed() == reader.lsn  # closing made a checkpoint
        assert reader.check(deep=True).ok


def test_a_reader_that_knows_a_record_from_before_it_was_trimmed_finds_its_blob_in_place() -> None:
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree, opened(Host(bucket), read_only=True) as reader:
        tree.put("m/v3", LARGE, name="large")
        assert reader.list("m/v3") == ["large"]  # it has the record, which names the staged blob
        tree.checkpoint()
        assert not [name for name in bucket.objects if name.startswith(".wal/staged/")]
        assert b"".join(reader.get("m/v3/large")) == LARGE


def test_a_reader_that_lives_long_holds_no_more_than_what_was_not_trimmed() -> None:
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree, opened(Host(bucket), read_only=True) as reader:
        for number in range(3000):
            tree.update("m", n=number)
            assert reader.find("m").metadata["n"] == number
        assert len(reader._engine.reader.window._facts) < 2200


def test_a_background_writer_makes_its_checkpoints_by_its_thread() -> None:
    bucket = TextBucket()
    prepared(bucket)
    mine = threading.get_ident()
    made: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if threading.get_ident() == mine:
            made.append(f"{method} {arguments[0]}")
        return run()

    with Metatree(watched(NamedObjects(bucket, "tree"), around), apply="background") as tree:
        tree.update("m", n=-1)
        made.clear()
        for number in range(150):
            tree.update("m", n=number)
        assert {call.split()[0] for call in made} == {"create"}  # one slot for each
        tree.flush()


def test_a_name_that_went_is_no_directory_blob_before_its_objects_are_removed() -> None:
    bucket = TextBucket()
    prepared(bucket)
    with Metatree(NamedObjects(bucket, "tree"), apply="background") as tree:
        tree._engine.committer.stop()
        tree.delete("m/v1", recursive=True)
        assert "m/v1/b" in bucket.objects
        assert tree.list("m") == [] and not tree.exists("m/v1")
        tree.flush()
        assert "m/v1/b" not in bucket.objects


@pytest.mark.parametrize("lost", [False, True], ids=["acknowledged", "reply lost"])
def test_what_a_pass_has_put_goes_with_its_node_if_that_is_dropped_before_the_pass_plans_again(lost: bool) -> None:
    bucket = TextBucket()
    prepared(bucket)
    other = Metatree(NamedObjects(bucket, "tree"), apply="background")
    other._engine.committer.stop()  # it only commits
    dropped: list[str] = []

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        result = run()
        if method == "publish" and arguments[0] == "m/v1/c" and not dropped:
            dropped.append("m/v1")
            with other.transaction():
                other.delete("m/v1", recursive=True)
                other.put("m/v1", b"last", name="d")  # no object of this name is there, so this looks at none
            if lost:
                raise OSError(errno.EIO, "no reply")
        return result

    with Metatree(watched(NamedObjects(bucket, "tree"), around)) as tree:
        tree.update("m/v1", n=1)  # from here on it knows the version of its metadata.json
        with tree.transaction():
            tree.delete("m/v1", recursive=True)
            tree.put("m/v1", b"first", name="c")
            tree.update("other", n=1)  # of this it knows no version, so it plans again
    assert dropped
    assert sorted(name for name in bucket.objects if name.startswith("m/v1/")) == ["m/v1/d", "m/v1/metadata.json"]
    other.close()


def test_a_pass_that_plans_again_puts_again_only_what_it_could_not_put() -> None:
    bucket, asked = TextBucket(), Counter[str]()
    prepared(bucket)

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        asked[arguments[0]] += method == "publish"
        return run()

    with Metatree(watched(NamedObjects(bucket, "tree"), around)) as tree:
        tree.put("m/v3", b"three", name="b")  # it does not know the version of its parent's file
    assert [asked[name] for name in ("m/v3/b", "m/v3/metadata.json", "m/metadata.json")] == [1, 1, 2]


def test_what_is_changed_by_hand_between_a_look_at_it_and_the_step_is_looked_at_again_and_kept() -> None:
    bucket, kept = TextBucket(), [b'{"edit": 1}', b'{"edit": 2}']
    prepared(bucket)
    edits = {name: list(reversed(kept)) for name in ("m/metadata.json", "m/v1/b", "m/v2/b")}

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method in ("publish", "remove") and edits.get(arguments[0]):
            bucket.put(arguments[0], edits[arguments[0]].pop(), None)
        return run()

    with Metatree(watched(NamedObjects(bucket, "tree"), around)) as tree, tree.transaction():
        tree.delete("m/v1", recursive=True)
        tree.put("m/v2", b"new", name="b", force=True)
    assert not any(edits.values())
    files = shown(bucket)
    assert (files["m/metadata.json"], files["m/v2/b"]) == ({"active": "v1", "children": ["v2"]}, b"new")
    assert not [name for name in files if name.startswith("m/v1/")]
    for name in edits:
        found = [bucket.objects[aside].data for aside in sorted(bucket.objects) if f"/{name}" in aside]
        assert found == kept


def test_an_object_that_could_not_be_removed_is_removed_by_a_later_pass() -> None:
    bucket, refused = TextBucket(), [OSError(errno.EIO, "no answer")]
    prepared(bucket)

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "remove" and arguments[0] == "m/v1/b" and refused:
            raise refused.pop()
        return run()

    with Metatree(watched(NamedObjects(bucket, "tree"), around)) as tree:
        with pytest.warns(ApplyPendingWarning, match="no answer"):
            tree.delete("m/v1", recursive=True)
        assert tree.unapplied == 1 and "m/v1/b" in bucket.objects
        tree.flush()
        assert "m/v1/b" not in bucket.objects


def test_what_is_of_another_kind_is_removed_before_its_place_is_taken() -> None:
    bucket = TextBucket()
    prepared(bucket)
    host = Host(bucket)
    with opened(host) as tree:
        directory(tree)
        host.armed = True
        tree.put("m/v1", b"file", name="d", force=True)
        assert host.calls.index("remove m/v1/d/x") < host.calls.index("publish m/v1/d")


def test_a_commit_reads_nothing_if_each_object_is_new_or_was_put_by_its_handle() -> None:
    bucket = TextBucket()
    prepared(bucket)
    host = Host(bucket)
    with opened(host) as tree:
        tree.update("m", warm=1)
        host.armed = True
        tree.put("m/v3", b"three", name="b")
        objects = ["m/v3/b", "m/v3/metadata.json", "m/metadata.json"]
        assert host.calls == [f"publish {name}" for name in (".wal/apply", *objects, ".wal/apply")]


# --- many nodes -----------------------------------------------------------------------------------------------------


def test_a_walk_of_many_nodes_looks_at_the_log_once_for_many() -> None:
    bucket = TextBucket()
    with opened(Host(bucket)) as tree, tree.transaction():
        for number in range(200):
            tree.put(f"m{number % 4}/v{number:03}", b"x", name="b")
    looks: list[str] = []

    def look(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if method == "read" and str(arguments[0]).endswith(".rec"):
            looks.append(arguments[0])
        return run()

    with Hosted(watched(NamedObjects(bucket, "tree"), look), LEVELS, read_only=True) as reader:
        looks.clear()
        walked = [node.path for node in reader.walk()]
    assert walked == ["", *(p for m in range(4) for p in (f"m{m}", *(f"m{m}/v{n:03}" for n in range(m, 200, 4))))]
    assert 0 < len(looks) < 20


def test_a_walk_that_meets_damage_ahead_raises_only_when_it_comes_there() -> None:
    bucket = TextBucket()
    with opened(Host(bucket)) as tree:
        for name in ("a", "b", "c"):
            tree.put(name, b"x", name="f")
    bucket.objects["b/metadata.json"] = bucket.objects["a/f"]
    walked: list[str] = []
    with opened(Host(bucket), read_only=True) as reader, pytest.raises(CorruptionError, match=r"b/metadata\.json"):
        for node in reader.walk():
            walked += [node.path]
    assert walked == ["", "a"]


def test_a_blob_that_lost_its_content_but_not_its_attribute_is_written_again_by_a_recovery() -> None:
    """As a server leaves it that stores the head of a request whose body never came."""
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        tree.put("m/v3", LARGE, name="large")
        tree.put("m/v3", b"small", name="small")
        tree._engine.abandon()
    for name in ("m/v3/large", "m/v3/small"):
        bucket.put(name, b"", bucket.objects[name].attribute)
    with opened(Host(bucket)) as tree:
        tree.recover()
        assert bucket.objects["m/v3/large"].data == LARGE and bucket.objects["m/v3/small"].data == b"small"
        assert tree.check(deep=True).ok


def test_a_recovery_by_another_host_keeps_nothing_of_what_is_as_it_was_applied() -> None:
    """Though the metadata.json of each LSN is another text."""
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        for number in range(3):
            tree.put("m/v3", b"%d" % number, name="b", force=True)
            tree.update("m/v3", n=number)
        tree._engine.abandon()
    with opened(Host(bucket)) as tree:
        done = tree.recover()
        assert done.nodes > 0 and done.edited == []


@pytest.mark.parametrize("left", [b"", None], ids=["cut short", "gone"])
def test_staged_content_that_was_lost_is_not_published_as_the_blob(left: bytes | None) -> None:
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket), apply="background") as tree:
        tree.put("m/v3", LARGE, name="large")
        tree._engine.abandon()
    (staged,) = (name for name in bucket.objects if name.startswith(".wal/staged/"))
    attribute = bucket.objects.pop(staged).attribute
    if left is not None:
        bucket.put(staged, left, attribute)
    with opened(Host(bucket)) as tree:
        done = tree.recover()
        assert list(done.failed) == ["m/v3"] and f"{staged}" in done.failed["m/v3"]
        assert "m/v3/large" not in bucket.objects
        bucket.put(staged, LARGE, attribute)  # the copy of a backup
        assert tree.recover().failed == {}
        assert bucket.objects["m/v3/large"].data == LARGE


def test_a_blob_that_is_in_place_needs_no_staged_content() -> None:
    """As where an overtaken host has made its checkpoint late: the mark is not raised yet."""
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        tree.put("m/v3", LARGE, name="large")
        tree._engine.abandon()
    for name in [name for name in bucket.objects if name.startswith(".wal/staged/")]:
        del bucket.objects[name]
    with opened(Host(bucket)) as tree:
        done = tree.recover()
        assert (done.failed, done.records, bucket.objects["m/v3/large"].data) == ({}, 1, LARGE)
