"""`repair`, on every storage: what the log holds comes back, edits by hand are adopted or reverted, nothing is lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import wal
from metatree import ApplyPendingWarning, InvalidLocationError, Metatree, TransactionError, repair
from metatree.engine import Engine
from metatree.findings import Report
from metatree.repair_plan import Step
from metatree.staging import Content, Staging
from tests.tree.storages import again, at, records, storage_of

Make = Callable[..., Metatree]

EDIT = b'{"auc": 0.5, "by hand": true}'
WHOLE = b'{"children": ["v1", "v2"], "by hand": 1}'
LARGE = bytes(range(256)) * 400  # staged


@pytest.fixture
def tree(make_tree: Make) -> Metatree:
    """m/v1 is in no record since the last checkpoint, m/v2 is."""
    with make_tree() as tree:
        tree.put("m/v1", b"weights", name="w")
        tree.update("m/v1", auc=0.9)
    tree = make_tree(keys=None)
    tree.put("m/v2", b"second", name="w")
    tree.put("m/v2", LARGE, name="large")
    tree.update("m/v2", auc=0.8)
    tree.flush()
    return tree


def lose(tree: Metatree, name: str) -> None:
    """As `rm` does."""
    storage = storage_of(tree)
    storage.erase(name)
    assert storage.entry(name) is None


def actions(tree: Metatree, **options: object) -> dict[str, str]:
    """The plan: what is done about which file."""
    done = tree.repair(dry_run=True, **options)  # type: ignore[arg-type]
    assert not done.done and done.remains is None
    return {step.path: step.action for step in done.steps}


def kept(tree: Metatree) -> list[bytes]:
    return sorted(at(tree, ".wal/quarantine").files().values())


def assert_clean(tree: Metatree) -> None:
    """Also to a second run, and to somebody who opens the tree now."""
    for handle in (tree, again(tree, read_only=True)):
        report = handle.check(deep=True)
        assert report.clean, str(report)
        assert handle.repair(dry_run=True, edits="revert").steps == []
    before = tree.lsn
    assert tree.repair(edits="adopt").steps == [] and tree.lsn == before


def test_edits_by_hand_are_adopted_by_one_commit(tree: Metatree) -> None:
    at(tree, "m/v1/metadata.json").write_bytes(EDIT)
    at(tree, "m/v2/metadata.json").write_bytes(EDIT)
    at(tree, "m/v1/notes.txt").write_bytes(b"mine")
    at(tree, "m/v2/w").write_bytes(b"replaced")
    at(tree, "m/v2/folder/inner.txt").write_bytes(b"inner")
    before = tree.lsn
    done = tree.repair(edits="adopt")
    assert done.clean, str(done.remains)
    assert (tree.lsn, done.lsn) == (before + 1, before + 1)
    assert records(tree)[-1].message == "repair: adopt edits by hand"
    for handle in (tree, again(tree, read_only=True)):
        for version in ("v1", "v2"):
            assert dict(handle.find(f"m/{version}").metadata) == {"auc": 0.5, "by hand": True}
        assert b"".join(handle.get("m/v1/notes.txt")) == b"mine"
        assert b"".join(handle.get("m/v2/w")) == b"replaced"
        assert b"".join(handle.get("m/v2/folder/inner.txt")) == b"inner"
    assert_clean(tree)


def test_adopted_children_are_those_that_are_there(tree: Metatree) -> None:
    at(tree, "m/metadata.json").write_bytes(b'{"children": ["v2", "v9"], "owner": "ann"}')
    assert tree.repair(edits="adopt").clean
    assert again(tree, read_only=True).find("m").children == ["v2", "v1"]  # a list makes no node, and drops none
    assert tree.find("m").metadata["owner"] == "ann"
    assert_clean(tree)


def test_a_revert_keeps_the_files_of_another_node_that_were_moved_over_what_it_writes_again(tree: Metatree) -> None:
    """They have the engine's attributes, and are nowhere else."""
    moved = ["metadata.json", "w"]
    good = [at(tree, f"m/v2/{name}").read_bytes() for name in moved]
    others = [at(tree, f"m/v1/{name}").read_bytes() for name in moved]
    for name in moved:
        lose(tree, f"m/v2/{name}")
        storage_of(tree).set_aside(f"m/v1/{name}", f"m/v2/{name}")
    done = tree.repair(edits="revert", paths=["m/v2"])
    assert [at(tree, f"m/v2/{name}").read_bytes() for name in moved] == good
    assert kept(tree) == sorted(others)
    assert sorted(at(tree, name).read_bytes() for name in done.kept) == sorted(others)
    tree.delete("m/v1", recursive=True)
    assert_clean(tree)


