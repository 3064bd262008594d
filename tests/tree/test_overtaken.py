"""A committer in a bucket is stopped at any storage call of its pass, overtaken by another, and goes on (E11, I6).

The bucket's versions are made from content, as on real servers: content that comes back brings its version back.
What remains in spite of it all is the last test of this file, and in docs/storage_contract.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import wal
from metatree import ApplyPendingWarning, Metatree
from metatree.object_plan import is_gone, stamp
from metatree.objects import Objects
from tests.tree.storages import NamedObjects, Swift, TextBucket
from wal.testing.hosts import watched

LEVELS = ("model", "version")
Act = Callable[[Metatree], object]


class Host:
    """One handle's storage: stops before its k-th call after the commit, until it is told to go on; `deaf`: does not
    get that call's reply if it published an object of the tree."""

    def __init__(self, bucket: TextBucket, stop_at: int = 0, *, deaf: bool = False) -> None:
        self.storage = watched(NamedObjects(bucket, "tree"), self._around)
        self.stop_at = stop_at
        self.deaf = deaf
        self.calls: list[str] = []  # since the commit
        self.armed = False
        self.committed = False
        self.stopped, self.go_on = threading.Event(), threading.Event()
        self._mutex = threading.Lock()

    def _around(self, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        with self._mutex:
            if self.committed:
                self.calls.append(f"{method} {arguments[0] if arguments else ''}")
            stop = self.committed and self.stop_at and len(self.calls) >= self.stop_at
        if stop:
            self.stopped.set()
            self.go_on.wait()
        result = run()
        if stop and self.deaf and method == "publish" and arguments[0].startswith("m/"):
            self.stop_at, self.deaf = 0, False
            raise TimeoutError("the reply was lost")
        if self.armed and method == "create" and str(arguments[0]).endswith(".rec"):
            self.committed = True
        return result


class Hosted(Metatree):
    _tuning = {"clock": Swift()}  # noqa: RUF012  as in the class above it


def opened(host: Host, **options: Any) -> Metatree:
    return Hosted(host.storage, LEVELS, **options)


def suspended(host: Host, **options: Any) -> Metatree:
    """A handle for which no time passes while another waits: it does not learn from a clock that it is late."""

    class Suspended(Metatree):
        _tuning = {"clock": Swift()}  # noqa: RUF012  as in the class above it

    return Suspended(host.storage, LEVELS, **options)


def prepared(bucket: TextBucket) -> None:
    with opened(Host(bucket)) as tree:
        for version in ("v1", "v2"):
            tree.put(f"m/{version}", version.encode(), name="b")
        tree.update("m", active="v1")
        tree.put("other", b"other", name="b")


def shown(bucket: TextBucket) -> dict[str, Any]:
    """What people see: every object outside of the engine's folders, metadata parsed."""
    return {
        name: json.loads(stored.data) if name.endswith("metadata.json") else stored.data
        for name, stored in bucket.objects.items()
        if name.split("/")[0] not in (".wal", ".lock", ".metatree")
    }


def in_order(*acts: Act) -> dict[str, Any]:
    """What the log says: the same changes one after the other, undisturbed."""
    bucket = TextBucket()
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        for act in acts:
            act(tree)
    return shown(bucket)


def mixed(tree: Metatree) -> None:
    with tree.transaction():
        tree.put("m/v3", b"three", name="b")
        tree.update("m", active="v3")
        tree.delete("m/v1", recursive=True)
        tree.put("m/v2", b"TWO", name="b", force=True)


def flip(tree: Metatree) -> None:
    for value in ("v2", "v1"):  # the text comes back, and with it, if nothing told them apart, the version
        tree.update("m", active=value)


def again(tree: Metatree) -> None:
    tree.delete("m/v3", recursive=True)
    tree.put("m/v3", b"3", name="c")


def anew(tree: Metatree) -> None:
    with tree.transaction():
        tree.delete("m", recursive=True)
        tree.put("m/v9", b"9", name="b")


def retype(tree: Metatree) -> None:
    tree.delete("m/v1", recursive=True)
    tree.put("m", b"a blob now", name="v1")


def directory(tree: Metatree) -> None:
    with tempfile.TemporaryDirectory(prefix="metatree-test-") as folder:
        Path(folder, "inner").mkdir()
        for name in ("x", "inner/y"):
            Path(folder, name).write_text(name)
        tree.put("m/v1", folder, name="d", recursive=True)


VICTIM: dict[str, Act] = {
    "put": lambda tree: tree.put("m/v3", b"three", name="b"),
    "force": lambda tree: tree.put("m/v1", b"ONE", name="b", force=True),
    "update": lambda tree: tree.update("m", active="v2"),
    "delete": lambda tree: tree.delete("m/v1", recursive=True),
    "move": lambda tree: tree.move("m/v1", "m/v3"),
    "mixed": mixed,
    "directory": directory,
}
RIVAL: dict[str, Act] = {
    "drops what it makes": lambda tree: tree.delete("m/v3", recursive=True),
    "drops and makes it again": again,
    "drops everything": lambda tree: tree.delete("m", recursive=True),
    "makes everything anew": anew,
    "puts the old text back": flip,
    "puts the same name again": lambda tree: tree.put("m/v1", b"1", name="b", force=True),
    "puts the same content again": lambda tree: tree.put("m/v1", b"v1", name="b", force=True),
    "changes its kind": retype,
    "puts a file in its place": lambda tree: tree.put("m/v1", b"file", name="d", force=True),
}
POSSIBLE = {  # the rival's change makes sense after the victim's
    "put": [name for name in RIVAL if not name.startswith("puts a file")],
    "force": [name for name in RIVAL if not name.startswith(("drops and", "drops what", "puts a file"))],
    "update": ["drops everything", "makes everything anew", "puts the old text back", "puts the same name again"],
    "delete": [
        "drops everything",
        "makes everything anew",
        "puts the old text back",
        "puts the same name again",
        "puts the same content again",
    ],
    "move": ["drops what it makes", "drops and makes it again", "drops everything", "puts the same name again"],
    "mixed": ["drops what it makes", "drops and makes it again", "drops everything", "puts the same content again"],
    "directory": ["drops everything", "changes its kind", "puts a file in its place"],
}


def overtaken(
    victim: Act,
    rival: Act,
    stop_at: int,
    *,
    checkpoint: bool,
    prepare: Callable[[TextBucket], None] = prepared,
    deaf: bool = False,
    **options: Any,
) -> tuple[TextBucket, Host]:
    """The bucket after it; how many calls the victim made."""
    bucket = TextBucket()
    prepare(bucket)
    host = Host(bucket, stop_at, deaf=deaf)
    tree = suspended(host, **options)
    host.armed = True
    raised: list[BaseException] = []

    def run() -> None:
        try:
            victim(tree)
        except BaseException as error:  # noqa: BLE001  told by the test's own thread
            raised.append(error)
        finally:
            host.stopped.set()

    thread = threading.Thread(target=run)
    thread.start()
    host.stopped.wait()
    with opened(Host(bucket)) as other:
        rival(other)
        other.flush()
        if checkpoint:
            other.checkpoint()
        host.go_on.set()
        thread.join()
        assert [error for error in raised if not (deaf and isinstance(error, ApplyPendingWarning))] == []
        tree.flush()
        other.flush()
        tree.close()
    return bucket, host


def assert_right(bucket: TextBucket, expected: dict[str, Any]) -> None:
    with opened(Host(bucket)) as tree:
        report = tree.check(deep=True)
    assert report.ok and shown(bucket) == expected, report


def every_stop(victim: Act, rival: Act, **given: Any) -> Iterator[tuple[int, TextBucket]]:
    stop_at = 1
    while True:
        bucket, host = overtaken(victim, rival, stop_at, **given)
        yield stop_at, bucket
        if len(host.calls) < stop_at:  # it was never stopped: the rival came after it
            return
        stop_at += 1
        if stop_at > 60:
            raise AssertionError("the pass never ends")


CASES = [(v, r, trims) for v, rivals in POSSIBLE.items() for r in rivals for trims in (False, True)]
REMAINS = "puts the same content again"


@pytest.mark.parametrize(("victim", "rival", "checkpoint"), [c for c in CASES if c[1:] != (REMAINS, True)])
def test_a_committer_stopped_at_any_call_and_overtaken_changes_nothing_that_stays(
    victim: str, rival: str, checkpoint: bool
) -> None:
    expected = in_order(VICTIM[victim], RIVAL[rival])
    stops = 0
    for stop, bucket in every_stop(VICTIM[victim], RIVAL[rival], checkpoint=checkpoint):
        stops = stop
        if shown(bucket) != expected:
            different = {n for n in {*shown(bucket), *expected} if shown(bucket).get(n) != expected.get(n)}
            pytest.fail(f"stopped at call {stop}: {sorted(different)}")
        assert_right(bucket, expected)
    assert stops > 3


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("rival", ["drops what it makes", "drops everything"])
def test_what_an_overtaken_committer_created_without_learning_of_it_is_removed_as_well(
    rival: str, checkpoint: bool
) -> None:
    expected = in_order(VICTIM["put"], RIVAL[rival])
    deaf = 0
    for stop, bucket in every_stop(VICTIM["put"], RIVAL[rival], checkpoint=checkpoint, deaf=True):
        deaf += 1
        assert shown(bucket) == expected, f"stopped at call {stop}"
        assert_right(bucket, expected)
    assert deaf > 3


def test_a_committer_that_need_not_ask_for_the_head_asks_once_it_has_read_what_another_put() -> None:
    victim, rival = VICTIM["update"], RIVAL["puts the old text back"]
    expected = in_order(victim, rival)
    for stop, bucket in every_stop(victim, rival, checkpoint=True, consistency=3600):
        assert shown(bucket) == expected, f"stopped at call {stop}"


@pytest.mark.parametrize("change", ["put", "delete"])
def test_a_committer_asks_before_each_step_whether_it_was_overtaken(change: str) -> None:
    bucket, steps, allowed = TextBucket(), list[str](), iter(range(0))
    prepared(bucket)

    def around(method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        steps.extend(name for name in arguments[:1] if method in ("publish", "remove") and name.startswith("m/"))
        return run()

    def check(*, now: bool = False) -> None:
        if next(allowed, None) is None:
            raise wal.RightLostError("another has it")

    with Metatree(watched(NamedObjects(bucket, "tree"), around), apply="background") as tree:
        committer = tree._engine.committer
        committer.stop()
        VICTIM[change](tree)
        for number in range(3):  # objects
            allowed = iter(range(number))
            steps.clear()
            with pytest.raises(wal.RightLostError), committer.hold() as tenure:
                tenure.check = check  # type: ignore[method-assign]
                committer.pass_held(tenure)
            assert len(steps) == number
        tree.flush()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_foreign_object_is_kept_and_what_took_its_place_meanwhile_stays(checkpoint: bool) -> None:
    """The name is looked at, kept and removed in several requests: another committer may publish it in between."""

    def prepare(bucket: TextBucket) -> None:
        prepared(bucket)
        bucket.put("m/v1/x", b"somebody's", None)

    def rival(tree: Metatree) -> None:
        tree.put("m/v1", b"the rival's", name="x", force=True)

    for stop, bucket in every_stop(VICTIM["delete"], rival, checkpoint=checkpoint, prepare=prepare):
        assert shown(bucket).get("m/v1/x") == b"the rival's", f"stopped at call {stop}"
        with opened(Host(bucket)) as tree:
            assert tree.check(deep=True).ok
        kept = [stored.data for name, stored in bucket.objects.items() if name.startswith(".wal/quarantine/")]
        assert b"somebody's" in kept


def test_each_version_of_a_metadata_json_has_a_text_of_its_own() -> None:
    bucket = TextBucket()
    prepared(bucket)
    versions = set()
    with opened(Host(bucket)) as tree:
        for number in range(20):
            tree.update("m", active=f"v{number % 2 + 1}")
            versions.add(bucket.objects["m/metadata.json"].version)
    assert len(versions) == 20
    assert len({stamp(lsn) for lsn in range(1, 2000)}) == 1999


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ([{"m": {"del": ["b"]}}], True),
        ([{"m": {"del": ["b"]}}, {"m": {"put": ["b"]}}], False),
        ([{"m": {"put": ["b"]}}, {"m": {"del": ["b"]}}], True),
        ([{"": {"gone": ["m"]}}], True),
        ([{"m": {"put": ["b"]}, "": {"gone": ["m"], "new": ["m"]}}], False),  # in one record, named in any order
        ([{"": {"gone": ["m"], "new": ["m"]}}], True),  # the node is there again, the blob is not
        ([{"m": {"set": ["a"]}}], False),
        ([{"n": {"del": ["b"]}}], False),
        ([{"": {"put": ["m"]}}], True),  # a file in place of a directory blob
        ([{"": {"put": ["m"]}}, {"": {"del": ["m"], "put": ["m/b"]}}], False),
    ],
)
def test_what_records_say_of_an_objects_end(changes: list[dict[str, dict[str, list[str]]]], gone: bool) -> None:
    assert is_gone("m/b", changes) is gone


