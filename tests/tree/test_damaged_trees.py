"""A damaged tree: every class of damage is told apart and named; nothing is silently changed, nothing raw is raised."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree import (
    ApplyPendingWarning,
    CorruptionError,
    FormatError,
    Metatree,
    MetatreeError,
    Report,
)
from metatree.facts import Header, NodeFact, encode

LEVELS = ("model", "version")
LARGE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(4_000))  # 128 kB: staged

# What the tree of `made` holds: the only state that may ever be seen, whole.
KEYS: dict[str, dict[str, Any]] = {
    "": {"owner": "ann"},
    "m": {"active": "v2", "tags": ["a", "b"]},
    "m/v1": {"auc": 0.93},
    "m/v2": {"auc": 0.95, "file": "w"},
    "other": {},
}
CHILDREN = {"": ["m", "other"], "m": ["v1", "v2"], "m/v1": [], "m/v2": [], "other": []}
BLOBS = {
    "m/readme": b"read me",
    "m/v1/w": b"weights 1",
    "m/v2/w": LARGE,
    "m/v2/d/inner": b"in a folder",
    "other/x": b"",
}


def fill(tree: Metatree, folder: Path) -> None:
    (folder / "d").mkdir(exist_ok=True)
    (folder / "d/inner").write_bytes(BLOBS["m/v2/d/inner"])
    tree.put("m", BLOBS["m/readme"], name="readme")
    with tree.transaction():
        for version in ("v1", "v2"):
            tree.put(f"m/{version}", BLOBS[f"m/{version}/w"], name="w")
        tree.put("m/v2", folder / "d", recursive=True)
    tree.put("other", b"", name="x")
    for path, keys in KEYS.items():
        tree.update(path, keys)


@pytest.fixture(scope="module", params=["checkpointed", "only in the log"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A healthy tree, never opened again: after a clean close, or as a killed process leaves it (files in place)."""
    base = tmp_path_factory.mktemp("original")
    root = base / "tree"
    root.mkdir()
    with Metatree(root, LEVELS) as tree:
        fill(tree, base)
        if request.param == "only in the log":
            shutil.copytree(root, base / "copy", copy_function=copy_with_attributes)
    if request.param == "only in the log":
        yield base / "copy"
    else:
        yield root
    shutil.rmtree(base)


def copy_with_attributes(source: str, target: str) -> str:
    """As `cp -a`: sparse where zero, attributes kept."""
    data = Path(source).read_bytes()
    with open(target, "wb") as file:
        file.write(data.rstrip(b"\0"))
        file.truncate(len(data))
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    return target


def copy_tree(source: Path, target: Path) -> Path:
    """A copy as a backup program makes it, attributes of folders included."""
    shutil.copytree(source, target, copy_function=copy_with_attributes)
    for folder in [source, *(p for p in source.rglob("*") if p.is_dir())]:
        for name in os.listxattr(folder):
            os.setxattr(target / folder.relative_to(source), name, os.getxattr(folder, name))
    return target


@pytest.fixture
def root(original: Path, fast_path: Path) -> Path:
    return copy_tree(original, fast_path / "tree")


@pytest.fixture
def settled(tmp_path: Path, fast_path: Path) -> Path:
    """A healthy tree after a clean close."""
    with Metatree(fast_path / "tree", LEVELS) as tree:
        fill(tree, fast_path)
    return fast_path / "tree"


def picture(tree: Metatree) -> dict[str, Any]:
    """All that can be read. Raises whatever reading raises."""
    seen: dict[str, Any] = {}
    for node in tree.walk():
        seen[node.path] = (dict(node.metadata), node.children)
    for name in BLOBS:
        seen[name] = b"".join(tree.get(name))
    return seen


EXPECTED = {**{path: (KEYS[path], CHILDREN[path]) for path in KEYS}, **BLOBS}