def test_edits_by_hand_are_reverted_as_far_as_the_log_holds_what_was_there(tree: Metatree) -> None:
    good = at(tree, "m/v2/metadata.json").read_bytes()
    at(tree, "m/v1/metadata.json").write_bytes(EDIT)
    at(tree, "m/v2/metadata.json").write_bytes(EDIT)
    at(tree, "m/v2/w").write_bytes(b"replaced")
    at(tree, "m/v1/notes.txt").write_bytes(b"mine")
    done = tree.repair(edits="revert")
    assert {step.path: step.action for step in done.steps} == {
        "m/v1/metadata.json": "cannot",
        "m/v2/metadata.json": "revert",
        "m/v2/w": "revert",
        "m/v1/notes.txt": "leave",
    }
    assert at(tree, "m/v2/metadata.json").read_bytes() == good
    assert at(tree, "m/v2/w").read_bytes() == b"second"
    assert at(tree, "m/v1/notes.txt").read_bytes() == b"mine"
    assert kept(tree) == sorted([EDIT, b"replaced"])
    assert set(done.kept) <= {f".wal/quarantine/{name}" for name in at(tree, ".wal/quarantine").files()}
    assert done.remains is not None and not done.clean
    assert {note.path for note in done.remains.notes} == {"m/v1/metadata.json", "m/v1/notes.txt"}
    assert tree.repair(edits="adopt").clean
    assert tree.find("m/v1").list() == ["notes.txt", "w"]
    assert_clean(tree)


def test_what_the_engine_did_not_put_there_is_set_aside_only_by_its_own_name(tree: Metatree) -> None:
    for name in ("notes.txt", "folder/inner.txt"):
        at(tree, "m/v1", name).write_bytes(name.encode())
    paths = ["m/v1/notes.txt", "m/v1/folder/inner.txt"]
    for above in ((), ("",), ("m",), ("m/v1", "m/v1/folder")):
        assert actions(tree, edits="revert", paths=above) == dict.fromkeys(paths, "leave")
    done = tree.repair(edits="revert", paths=paths[:1])
    assert [step.action for step in done.steps] == ["set aside"] and not done.clean
    assert not at(tree, "m/v1/notes.txt").exists()
    assert at(tree, "m/v1/folder/inner.txt").read_bytes() == b"folder/inner.txt"
    assert tree.repair(edits="revert", paths=["", *paths[1:]]).clean
    assert kept(tree) == [b"folder/inner.txt", b"notes.txt"]
    assert_clean(tree)


def test_what_the_log_holds_is_rebuilt_and_edits_are_left_alone_if_nothing_is_said(tree: Metatree) -> None:
    files = {name: data for name, data in at(tree).files().items() if not name.startswith(".wal")}
    lose(tree, "m/v2")
    at(tree, "m/v1/notes.txt").write_bytes(b"mine")
    assert actions(tree) == {"m/v2/metadata.json": "rebuild", "m/v1/notes.txt": "choose"}
    done = tree.repair()
    assert [step.action for step in done.steps] == ["rebuild", "choose"]
    assert not done.clean and at(tree, "m/v1/notes.txt").read_bytes() == b"mine"
    lose(tree, "m/v2/large")
    lose(tree, "m/v2/w")
    assert set(actions(tree).values()) == {"rebuild", "choose"}
    tree.repair(paths=["m/v2/large"])
    assert actions(tree)["m/v2/w"] == "rebuild" and "m/v2/large" not in actions(tree)
    assert tree.repair(edits="revert", paths=["", "m/v1/notes.txt"]).clean
    assert {name: data for name, data in at(tree).files().items() if not name.startswith(".wal")} == files
    assert_clean(tree)