@pytest.mark.parametrize(("new", "gone"), [("m", False), ("n", True)])
def test_the_file_of_a_node_is_there_again_if_a_record_makes_that_node(new: str, gone: bool) -> None:
    assert is_gone("m/metadata.json", [{"": {"gone": ["m"], "new": [new]}}]) is gone


def test_a_hand_edit_that_a_committer_meets_is_kept() -> None:
    bucket, name, edit = TextBucket(), "m/metadata.json", b'{"edited": true, "children": ["v1", "v2"]}'
    prepared(bucket)
    with opened(Host(bucket)) as tree:
        for number in (1, 2):  # the handle knows the version that it published
            tree.update("m", n=number)
            bucket.put(name, edit, (None, bucket.objects[name].attribute)[number - 1])
        tree.update("m", n=3)
        bucket.put("m/v1/b", b"edited", None)
        for version in ("v1", "v2"):  # whose versions it does not know; one is the engine's own
            tree.put(f"m/{version}", b"put", name="b", force=True)
            assert bucket.objects[f"m/{version}/b"].data == b"put"
    kept = [stored.data for name, stored in bucket.objects.items() if name.startswith(".wal/quarantine/")]
    assert kept == [edit, edit, b"edited"]
    assert shown(bucket)["m/metadata.json"]["n"] == 3 and "edited" not in shown(bucket)["m/metadata.json"]