def overwrite(file: Path, data: bytes) -> None:
    """In place, as rot or a careless program would: the inode and its attribute stay."""
    with file.open("r+b") as stream:
        stream.truncate(0)
        stream.write(data)


# --- metadata.json ----------------------------------------------------------------------------------------------------

BAD_METADATA: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  \n",
    "cut": b'{"active": "v2", "ta',
    "cut in a character": '{"a": "ü'.encode()[:-1],
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "Latin-1": '{"a": "ü"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "array": b'[{"a": 1}]',
    "string": b'"text"',
    "number": b"1",
    "null": b"null",
    "two values": b'{"a": 1}{"a": 2}',
    "trailing text": b'{"a": 1} x',
    "single quotes": b"{'a': 1}",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "duplicate keys": b'{"a": 1, "a": 2}',
    "duplicate keys inside": b'{"a": {"b": 1, "b": 2}}',
    "children text": b'{"children": "v1"}',
    "children object": b'{"children": {"v1": 1}}',
    "children null": b'{"children": null}',
    "children number": b'{"children": 3}',
    "children of numbers": b'{"children": [1, 2]}',
    "children of lists": b'{"children": [["v1"]]}',
    "children twice": b'{"children": ["v1", "v1"]}',
    "children lead out": b'{"children": ["../../etc"]}',
    "children reserved": b'{"children": [".wal"]}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("with_attribute", [True, False])
def test_an_unreadable_metadata_json_is_an_error_that_names_it_and_never_empty(
    with_attribute: bool, settled: Path
) -> None:
    with Metatree(settled) as tree:
        head = tree.lsn
    for where in ("m/v2", "m", ""):
        file = settled / where / "metadata.json"
        good = file.read_bytes()
        attribute = os.getxattr(file, "user.metatree")
        for what, data in BAD_METADATA.items():
            overwrite(file, data)
            if not with_attribute:
                os.removexattr(file, "user.metatree")
            with Metatree(settled) as tree:
                for call in (
                    lambda tree=tree, where=where: tree.find(where).metadata,
                    lambda tree=tree, where=where: tree.children(where),
                    lambda tree=tree, where=where: tree.update(where, changed=1),
                ):
                    with pytest.raises(CorruptionError, match=r"metadata\.json") as caught:
                        call()
                    assert f"{where}/metadata.json".lstrip("/") in str(caught.value), what
                assert tree.lsn == head
                report = tree.check()
                assert not report.ok and any(f.path.endswith("metadata.json") for f in report.problems), what
            assert file.read_bytes() == data, what  # evidence stays
            overwrite(file, good)
            os.setxattr(file, "user.metatree", attribute)
    with Metatree(settled) as tree:
        assert picture(tree) == EXPECTED
        assert tree.check(deep=True).ok


def test_what_the_log_still_holds_is_written_again(fast_path: Path, tmp_path: Path) -> None:
    base = tmp_path
    with Metatree(base / "tree", LEVELS) as tree:
        fill(tree, base)
        root = copy_tree(base / "tree", fast_path / "tree")
    for data in BAD_METADATA.values():
        overwrite(root / "m/v2/metadata.json", data)
        again = copy_tree(root, fast_path / "again")
        with Metatree(again) as tree:
            assert picture(tree) == EXPECTED
            assert tree.check(deep=True).ok
        shutil.rmtree(again)


def test_a_missing_metadata_json_or_folder_is_corruption_if_the_parent_lists_it(settled: Path) -> None:
    (settled / "m/v2/metadata.json").rename(settled / "kept")
    with Metatree(settled) as tree:
        with pytest.raises(CorruptionError, match=r"m/v2/metadata\.json"):
            _ = tree.find("m/v2").metadata
        report = tree.check()
        assert [f.path for f in report.problems] == ["m/v2/metadata.json"]
    shutil.rmtree(settled / "m/v2")
    with Metatree(settled) as tree:
        with pytest.raises(CorruptionError, match="m/v2"):
            tree.children("m/v2")
        assert not tree.check().ok
        assert dict(tree.find("m/v1").metadata) == KEYS["m/v1"]  # the rest is served