def test_a_file_that_cannot_be_read_is_rebuilt_or_named(tree: Metatree) -> None:
    good = {name: at(tree, f"m/{name}/metadata.json").read_bytes() for name in ("v1", "v2")}
    for name in good:
        at(tree, f"m/{name}/metadata.json").write_bytes(b'{"cut')
    done = tree.repair()
    assert {step.path: step.action for step in done.steps} == {
        "m/v1/metadata.json": "cannot",
        "m/v2/metadata.json": "rebuild",
    }
    assert at(tree, "m/v2/metadata.json").read_bytes() == good["v2"]
    assert kept(tree) == [b'{"cut']
    assert done.remains is not None and [each.kind for each in done.remains.problems] == ["node-unreadable"]
    at(tree, "m/v1/metadata.json").write_bytes(good["v1"])
    assert tree.repair(edits="adopt").clean


def test_a_node_whose_file_cannot_be_read_can_be_given_up(tree: Metatree) -> None:
    at(tree, "m/v1/metadata.json").write_bytes(b'{"cut')
    (step,) = tree.repair().steps
    assert step.action == "cannot" and "give the node up with delete('m/v1', recursive=True)" in step.reason
    tree.delete("m/v1", recursive=True)
    assert tree.children("m") == ["v2"]
    tree.checkpoint()
    assert b'{"cut' in kept(tree)
    assert_clean(tree)


def test_a_plan_changes_nothing_and_needs_only_a_reader(tree: Metatree) -> None:
    at(tree, "m/v1/metadata.json").write_bytes(EDIT)
    at(tree, "m/v1/notes.txt").write_bytes(b"mine")
    before = at(tree).files()
    reader = again(tree, read_only=True)
    assert actions(reader) == {"m/v1/metadata.json": "choose", "m/v1/notes.txt": "choose"}
    assert actions(reader, edits="adopt", paths=["m/v1/notes.txt"]) == {"m/v1/notes.txt": "adopt"}
    for path in ("m/v", "other"):
        with pytest.raises(InvalidLocationError, match=f"nothing to repair at '{path}', but 2 other findings"):
            reader.repair(paths=["m/v1", path], dry_run=True)
    assert at(tree).files() == before
    plan = reader.repair(edits="adopt", dry_run=True).as_dict()
    assert list(plan) == ["clean", "done", "head", "steps", "kept", "failed", "lsn", "remains"]
    assert list(plan["steps"][0]) == ["path", "kind", "reason", "action", "detail", "source"]
    assert json.loads(json.dumps(plan)) == plan
    assert tree.repair(edits="adopt").clean