@pytest.mark.parametrize("victim", ["force", "delete"])
def test_what_remains_is_a_blob_whose_very_content_was_put_again_and_trimmed_meanwhile(victim: str) -> None:
    """Its version is the one that the stopped committer expects, and its record's body is gone: no server could tell.

    A metadata.json never comes back to a version that it had, and until the log is trimmed it is put right.
    """
    expected = in_order(VICTIM[victim], RIVAL[REMAINS])
    wrong = set()
    for _, bucket in every_stop(VICTIM[victim], RIVAL[REMAINS], checkpoint=True):
        wrong |= {name for name in {*shown(bucket), *expected} if shown(bucket).get(name) != expected.get(name)}
    assert wrong == {"m/v1/b"}


def test_what_a_pass_knows_of_an_object_may_be_forgotten_by_its_other_threads_between_any_lines() -> None:
    lines = set[int]()
    for stop in range(1, 20):
        work, count = SimpleNamespace(versions={"m": {}}), 0

        def look(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal count
            if frame.f_code is not Objects._found.__code__:
                return None
            count += event == "line"
            if count == stop:  # noqa: B023  called before the next round
                work.versions.clear()  # noqa: B023  as after a step that failed
                lines.add(frame.f_lineno)
            return look

        sys.settrace(look)
        try:
            Objects(mock.Mock(), mock.Mock())._found(work, "m/v1/b", "2")  # type: ignore[arg-type]
        finally:
            sys.settrace(None)
    assert len(lines) > 2