# --- edits by hand ----------------------------------------------------------------------------------------------------


def test_a_hand_edit_stops_changes_of_that_node_only_and_is_named(settled: Path) -> None:
    overwrite(settled / "m/v1/metadata.json", b'{"auc": 0.5, "by hand": true}')
    with Metatree(settled) as tree:
        head = tree.lsn
        calls: list[Callable[[], object]] = [
            lambda: tree.update("m/v1", x=1),
            lambda: tree.unset("m/v1", "auc"),
            lambda: tree.compare_and_set("m/v1", "auc", 0.5, 1),
        ]
        for call in calls:
            with pytest.raises(CorruptionError, match=r"m/v1/metadata\.json"):
                call()
        assert tree.lsn == head
        tree.update("m/v2", fine=True)
        report = tree.check()
        assert [f.path for f in report.problems] == ["m/v1/metadata.json"]
        assert "by hand" in report.problems[0].reason
    assert json.loads((settled / "m/v1/metadata.json").read_text()) == {"auc": 0.5, "by hand": True}


def test_a_hand_edit_that_apply_meets_is_kept_in_quarantine_and_the_log_wins(settled: Path) -> None:
    edit = b'{"auc": 0.5, "by hand": true}'
    with Metatree(settled) as tree:
        tree.update("m/v1", touched=1)  # in the log since the checkpoint, so known without the file
        tree.find("m/v1")
        overwrite(settled / "m/v1/metadata.json", edit)
        assert not tree.check().ok
        tree.update("m/v1", touched=2)
        assert dict(tree.find("m/v1").metadata) == {"auc": 0.93, "touched": 2}
        assert tree.check(deep=True).ok
    assert json.loads((settled / "m/v1/metadata.json").read_text()) == {"auc": 0.93, "touched": 2}
    kept = [p for p in (settled / ".wal/quarantine").rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in kept] == [edit]
    assert kept[0].as_posix().endswith("m/v1/metadata.json")


def test_a_rewrite_that_changes_nothing_is_no_edit(settled: Path) -> None:
    file = settled / "m/v1/metadata.json"
    overwrite(file, file.read_bytes())
    with Metatree(settled) as tree:
        tree.update("m/v1", x=1)
        assert tree.check().ok


def test_a_file_without_an_attribute_is_unknown_and_no_error(settled: Path) -> None:
    for file in settled.rglob("*"):
        if file.is_file() and ".wal" not in file.parts and os.listxattr(file):
            os.removexattr(file, "user.metatree")
    with Metatree(settled) as tree:
        assert {k: v for k, v in picture(tree).items() if k != "m/v2/d/inner"} == {
            k: v for k, v in EXPECTED.items() if k != "m/v2/d/inner"
        }
        tree.update("m/v1", x=1)
        tree.put("m/v1", b"n", name="new")
        report = tree.check(deep=True)
        assert report.ok
        assert {f.path for f in report.notes} >= {"m/v1/w", "other/x"}


@pytest.mark.parametrize("edit", ["flip", "cut", "longer", "empty"])
def test_an_edited_blob_is_found_at_the_end_of_get_and_by_a_deep_check(
    edit: str, settled: Path, fast_path: Path
) -> None:
    data = {"flip": b"X" + LARGE[1:], "cut": LARGE[:-1], "longer": LARGE + b"x", "empty": b""}[edit]
    overwrite(settled / "m/v2/w", data)
    with Metatree(settled) as tree:
        parts = []
        with pytest.raises(CorruptionError, match="m/v2/w"):
            for part in tree.get("m/v2/w"):
                parts.append(part)
        assert b"".join(parts) == data
        with pytest.raises(CorruptionError):
            tree.get("m/v2/w", fast_path / "out")
        assert not (fast_path / "out").exists()
        report = tree.check(deep=True)
        assert [f.path for f in report.problems] == ["m/v2/w"]
        with pytest.raises(CorruptionError):
            b"".join(tree.get("m/v2/w"))
        tree.put("m/v2", LARGE, name="w", force=True)
        assert tree.check(deep=True).ok