def test_a_name_that_no_blob_can_have_is_not_adopted(tree: Metatree) -> None:
    name = "trailing."
    at(tree, "m/v1", name).write_bytes(b"mine")
    before = tree.lsn
    assert actions(tree, edits="adopt") == {f"m/v1/{name}": "cannot"}
    assert not tree.repair(edits="adopt").clean and tree.lsn == before
    assert tree.repair(edits="revert", paths=[f"m/v1/{name}"]).clean


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), wal.UnsafePathError("a link")])
def test_a_file_that_is_refused_between_plan_and_adoption_fails_alone(
    error: OSError, tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Staging.add_existing

    def refuse(staging: Staging, file: str, *, share: bool) -> Content:
        if file == "m/v1/a.txt":
            raise error
        return stage(staging, file, share=share)

    at(tree, "m/v1/a.txt").write_bytes(b"mine")
    at(tree, "m/v1/b.txt").write_bytes(b"mine, too")
    with monkeypatch.context() as patched:
        patched.setattr(Staging, "add_existing", refuse)
        done = tree.repair(edits="adopt")
    assert done.failed == {"m/v1/a.txt": str(error)} and not done.clean
    assert done.remains is not None and [each.path for each in done.remains.notes] == ["m/v1/a.txt"]
    assert tree.repair(edits="adopt").clean
    assert_clean(tree)


def test_wrong_words_are_refused(tree: Metatree) -> None:
    with pytest.raises(ValueError, match="'adopt', 'revert' or None"):
        tree.repair(edits="both")
    with tree.transaction(), pytest.raises(TransactionError, match="outside of the transaction"):
        tree.repair()


def test_a_node_that_its_parent_no_longer_lists_is_named_so_and_never_set_aside(tree: Metatree) -> None:
    files = at(tree, "m").files()
    at(tree, "m/metadata.json").write_bytes(b'{"children": [], "owner": "bob"}')
    at(tree, "m/v1/metadata.json").write_bytes(EDIT)  # even if its own file was edited, too
    at(tree, "m/mine/readme").write_bytes(b"neither")
    kinds = {note.path: note.kind for note in tree.check().notes}
    assert (kinds["m/v1"], kinds["m/v2"], kinds["m/mine"]) == ("node-unlisted", "node-unlisted", "folder-extra")
    paths = ["m/v1", "m/v2"]
    assert actions(tree, edits="adopt", paths=paths) == {"m/v1": "adopt", "m/v2": "adopt"}
    plan = tree.repair(dry_run=True, edits="revert", paths=paths)
    assert {step.action for step in plan.steps} <= {"cannot", "revert"}
    tree.repair(edits="revert", paths=["m/v1", "m/v2"])
    assert at(tree, "m/v1/w").exists() and at(tree, "m/v2/w").exists()
    tree.repair(edits="revert", paths=["m/mine"])
    assert not at(tree, "m/mine/readme").exists()
    done = tree.repair(edits="adopt")
    assert done.clean, str(done.remains)
    assert again(tree, read_only=True).find("m").children == ["v1", "v2"]
    assert {name: at(tree, "m").files()[name] for name in ("v1/w", "v2/w")} == {n: files[n] for n in ("v1/w", "v2/w")}
    assert_clean(tree)


def test_a_node_that_is_not_listed_though_its_parent_was_not_changed_is_adopted_by_its_name(tree: Metatree) -> None:
    old = at(tree, "m/metadata.json").read_bytes()
    tree.checkpoint()
    storage = storage_of(tree)
    before = storage.read("m/metadata.json")
    tree.put("m/v3", b"third", name="w")
    tree.checkpoint()
    storage.publish("m/metadata.json", old, before.attribute or b"", durable=True)  # as from a backup
    storage.close()
    reader = again(tree, read_only=True)
    assert [(note.path, note.kind) for note in reader.check().notes] == [("m/v3", "node-unlisted")]
    done = again(tree).repair(edits="adopt", paths=["m/v3"])
    assert done.clean, str(done.remains)
    assert again(tree, read_only=True).find("m").children == ["v1", "v2", "v3"]


def test_a_directory_blob_with_a_metadata_json_of_its_own_is_no_node(tree: Metatree, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/metadata.json").write_bytes(b"{}")
    tree.put("m", tmp_path / "dir", name="dir", recursive=True)
    tree.checkpoint()
    assert_clean(tree)
    at(tree, "m/metadata.json").write_bytes(b'{"children": []}')
    assert "m/dir" not in actions(tree)
    assert tree.repair(edits="adopt").clean
    assert tree.find("m").children == ["v1", "v2"] and tree.list("m") == ["dir"]


def test_a_node_without_any_mark_is_known_by_the_log_and_a_deleted_one_is_none(tree: Metatree) -> None:
    tree.put("m/v3", b"third", name="w")
    tree.delete("m/v3", recursive=True)
    tree.checkpoint()
    for name, data in at(tree, "m").files().items():
        at(tree, "m", name).write_bytes(data)
    at(tree, "m/v3/metadata.json").write_bytes(b"{}")
    at(tree, "m/metadata.json").write_bytes(b"{}")
    found = actions(tree, edits="revert", paths=["m/v1", "m/v3"])
    assert (found["m/v1"], found["m/v3"]) == ("cannot", "set aside")
    tree.repair(edits="adopt")
    assert tree.find("m").children == ["v1", "v2"]
    assert tree.repair(edits="revert", paths=["m/v3"]).clean


def test_a_plan_promises_no_content_that_was_cut_in_the_staging_area_too(tree: Metatree) -> None:
    (staged,) = [name for name in at(tree, ".wal/staged").files() if not name.rpartition("/")[2].startswith("pack")]
    for name in (f".wal/staged/{staged}", "m/v2/large"):
        at(tree, name).write_bytes(LARGE[:1000])
    for choice in ("revert", None):
        plan = tree.repair(dry_run=True, edits=choice)
        assert {step.path for step in plan.steps} == {"m/v2/large"}
        assert not {step.action for step in plan.steps} & {"revert", "rebuild"}
        assert not [step for step in plan.steps if "is restored" in step.detail]
    lose(tree, "m/v2/large")
    assert set(actions(tree).values()) == {"cannot"}
    tree.put("m/v2", LARGE, name="large", force=True)


# --- what others do between the check and the repair ------------------------------------------------------------------


def after_the_check(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Has somebody act once, when the next repair has checked the tree."""
    check, acts = repair.check, [act]

    def checked(engine: Engine, *, deep: bool) -> Report:
        report = check(engine, deep=deep)
        while acts:
            acts.pop()()
        return report

    monkeypatch.setattr(repair, "check", checked)


def before_the_repair(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Has somebody act when the next repair has made its plan."""
    run = repair._Repair.run

    def act_and_run(self: repair._Repair, steps: Sequence[Step]) -> None:
        act()
        run(self, steps)

    monkeypatch.setattr(repair._Repair, "run", act_and_run)


def behind(tree: Metatree) -> Metatree:
    """Another handle, whose commits somebody else must apply: as of a process that was killed."""
    other = again(tree, apply="background")
    other._engine.committer.stop()
    return other


def edit_all(tree: Metatree) -> None:
    at(tree, "m/v1/metadata.json").write_bytes(EDIT)
    at(tree, "m/v2/w").write_bytes(b"replaced")
    for name in ("put", "deleted", "notes.txt"):
        at(tree, "m/v1", name).write_bytes(b"mine")


def test_commits_that_others_made_after_the_check_are_not_undone(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = behind(tree)
    edit_all(tree)

    def commit() -> None:
        other.update("m/v1", counter=7)
        other.put("m/v1", b"committed", name="put", force=True)
        other.delete("m/v1/deleted")
        other.put("m/v2", b"committed, too", name="w", force=True)

    after_the_check(monkeypatch, commit)
    before = tree.lsn
    done = tree.repair(edits="adopt")
    assert done.clean, (done.failed, str(done.remains))
    assert (done.lsn, records(tree)[-1].changes) == (before + 5, {"m/v1": {"put": ["notes.txt"]}})
    assert tree.find("m/v1").metadata["counter"] == 7
    assert tree.list("m/v1") == ["notes.txt", "put", "w"]
    assert b"".join(tree.get("m/v1/put")) == b"committed"
    assert b"".join(tree.get("m/v2/w")) == b"committed, too"
    assert_clean(tree)
    other.close()


def test_steps_that_others_have_made_needless_commit_nothing_and_say_so(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = behind(tree)
    at(tree, "m/v1/metadata.json").write_bytes(EDIT)
    at(tree, "m/v1/put").write_bytes(b"mine")
    at(tree, "m/v1/gone").write_bytes(b"mine")

    def commit() -> None:
        other.update("m/v1", counter=7)
        other.put("m/v1", b"committed", name="put", force=True)
        lose(tree, "m/v1/gone")

    after_the_check(monkeypatch, commit)
    before = tree.lsn
    done = tree.repair(edits="adopt")
    assert done.clean and done.lsn is None and tree.lsn == before + 2
    assert [step.path for step in done.steps] == ["m/v1/metadata.json", "m/v1/gone", "m/v1/put"]
    assert {step.detail for step in done.steps} == {
        "it was gone, or no longer deviated, when it was looked at again: nothing was done"
    }
    other.close()


def test_nodes_that_others_have_deleted_or_made_since_the_plan_stay_as_they_are(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = again(tree)
    at(tree, "m/v2/metadata.json").write_bytes(EDIT)
    at(tree, "m/x").write_bytes(b"mine")

    def commit() -> None:
        other.delete("m/v2", recursive=True)
        lose(tree, "m/x")
        other.put("m/x", b"committed", name="w")

    with monkeypatch.context() as patched:
        before_the_repair(patched, commit)
        done = tree.repair(edits="adopt")
    assert done.lsn is None and done.failed == {"m/x": "m/x is now a node"}
    assert tree.children("m") == ["v1", "x"] and b"".join(tree.get("m/x/w")) == b"committed"
    assert_clean(tree)
    other.close()


def test_a_blob_that_is_given_up_is_not_if_somebody_has_put_or_deleted_it_again(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.put("m/v1", b"second", name="x")
    tree.checkpoint()
    other = behind(tree)
    for name in ("w", "x"):
        lose(tree, f"m/v1/{name}")

    def commit() -> None:
        other.put("m/v1", b"again", name="w", force=True)
        other.put("m/v1", b"again", name="x", force=True)
        other.delete("m/v1/x")

    before_the_repair(monkeypatch, commit)
    before = tree.lsn
    done = tree.repair(edits="adopt", paths=["m/v1"])
    assert [step.action for step in done.steps] == ["adopt", "adopt"]
    assert done.clean and done.lsn is None and tree.lsn == before + 3
    assert b"".join(tree.get("m/v1/w")) == b"again" and tree.list("m/v1") == ["w"]
    other.close()


def test_a_changed_blob_that_somebody_has_put_again_is_not_adopted(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(tree)
    mark = storage.attribute("m/v1/w")
    assert mark is not None
    for name in ("w", "x"):
        tree.put("m/v1", b"weights", name=name, force=True)
        storage.publish(f"m/v1/{name}", b"changed", mark, durable=True)
    tree.checkpoint()
    after_the_check(monkeypatch, lambda: again(tree).put("m/v1", b"newer", name="w", force=True))
    done = tree.repair(edits="adopt", paths=["m"], deep=True)
    assert {step.path: step.action for step in done.steps} == {"m/v1/w": "adopt", "m/v1/x": "adopt"}
    assert done.clean and records(tree)[-1].changes == {"m/v1": {"put": ["x"]}}
    assert b"".join(tree.get("m/v1/w")) == b"newer"
    assert b"".join(tree.get("m/v1/x")) == b"changed"


def test_what_lies_where_commits_cannot_be_applied_is_not_adopted(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = behind(tree)
    edit_all(tree)
    at(tree, "m/metadata.json").write_bytes(b'{"children": ["v1", "v2"], "owner": "ann"}')

    def commit() -> None:
        other.put("m/v2", LARGE[::-1], name="large", force=True)
        (txid,) = {name.partition("/")[0] for name in at(tree, ".wal/staged").files()} - staged
        lose(tree, f".wal/staged/{txid}")

    staged = {name.partition("/")[0] for name in at(tree, ".wal/staged").files()}
    after_the_check(monkeypatch, commit)
    with pytest.warns(ApplyPendingWarning):
        done = tree.repair(edits="adopt")
    assert set(done.failed) == {"m/v2/w", "m/metadata.json"}
    assert all("the files of m/v2 do not show every commit yet: " in why for why in done.failed.values())
    assert dict(tree.find("m/v1").metadata) == {"auc": 0.5, "by hand": True}
    assert done.remains is not None and done.remains.problems[0].kind == "not-applied"
    tree.put("m/v2", LARGE, name="large", force=True)
    assert tree.repair(edits="adopt").clean
    assert b"".join(tree.get("m/v2/w")) == b"replaced" and tree.find("m").metadata["owner"] == "ann"
    other.close()


def test_a_node_or_blob_that_takes_the_place_of_what_is_set_aside_stays(
    tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(tree, "m/mine/readme").write_bytes(b"neither")
    at(tree, "m/v1/x").write_bytes(b"mine")
    paths = [step.path for step in tree.repair(dry_run=True, edits="revert").steps]
    other = again(tree)

    def commit() -> None:
        other.put("m/mine", b"committed", name="w")
        other.put("m/v1", b"committed", name="x", force=True)
        other.checkpoint()

    before_the_repair(monkeypatch, commit)
    tree.repair(edits="revert", paths=paths)
    assert not [name for name in at(tree, ".wal/quarantine").files() if name.startswith("repaired/")]
    assert b"".join(tree.get("m/mine/w")) == b"".join(tree.get("m/v1/x")) == b"committed"
    other.close()


# --- one step fails ---------------------------------------------------------------------------------------------------


def test_a_file_in_whose_place_another_was_rebuilt_is_kept_and_the_others_are_adopted(
    tree: Metatree, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_bytes(b"committed")
    tree.put("m/v2", tmp_path, name="dir", recursive=True)
    tree.flush()
    lose(tree, "m/v2/dir/sub")
    at(tree, "m/v2/dir/sub").write_bytes(b"by hand")
    at(tree, "m/v2/notes.txt").write_bytes(b"mine")
    done = tree.repair(edits="adopt")
    assert b"".join(tree.get("m/v2/dir/sub/a")) == b"committed"
    assert b"".join(tree.get("m/v2/notes.txt")) == b"mine"
    assert b"by hand" in at(tree).files().values()
    assert not done.failed


@pytest.mark.local("a bucket has no folders")
def test_a_folder_in_the_place_of_a_file_fails_alone(tree: Metatree, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace() -> None:
        lose(tree, "m/v1/x")
        at(tree, "m/v1/x/y").write_bytes(b"mine")

    for name in ("x", "z"):
        at(tree, "m/v1", name).write_bytes(b"mine")
    with monkeypatch.context() as patched:
        before_the_repair(patched, replace)
        done = tree.repair(edits="adopt", paths=["m/v1/x", "m/v1/z"])
    assert done.failed == {"m/v1/x": "m/v1/x is a folder now, no longer the file that was found"}
    assert records(tree)[-1].changes == {"m/v1": {"put": ["x/y"]}}
    assert done.remains is not None and done.remains.clean


def copied(tree: Metatree, folder: Path) -> None:
    """m/v8, a copy of the directory blob m/dir with its marks, as `cp -a` makes it."""
    (folder / "metadata.json").write_bytes(b"{}")
    tree.put("m", folder, name="dir", recursive=True)
    tree.checkpoint()
    storage = storage_of(tree)
    stored = storage.read("m/dir/metadata.json")
    storage.make_folder("m/v8", storage.attribute("m/dir"))
    storage.publish("m/v8/metadata.json", stored.data, stored.attribute or b"", durable=True)
    storage.close()


def test_an_unlisted_folder_with_the_mark_of_a_directory_blob_is_adopted_once(tree: Metatree, tmp_path: Path) -> None:
    copied(tree, tmp_path)
    assert actions(tree, edits="adopt") == {"m/v8": "adopt"}
    done = tree.repair(edits="adopt")
    assert done.clean, str(done.remains)
    assert tree.children("m") == ["v1", "v2", "v8"] and tree.list("m") == ["dir"]
    assert_clean(tree)


def test_an_unlisted_node_that_cannot_be_listed_is_refused_without_a_commit(
    tree: Metatree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(tree, tmp_path)
    before = tree.lsn
    with monkeypatch.context() as patched:
        before_the_repair(patched, lambda: at(tree, "m/V8").write_bytes(b"differs in case only"))
        done = tree.repair(edits="adopt", paths=["m/v8"])
    assert list(done.failed) == ["m/v8"] and "another name differs from it only in case" in done.failed["m/v8"]
    assert done.lsn is None and tree.lsn == before
    lose(tree, "m/V8")
    with monkeypatch.context() as patched:
        before_the_repair(patched, lambda: lose(tree, "m/v8"))
        done = tree.repair(edits="adopt")
    assert done.clean and done.lsn is None and tree.lsn == before


def test_what_is_set_aside_never_stands_in_the_way_of_what_is_set_aside_later(tree: Metatree) -> None:
    at(tree, "m/v1/x").write_bytes(b"first")
    assert tree.repair(edits="revert", paths=["m/v1/x"]).clean
    at(tree, "m/v1/x/y").write_bytes(b"second")
    at(tree, "m/v1/z").write_bytes(b"third")
    done = tree.repair(edits="revert", paths=["m/v1/x", "m/v1/x/y", "m/v1/z"])
    assert done.clean, (done.failed, str(done.remains))
    assert kept(tree) == [b"first", b"second", b"third"]


@pytest.mark.local("storage calls of this machine's files are replaced")
def test_what_cannot_be_set_aside_does_not_keep_others_from_it(tree: Metatree, monkeypatch: pytest.MonkeyPatch) -> None:
    set_aside = wal.LocalStorage.set_aside

    def refuse(storage: wal.LocalStorage, name: str, aside: str) -> str | None:
        if name == "m/v1/a":
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return set_aside(storage, name, aside)

    for name in ("a", "b"):
        at(tree, "m/v1", name).write_bytes(b"mine")
    with monkeypatch.context() as patched:
        patched.setattr(wal.LocalStorage, "set_aside", refuse)
        done = tree.repair(edits="revert", paths=["m/v1/a", "m/v1/b"])
    assert done.failed == {"m/v1/a": "[Errno 13] Permission denied: 'm/v1/a'"}
    assert kept(tree) == [b"mine"] and at(tree, "m/v1/a").exists() and not at(tree, "m/v1/b").exists()
    assert tree.repair(edits="revert", paths=["m/v1/a"]).clean


@pytest.mark.local("links and special files")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/null", path)], ids=["fifo", "link"])
def test_a_special_file_in_the_place_of_a_node_has_to_be_moved_away_first(
    make: Callable[[str], None], tree: Metatree, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = f"{tree.root}/m/v2/metadata.json"
    os.unlink(file)
    plan = tree.repair(dry_run=True)
    assert [(step.path, step.action) for step in plan.steps] == [("m/v2/metadata.json", "rebuild")]
    run = repair._Repair.run

    def appears(self: repair._Repair, steps: Sequence[Step]) -> None:
        make(file)
        run(self, steps)

    with monkeypatch.context() as patched:
        patched.setattr(repair._Repair, "run", appears)
        done = tree.repair()
    assert done.failed == {
        "m/v2/metadata.json": f"{file} is a symbolic link or special file, or lies below one: move it away, then run "
        "the repair again"
    }
    (step,) = tree.repair().steps
    assert (step.path, step.action) == ("m/v2/metadata.json", "cannot")
    assert step.detail == "the log holds it, but a link or special file is in its place: move that away first"
    os.unlink(file)
    assert tree.repair().clean