def test_a_missing_blob_is_a_problem_before_and_after_a_checkpoint_until_it_is_put_again(settled: Path) -> None:
    with Metatree(settled) as tree:
        tree.put("m/v1", b"just put", name="new")
        (settled / "m/v1/new").unlink()
        assert [f.path for f in tree.check().problems] == ["m/v1/new"]
        tree.checkpoint()
        assert [f.path for f in tree.check().problems] == ["m/v1/new"]
        tree.put("m/v1", b"just put", name="new", force=True)
        assert tree.check().ok


def test_foreign_files_and_folders_are_left_alone_and_noted(settled: Path) -> None:
    (settled / "m/v1/notes.txt").write_bytes(b"foreign")
    (settled / "m/stray/metadata.json").parent.mkdir()
    (settled / "m/stray/metadata.json").write_bytes(b'{"a": 1}')
    (settled / "stray.bin").write_bytes(b"x")
    with Metatree(settled) as tree:
        assert tree.children("m") == ["v1", "v2"]
        assert not tree.exists("m/stray/metadata") and "stray" not in tree.list("m")
        assert tree.list("m/v1") == ["notes.txt", "w"]
        assert b"".join(tree.get("m/v1/notes.txt")) == b"foreign"
        report = tree.check(deep=True)
        assert report.ok
        assert {f.path for f in report.notes} == {"m/v1/notes.txt", "m/stray", "stray.bin"}
        tree.put("m/stray2", b"x", name="b")
        tree.checkpoint()
    assert (settled / "m/stray/metadata.json").read_bytes() == b'{"a": 1}'


# --- the log ----------------------------------------------------------------------------------------------------------


def segments(root: Path) -> list[Path]:
    return sorted((root / ".wal").glob("*.log"))


def refused(root: Path, *kinds: type[Exception]) -> str:
    """Opening, for writing and for reading, is refused by one of `kinds`; nothing is changed. The message."""
    before = all_bytes(root)
    with pytest.raises(kinds) as reading:
        Metatree(root, read_only=True)
    with pytest.raises(kinds) as writing:
        Metatree(root)
    assert all_bytes(root) == before
    assert type(reading.value) is type(writing.value)
    return str(writing.value)


def all_bytes(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes().rstrip(b"\0")
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.parent.name != "tmp"
    }


@pytest.mark.parametrize("what", ["folder", "segments", "checkpoint.json"])
def test_a_missing_log_is_refused_and_named(what: str, root: Path) -> None:
    if what == "folder":
        shutil.rmtree(root / ".wal")
    elif what == "segments":
        for segment in segments(root):
            segment.unlink()
    else:
        (root / ".wal/checkpoint.json").unlink()
    message = refused(root, CorruptionError)
    assert ".wal" in message


def test_a_missing_head_file_is_rebuilt(root: Path) -> None:
    (root / ".wal/head").unlink()
    with Metatree(root, read_only=True) as reader:
        assert picture(reader) == EXPECTED
    with Metatree(root) as tree:
        assert picture(tree) == EXPECTED
        tree.update("m", more=1)
        assert tree.check(deep=True).ok


@pytest.mark.parametrize("what", ["segment", "checkpoint.json"])
def test_an_empty_log_file_is_corruption(what: str, root: Path) -> None:
    file = segments(root)[-1] if what == "segment" else root / ".wal/checkpoint.json"
    file.write_bytes(b"")
    assert file.name in refused(root, CorruptionError)


def test_the_log_of_another_tree_is_refused(root: Path, fast_path: Path) -> None:
    with Metatree(fast_path / "foreign", LEVELS) as foreign:
        foreign.put("m/v9", b"x", name="b")
    shutil.rmtree(root / ".wal")
    shutil.copytree(fast_path / "foreign/.wal", root / ".wal")
    assert "another tree" in refused(root, CorruptionError)


def test_a_segment_of_another_tree_is_refused(root: Path, fast_path: Path) -> None:
    with Metatree(fast_path / "foreign", LEVELS) as foreign:
        foreign.put("m/v9", b"x", name="b")
    shutil.copy(segments(fast_path / "foreign")[0], segments(root)[0])
    refused(root, CorruptionError)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": "1"}, {"min_reader": 2, "min_writer": 2}, {"log": "slot"}, {"log": "quantum"}],
    ids=str,
)
def test_a_newer_format_is_a_format_error(change: dict[str, Any], root: Path) -> None:
    config = json.loads((root / ".metatree").read_text())
    (root / ".metatree").write_text(json.dumps({**config, **change}))
    assert "upgrade" in refused(root, FormatError)


def test_a_record_of_a_newer_format_is_refused_by_who_reads_and_by_who_recovers(root: Path) -> None:
    newer = encode(Header("1-00", "now", "tomorrow"), [NodeFact(("m", "v1"), {"auc": 1.0}, ())])
    storage = wal.LocalStorage(str(root))
    log = wal.open_log(storage)
    log.append(lambda head, mates: wal.Record(newer.header.replace(b'"v":1', b'"v":3'), newer.body))
    log.close()
    storage.close()
    before = all_bytes(root)
    with Metatree(root, read_only=True) as tree, pytest.raises(FormatError, match="upgrade"):
        tree.find("m")
    with pytest.raises(FormatError, match="upgrade"):
        Metatree(root)
    assert all_bytes(root) == before


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"keys": []}', b'{"keys": "model"}', b'{"keys": ["a", "a"]}', b'{"keys": [1]}',
     b"{}", b"\xff", b'{"keys": ["model", "version"], "format": 1}', b'{"keys": ["../x"]}', b"[" * 50_000,
     b'{"keys": ["m"], "keys": ["n"]}'],
)  # fmt: skip
def test_an_unreadable_config_is_corruption_that_names_it(data: bytes, root: Path) -> None:
    (root / ".metatree").write_bytes(data)
    assert ".metatree" in refused(root, CorruptionError)


@pytest.mark.parametrize("name", ["keys", "min_reader", "min_writer", "log", "id"])
def test_a_config_that_lacks_something_says_what(name: str, root: Path) -> None:
    config = json.loads((root / ".metatree").read_text())
    del config[name]
    (root / ".metatree").write_text(json.dumps(config))
    assert f"does not describe a tree: '{name}' is missing" in refused(root, CorruptionError)


@pytest.mark.parametrize("name", [".metatree", ".wal/tmp"])
def test_something_of_the_wrong_kind_among_the_engines_files_is_corruption(name: str, root: Path) -> None:
    there = root / name
    if there.is_dir():
        shutil.rmtree(there)
        there.touch()
    else:
        there.unlink()
        there.mkdir()
    with pytest.raises(CorruptionError, match=rf"/{re.escape(name)}.* where the tree has a .*: move .* away"):
        Metatree(root)


def test_a_file_in_place_of_the_staging_folder_is_corruption(settled: Path) -> None:
    if (settled / ".wal/staged").exists():
        shutil.rmtree(settled / ".wal/staged")
    (settled / ".wal/staged").touch()
    with pytest.raises(CorruptionError, match=r"/\.wal/staged, .* is a file where the tree has a folder: move"):
        Metatree(settled)


def test_a_folder_in_place_of_a_metadata_json_is_corruption_and_the_node_can_be_given_up(settled: Path) -> None:
    (settled / "other/metadata.json").unlink()
    (settled / "other/metadata.json").mkdir()
    with Metatree(settled) as tree:
        for call in (lambda: tree.find("other").metadata, lambda: tree.update("other", a=1)):
            with pytest.raises(CorruptionError, match=r"other/metadata\.json is a folder, not a file: move it away"):
                call()
        (problem,) = tree.check().problems
        assert (problem.kind, problem.path) == ("node-unreadable", "other/metadata.json")
        assert problem.reason.startswith("is a folder, not a file: move it away")
        tree.delete("other", recursive=True)
        assert tree.check().ok and tree.children() == ["m"]


@pytest.mark.parametrize("content", [b'{"children": ["../../x", 5]}', b'{"a": 1, "a": 2}'])
def test_a_foreign_attribute_does_not_vouch_for_a_metadata_json(content: bytes, settled: Path) -> None:
    file = settled / "m/metadata.json"
    file.write_bytes(content)
    os.setxattr(file, "user.metatree", b"of another program")
    with Metatree(settled) as tree, pytest.raises(CorruptionError, match=r"m/metadata\.json cannot be read"):
        tree.children("m")


def test_the_advice_for_a_missing_metadata_json_is_one_that_can_be_followed(settled: Path) -> None:
    (settled / "m/v1/metadata.json").write_bytes(b'{"children": ["zz"]}')
    with Metatree(settled) as tree:
        (reason,) = [each.reason for each in tree.check().problems if each.path == "m/v1/zz/metadata.json"]
        assert "m/v1/metadata.json lists it" in reason and "delete(" not in reason
        (settled / "metadata.json").unlink()
        (reason,) = [each.reason for each in tree.check().problems if each.path == "metadata.json"]
        assert reason == "is missing: restore it, from a backup if repair() cannot"


def test_a_damaged_name_of_a_level_that_is_still_a_name_changes_no_location(root: Path) -> None:
    """Nothing protects it (docs/log_format.md): this is what it does."""
    config = root / ".metatree"
    config.write_bytes(config.read_bytes().replace(b'"model"', b'"mofel"'))
    with Metatree(root, read_only=True) as tree:
        assert tree.keys == ("mofel", "version")
        assert tree.exists("m/v1") and tree.check(deep=True).ok
    with pytest.raises(MetatreeError, match=r"with the levels \(mofel, version\), not \(model, version\)"):
        Metatree(root, LEVELS)


def test_a_missing_config_is_no_tree_and_nothing_is_created_over_it(root: Path) -> None:
    (root / ".metatree").unlink()
    refused(root, MetatreeError)
    with pytest.raises(MetatreeError, match="neither a tree nor empty"):
        Metatree(root, LEVELS)


def test_a_checkpoint_newer_than_the_log_is_corruption(root: Path) -> None:
    file = root / ".wal/checkpoint.json"
    value = json.loads(file.read_text())
    file.write_text(json.dumps({**value, "redo": 10_000}))
    refused(root, CorruptionError)


def test_a_checkpoint_older_than_the_files_replays_to_the_same_state(settled: Path, fast_path: Path) -> None:
    with Metatree(settled) as tree:
        old = (settled / ".wal/checkpoint.json").read_bytes()
        tree.update("m", more=1)
        tree.put("m/v3", b"3", name="w")
        tree.delete("other", recursive=True)
        copy = copy_tree(settled, fast_path / "copy")
    (copy / ".wal/checkpoint.json").write_bytes(old)
    with Metatree(copy) as tree:
        assert dict(tree.find("m").metadata) == {**KEYS["m"], "more": 1}
        assert tree.children("") == ["m"] and tree.children("m") == ["v1", "v2", "v3"]
        assert tree.check(deep=True).ok


# --- leftovers, copies, nested trees ----------------------------------------------------------------------------------


def test_leftovers_of_a_dead_process_are_set_aside_and_nothing_is_deleted(root: Path) -> None:
    (root / ".wal/tmp").mkdir(exist_ok=True)
    (root / ".wal/tmp/unfinished").write_bytes(b"half")
    (root / ".wal/tmp/folder/deep").mkdir(parents=True)
    (root / ".wal/staged/1-00000000deadbeef").mkdir(parents=True)
    (root / ".wal/staged/1-00000000deadbeef/1").write_bytes(b"never committed")
    (root / ".wal/staged/odd name").mkdir()
    with Metatree(root, read_only=True) as reader:
        assert picture(reader) == EXPECTED
    with Metatree(root) as tree:
        assert picture(tree) == EXPECTED
        recovered = tree.recover()
        assert not recovered.clean and len(recovered.scratch) == 2 and len(recovered.staged) == 2
        assert tree.check(deep=True).ok
    aside = {p.read_bytes() for p in (root / ".wal/quarantine").rglob("*") if p.is_file()}
    assert {b"half", b"never committed"} <= aside
    with Metatree(root) as tree:
        assert tree.recover().clean


def test_a_copy_made_while_in_use_is_refused_or_whole_and_check_tells(fast_path: Path) -> None:
    """The copy meets files of any age beside a log of any age. What it never does: show half a transaction quietly."""
    tree = Metatree(fast_path / "tree", LEVELS)
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            with tree.transaction():
                tree.put(f"m{number % 3}/v{number}", str(number).encode(), name="w")
                tree.update("", a=number, b=number)
                tree.update(f"m{number % 3}", a=number, b=number)
            if number % 50 == 0:
                tree.checkpoint()

    writer = threading.Thread(target=write)
    writer.start()
    refusals = whole = told = 0
    for number in range(6):
        copy = fast_path / f"copy{number}"
        try:
            copy_tree(fast_path / "tree", copy)
        except (shutil.Error, FileNotFoundError):  # the copying program itself met a file that went
            if not (copy / ".metatree").exists():
                continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ApplyPendingWarning)
                with Metatree(copy) as opened:
                    ok = opened.check(deep=True).ok
                    nodes = {node.path: dict(node.metadata) for node in opened.walk()}
        except MetatreeError:
            refusals += 1
            continue
        if ok:
            whole += 1
            assert all(keys.get("a") == keys.get("b") for keys in nodes.values())
        else:
            told += 1
        shutil.rmtree(copy, ignore_errors=True)
    done.set()
    writer.join()
    tree.close()
    assert refusals + whole + told > 0
    with Metatree(fast_path / "tree") as tree:
        assert tree.check(deep=True).ok


def test_a_tree_inside_a_tree_is_foreign_to_the_outer_one_and_whole_by_itself(settled: Path, fast_path: Path) -> None:
    with Metatree(fast_path / "made outside", ("a",)):
        pass
    shutil.move(fast_path / "made outside", settled / "inner")
    with Metatree(settled / "inner") as inner, Metatree(settled) as outer:
        inner.put("x", b"inner", name="b")
        outer.put("m/v3", b"outer", name="b")
        assert outer.children("") == ["m", "other"] and outer.list("") == []
        assert inner.children("") == ["x"]
        assert outer.check(deep=True).ok and inner.check(deep=True).ok
        assert "inner" in {f.path for f in outer.check().notes}
    with Metatree(settled / "inner") as inner, Metatree(settled) as outer:
        assert inner.keys == ("a",) and outer.keys == LEVELS
    with Metatree(settled) as outer:
        with pytest.raises(MetatreeError, match="neither a tree nor empty"):
            Metatree(settled / "m/v1", ("k",))
        assert outer.check().ok


# --- every byte -------------------------------------------------------------------------------------------------------

WAYS = ("flip", "zero", "0xFF", "cut", "delete", "double", "swap")


def damage(file: Path, way: str, at: int) -> None:
    data = bytearray(file.read_bytes())
    match way:
        case "flip":
            data[at] ^= 1 << (at % 8)
        case "zero":
            data[at : at + 8] = bytes(len(data[at : at + 8]))
        case "0xFF":
            data[at : at + 8] = b"\xff" * len(data[at : at + 8])
        case "cut":
            del data[at:]
        case "delete":
            del data[at : at + 1]
        case "double":
            data[at:at] = data[at : at + 3]
        case "swap":
            data[at : at + 2] = data[at : at + 2][::-1]
    overwrite(file, bytes(data))


def examine(root: Path) -> tuple[str, dict[str, Any] | None, Report | None]:
    """Open and read everything: ('refused' | 'error' | 'read', what was seen, the report)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplyPendingWarning)
            with Metatree(root) as tree:
                report = tree.check(deep=True)
                try:
                    return "read", picture(tree), report
                except MetatreeError:
                    return "error", None, report
    except MetatreeError:
        return "refused", None, None


def small_files(root: Path) -> list[tuple[Path, int]]:
    """(file, how many of its bytes are worth damaging): of a log segment, what is written of it."""
    found = []
    for file in sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size):
        size = file.stat().st_size if file.suffix != ".log" else len(file.read_bytes().rstrip(b"\0")) + 8
        found.append((file, min(size, file.stat().st_size)))
    return found


def test_no_damaged_byte_of_any_file_is_ever_a_silent_change_or_a_raw_error(original: Path, fast_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    work = fast_path / "work"
    copy_tree(original, work)
    pristine = dict(small_files(work))
    shutil.rmtree(work)
    counts: dict[str, int] = {}
    for file, size in pristine.items():
        name = file.relative_to(work).as_posix()
        for _ in range(24):
            way, at = chooser.choice(WAYS), chooser.randrange(size)
            copy_tree(original, work)
            before = file.read_bytes()
            damage(file, way, at)
            case = f"seed {seed}: {name} {way} at {at}"
            if file.read_bytes() == before:
                shutil.rmtree(work)
                continue
            try:
                verdict, seen, report = examine(work)
            except Exception as error:
                raise AssertionError(f"{case}: a raw {type(error).__name__}: {error}") from error
            if verdict == "read":
                assert report is not None
                unchanged = seen == EXPECTED
                # Of the log's tail, a valid shorter prefix is legal where nothing had been acknowledged beyond it;
                # here everything had been, so any other state must at least be reported.
                assert unchanged or not report.ok, f"{case}: silently {seen}"
                verdict = "unchanged" if unchanged else "reported"
            elif verdict == "error":
                assert report is not None and not report.ok, f"{case}: an error that check() does not see"
            counts[verdict] = counts.get(verdict, 0) + 1
            shutil.rmtree(work)
    print(counts)
    assert sum(counts.values()) > 150
    assert counts.get("refused", 0) + counts.get("error", 0) + counts.get("reported", 0) > 20


@pytest.mark.parametrize("victim", ["metadata.json", "m/metadata.json", "m/v2/w", ".metatree", ".lock", ".wal/head"])
def test_no_missing_file_is_a_silent_change_or_a_raw_error(victim: str, root: Path) -> None:
    (root / victim).unlink()
    verdict, seen, report = examine(root)
    assert verdict != "read" or seen == EXPECTED or (report is not None and not report.ok)


def test_a_storage_without_attributes_is_no_error(fast_path: Path) -> None:
    class NoAttributes(wal.Posix):
        def getxattr(self, target: int | str, attribute: str) -> bytes:
            raise OSError(95, "not supported")

        def setxattr(self, target: int | str, attribute: str, value: bytes) -> None:
            raise OSError(95, "not supported")

    root = fast_path / "tree"
    root.mkdir()
    with Metatree(wal.LocalStorage(str(root), posix=NoAttributes()), LEVELS) as tree:
        fill(tree, fast_path)
        assert picture(tree) == EXPECTED
        assert tree.check(deep=True).ok
    with Metatree(wal.LocalStorage(str(root), posix=NoAttributes())) as tree:
        assert picture(tree) == EXPECTED
        tree.update("m", more=1)
        tree.put("m/v1", b"2", name="w", force=True)
        tree.delete("m/v2", recursive=True)
        assert tree.check(deep=True).ok
