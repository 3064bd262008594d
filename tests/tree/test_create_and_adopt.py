"""How a tree begins: created in a free folder, or taken over from metatreedb 0.2.3. E12, E13, E19, E20 and E21."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree import (
    CorruptionError,
    InvalidLocationError,
    Metatree,
    MetatreeError,
    NodeNotFoundError,
    ReadOnlyError,
    UnsupportedStorageError,
)
from metatree.facts import decode_header
from tests.tree.conftest import assert_clean
from wal.testing import Mounted

LEVELS = ("model", "version")
OLD = Path(__file__).parent / "data" / "metatreedb-0.2.3"


def names(root: Path) -> set[str]:
    return {p.name for p in root.iterdir()}


def all_bytes(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- creating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["absent", "absent with parents", "empty", "pathlib", "relative", "file url"])
def test_a_tree_is_created_where_nothing_is(where: str, fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fast_path / ("a/b/c" if where == "absent with parents" else "tree")
    if where == "empty":
        root.mkdir()
    monkeypatch.chdir(fast_path)
    given: dict[str, Any] = {"pathlib": root, "relative": "tree", "file url": root.as_uri()}
    with Metatree(given.get(where, str(root)), LEVELS) as tree:
        assert tree.root == str(root)
        assert (tree.keys, tree.lsn, tree.children(), tree.list()) == (LEVELS, 0, [], [])
    assert names(root) == {".metatree", ".lock", ".wal", "metadata.json"}
    assert json.loads((root / "metadata.json").read_text()) == {}
    assert_clean(root)


def test_the_config_says_what_0_2_3_said_and_what_stops_it(fast_path: Path) -> None:
    with Metatree(fast_path / "tree", LEVELS):
        pass
    config = json.loads((fast_path / "tree/.metatree").read_text())
    assert config["keys"] == list(LEVELS)
    assert config["locking_enabled"] is True and config["skip_init"] is True
    assert (config["format"], config["log"], config["min_reader"], config["min_writer"]) == (1, "append", 1, 1)
    assert set(config) == {
        "keys", "locking_enabled", "skip_init", "format", "id", "log", "min_reader", "min_writer",
    }  # fmt: skip


def test_keys_may_be_a_list_and_are_needed_to_create(fast_path: Path) -> None:
    with pytest.raises(MetatreeError, match="keys="):
        Metatree(fast_path / "tree")
    with Metatree(fast_path / "tree", list(LEVELS)) as tree:
        assert tree.keys == LEVELS


@pytest.mark.parametrize("what", ["a file", "a folder", "a hidden file", "metadata.json", "a link", "a tree's folder"])
def test_a_folder_that_holds_anything_else_is_refused_and_left_alone(what: str, fast_path: Path) -> None:
    root = fast_path / "full"
    root.mkdir()
    make: dict[str, Callable[[], object]] = {
        "a file": lambda: (root / "thesis.txt").write_bytes(b"important"),
        "a folder": lambda: (root / "data").mkdir(),
        "a hidden file": lambda: (root / ".gitignore").write_bytes(b""),
        "metadata.json": lambda: (root / "metadata.json").write_bytes(b'{"a": 1}'),
        "a link": lambda: (root / "link").symlink_to("/etc"),
        "a tree's folder": lambda: (root / ".wal").mkdir() or (root / "thesis.txt").write_bytes(b"important"),
    }
    make[what]()
    before = names(root), all_bytes(root)
    for keys in (LEVELS, None):
        with pytest.raises(MetatreeError, match="neither a tree nor empty"):
            Metatree(root, keys)
    with pytest.raises(MetatreeError):
        Metatree(root, read_only=True)
    assert (names(root), all_bytes(root)) == before


def test_a_root_that_is_a_file_is_refused(fast_path: Path) -> None:
    (fast_path / "file").write_bytes(b"important")
    (fast_path / "link").symlink_to(fast_path / "nowhere")
    for name in ("file", "link"):
        for read_only in (False, True):
            with pytest.raises(MetatreeError):
                Metatree(fast_path / name, LEVELS, read_only=read_only)
    with pytest.raises(MetatreeError):
        Metatree(fast_path / "file/below", LEVELS)
    assert (fast_path / "file").read_bytes() == b"important"
    assert names(fast_path) == {"file", "link"}


def test_a_reader_creates_nothing(fast_path: Path) -> None:
    with pytest.raises(MetatreeError):
        Metatree(fast_path / "absent", LEVELS, read_only=True)
    (fast_path / "empty").mkdir()
    with pytest.raises(MetatreeError, match="no tree"):
        Metatree(fast_path / "empty", LEVELS, read_only=True)
    assert names(fast_path) == {"empty"} and not names(fast_path / "empty")


def test_other_keys_are_an_error_that_names_both(fast_path: Path) -> None:
    with Metatree(fast_path / "tree", LEVELS):
        pass
    for keys in (("model",), ("version", "model"), ("Model", "version"), ("model", "version", "run")):
        with pytest.raises(MetatreeError, match=r"model, version") as caught:
            Metatree(fast_path / "tree", keys)
        assert ", ".join(keys) in str(caught.value)
    for keys in (LEVELS, list(LEVELS), None):
        with Metatree(fast_path / "tree", keys) as tree:  # type: ignore[arg-type]
            assert tree.keys == LEVELS
    assert_clean(fast_path / "tree")


@pytest.mark.parametrize("missing", [".metatree", ".lock", "metadata.json"])
def test_a_creation_that_was_cut_short_counts_as_an_empty_folder(missing: str, fast_path: Path) -> None:
    """The config is born last (E20): until then there is no tree, and creating again goes on from what is there."""
    root = fast_path / "tree"
    with Metatree(root, LEVELS):
        pass
    order = [".metatree", ".lock", "metadata.json"]
    for name in order[: order.index(missing) + 1]:
        (root / name).unlink()
    with pytest.raises(MetatreeError, match="keys="):
        Metatree(root)
    with Metatree(root, ("other", "levels")) as tree:
        assert tree.keys == ("other", "levels")
        tree.put("a/b", b"x", name="y")
    assert_clean(root)


def test_two_that_create_at_once_make_one_tree(fast_path: Path) -> None:
    code = (
        "import sys; from metatree import Metatree\n"
        "t = Metatree(sys.argv[1], ('model',)); t.put('m' + sys.argv[2], b'x', name='b'); t.close()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(fast_path / "tree"), str(number)]) for number in range(4)
    ]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    with Metatree(fast_path / "tree") as tree:
        assert sorted(tree.children()) == ["m0", "m1", "m2", "m3"] and tree.lsn == 4
    assert_clean(fast_path / "tree")


def test_of_two_that_create_different_trees_at_once_one_is_told(fast_path: Path) -> None:
    results: list[Any] = []
    barrier = threading.Barrier(2)

    def create(keys: tuple[str, ...]) -> None:
        barrier.wait()
        try:
            with Metatree(fast_path / "tree", keys) as tree:
                results.append(tree.keys)
        except MetatreeError as error:
            results.append(str(error))

    threads = [threading.Thread(target=create, args=(keys,)) for keys in (("a",), ("b",))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [result for result in results if isinstance(result, str)]
    assert len(texts) == 1 and "(a)" in texts[0] and "(b)" in texts[0]
    assert_clean(fast_path / "tree")


# --- adopting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(fast_path: Path) -> Path:
    """A copy of a tree that the real 0.2.3 wrote."""
    return Path(shutil.copytree(OLD / "tree", fast_path / "tree"))


@pytest.mark.parametrize("keys", [None, LEVELS])
def test_a_tree_of_0_2_3_is_adopted_with_its_data_unchanged(keys: Any, old: Path) -> None:
    before = all_bytes(old)
    with Metatree(old, keys) as tree:
        assert tree.keys == LEVELS
        assert tree.children() == json.loads(before["metadata.json"])["children"]
        for model in ("fraud", "churn"):
            stored = json.loads(before[f"{model}/metadata.json"])
            assert tree.children(model) == stored["children"]  # whatever order that version's set() left
            assert dict(tree.find(model).metadata) == {"active": "v2", "owner": "ann"}
            for version in ("v1", "v2", "v3"):
                assert dict(tree.find(f"{model}/{version}").metadata) == {"auc": "0.93", "file": "weights.bin"}
                assert b"".join(tree.get(f"{model}/{version}/<file>")) == f"{model} {version}".encode() * 3
        assert tree.list("fraud/v2") == ["bundle", "weights.bin"]
        assert b"".join(tree.get("fraud/v2/bundle/inner.txt")) == b"inner"
        assert tree.check(deep=True).ok
    after = all_bytes(old)
    assert {name: after[name] for name in before if name != ".metatree"} == {
        name: data for name, data in before.items() if name != ".metatree"
    }
    assert {name for name in after if not name.startswith(".wal/")} == {*before, ".lock"}
    config = json.loads(after[".metatree"])
    assert config["keys"] == list(LEVELS) and config["skip_init"] is True
    assert_clean(old)


@pytest.mark.parametrize("content", [None, b""])
def test_adoption_without_the_roots_list_of_nodes_is_refused_and_changes_nothing(
    content: bytes | None, old: Path
) -> None:
    good = (old / "metadata.json").read_bytes()
    if content is None:
        (old / "metadata.json").unlink()
    else:
        (old / "metadata.json").write_bytes(content)
    before = all_bytes(old)
    with pytest.raises(CorruptionError, match=r'metadata\.json is missing or empty.*"churn", "fraud"'):
        Metatree(old)
    assert all_bytes(old) == before
    (old / "metadata.json").write_bytes(good)
    with Metatree(old) as tree:
        assert sorted(tree.children()) == ["churn", "fraud"]


def test_adoption_of_a_tree_with_a_link_in_place_of_a_node_is_refused_and_follows_no_link(
    old: Path, tmp_path: Path
) -> None:
    shutil.move(old / "fraud", tmp_path / "fraud")
    (old / "fraud").symlink_to(tmp_path / "fraud")
    with pytest.raises(CorruptionError, match=r"symbolic link.*/fraud"):
        Metatree(old)
    assert not (old / ".wal").exists()


def test_an_adopted_tree_is_changed_like_any_other(old: Path) -> None:
    with Metatree(old) as tree:
        order = tree.children("fraud")
        tree.update("fraud/v1", auc=0.94)
        tree.put("fraud/v4", b"new", name="weights.bin")
        tree.put("fraud/v1", b"again", name="weights.bin", force=True)
        tree.delete("churn/v2", recursive=True)
        tree.move("churn/v1", "churn/v9")
        assert tree.children("fraud") == [*order, "v4"]
        tree.checkpoint()
        assert dict(tree.find("fraud/v1").metadata) == {"auc": 0.94, "file": "weights.bin"}
        assert b"".join(tree.get("churn/v9/weights.bin")) == b"churn v1" * 3
        assert tree.check(deep=True).ok
    assert_clean(old)


def test_an_empty_tree_of_0_2_3_with_an_empty_root_metadata_json_is_adopted(fast_path: Path) -> None:
    root = Path(shutil.copytree(OLD / "empty", fast_path / "tree"))
    assert (root / "metadata.json").read_bytes() == b""
    with Metatree(root, LEVELS) as tree:
        assert tree.children() == [] and dict(tree.find("").metadata) == {}
        tree.put("m/v1", b"x", name="b")
    assert json.loads((root / "metadata.json").read_text()) == {"children": ["m"]}
    assert_clean(root)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("metadata.json", b'{"children": ["exp:1", "fraud"]}', "metadata.json: 'exp:1' cannot be a segment"),
        ("metadata.json", b'{"children": ["m.tmp"]}', "reserved for temporary files"),
        ("metadata.json", b'{"children": ["fraud", "fraud"]}', "not a list of different names"),
        ("metadata.json", b"{", "metadata.json: "),
        ("fraud/metadata.json", b'{"auc": NaN}', "fraud/metadata.json: NaN is not JSON"),
        ("fraud/v1/metadata.json", b'{"n": 18446744073709551616}', "fraud/v1/metadata.json: .*64 bits"),
        ("fraud/v1/metadata.json", None, "fraud/v1/metadata.json is a folder"),
        ("metadata.json", None, "metadata.json is a folder"),
    ],
)
def test_adoption_of_nodes_that_could_not_be_read_is_refused_and_changes_nothing(
    file: str, content: bytes | None, reason: str, old: Path
) -> None:
    good = (old / file).read_bytes()
    (old / file).unlink()
    if content is None:
        (old / file).mkdir()
    else:
        (old / file).write_bytes(content)
    before = names(old), all_bytes(old)
    with pytest.raises(CorruptionError, match=rf"cannot be undone; nothing was changed.*(?s:.*){reason}") as caught:
        Metatree(old)
    assert "\n" not in str(caught.value) and ";" not in str(caught.value).partition("open the tree again")[2]
    assert (names(old), all_bytes(old)) == before
    if content is None:
        (old / file).rmdir()
    (old / file).write_bytes(good)
    with Metatree(old) as tree:
        assert tree.check(deep=True).ok


def test_of_many_files_that_could_not_be_read_a_handful_is_named(old: Path) -> None:
    for file in old.glob("*/v*/metadata.json"):
        file.write_bytes(b"{")
    (old / "churn/metadata.json").write_bytes(b'{"children": ["v1", "v2", "v3"], "k": NaN}')
    (old / "fraud/metadata.json").write_bytes(b'{"children": ["v1", "v2", "v3", "v4", "v5", "v6", "v7"]}')
    for name in ("v4", "v5", "v6", "v7"):
        shutil.copytree(old / "fraud/v1", old / "fraud" / name)
    with pytest.raises(CorruptionError, match=r": churn/metadata\.json: .*(; fraud/v[1-4]/.*){4}; and 3 more$"):
        Metatree(old)


def test_an_empty_metadata_json_below_the_root_is_damage_even_in_a_tree_of_0_2_3(old: Path) -> None:
    (old / "fraud/metadata.json").write_bytes(b"")
    with Metatree(old) as tree:
        with pytest.raises(CorruptionError, match=r"fraud/metadata\.json"):
            tree.children("fraud")
        assert not tree.check().ok


def test_a_listed_node_that_is_missing_is_adopted_and_reported(old: Path) -> None:
    shutil.rmtree(old / "fraud/v1")
    with Metatree(old) as tree:
        assert [problem.kind for problem in tree.check().problems] == ["node-missing"]


def test_adoption_is_refused_while_a_client_of_0_2_3_writes_or_died(old: Path) -> None:
    (old / ".lock").write_bytes(b"")  # what that version's touch() makes
    good = (old / "fraud/metadata.json").read_bytes()
    (old / "fraud/metadata.json").write_bytes(b"{")  # what it is writing may not be whole
    before = all_bytes(old)
    for keys in (None, LEVELS):
        with pytest.raises(MetatreeError, match=r"0\.2\.3.*remove the file"):
            Metatree(old, keys)
    assert all_bytes(old) == before
    (old / "fraud/metadata.json").write_bytes(good)
    (old / ".lock").unlink()
    with Metatree(old) as tree:
        assert tree.children("fraud")
    assert_clean(old)


def test_adoption_with_other_keys_is_refused_and_changes_nothing(old: Path) -> None:
    before = all_bytes(old)
    with pytest.raises(MetatreeError, match="model, version"):
        Metatree(old, ("a", "b"))
    assert all_bytes(old) == before


def test_a_reader_does_not_adopt(old: Path) -> None:
    before = all_bytes(old)
    with pytest.raises(ReadOnlyError, match=r"0\.2\.3"):
        Metatree(old, read_only=True)
    assert all_bytes(old) == before


@pytest.mark.parametrize("left", [{".lock"}, {".lock", ".wal"}])
def test_an_adoption_that_was_cut_short_goes_on(left: set[str], old: Path, fast_path: Path) -> None:
    done = Path(shutil.copytree(old, fast_path / "done"))
    with Metatree(done):
        pass
    for name in left:
        source = done / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, old / name)
    with Metatree(old) as tree:
        assert sorted(tree.children("fraud")) == ["v1", "v2", "v3"]
    assert_clean(old)


def test_two_that_adopt_at_once_share_the_tree(old: Path) -> None:
    code = (
        "import sys; from metatree import Metatree\n"
        "t = Metatree(sys.argv[1]); t.update('fraud', {'k' + sys.argv[2]: 1}); t.close()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(old), str(number)]) for number in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    with Metatree(old) as tree:
        assert {f"k{n}" for n in range(4)} <= set(tree.find("fraud").metadata)
    assert_clean(old)


# --- E13: a client of 0.2.3 beside us ---------------------------------------------------------------------------------


class Client023:
    """The rules of metatreedb 0.2.3 that matter here, as its sources have them, without its three-second sleeps."""

    def __init__(
        self,
        root: str,
        keys: Any = None,
        location: Any = None,
        locking_enabled: bool = True,
        **kwargs: Any,
    ) -> None:
        self._root, self._keys, self._location, self._kwargs = root, keys, location or {}, kwargs
        if not kwargs.get("skip_init", False):
            self._keys = self.config["keys"]  # .metatree exists: it wins over the argument

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(Path(self._root, ".metatree").read_text())
        return config

    def find(self, location: str) -> Client023:
        wanted = dict(zip(self._keys, location.split("/"), strict=False))
        found = self
        for key in self._keys:
            if key in wanted:
                kwargs = dict(
                    self._kwargs,
                    location={key: wanted[key], **found._location},
                    skip_init=True,
                    io_handler=None,
                    **self.config,  # every key of .metatree: one named skip_init comes twice
                )
                found = Client023(self._root, **kwargs)
        return found

    @property
    def location(self) -> str:
        return "/".join([self._root, *(self._location[k] for k in self.config["keys"] if k in self._location)])

    def write(self, metadata: dict[str, Any]) -> None:
        """What its update ends in: with_lock(json.dump)."""
        if self.config.get("locking_enabled"):
            for _ in range(6):
                if not os.path.exists(f"{self._root}/.lock"):
                    break
            else:
                raise RuntimeError("max attempts reached.")
            Path(self._root, ".lock").touch()
        try:
            Path(self.location, "metadata.json").write_text(json.dumps(metadata))
        finally:
            if self.config.get("locking_enabled"):
                os.unlink(f"{self._root}/.lock")


def test_before_adoption_the_stand_in_for_0_2_3_works(old: Path) -> None:
    client = Client023(str(old)).find("fraud/v1")
    client.write({"auc": "0.5"})
    assert json.loads((old / "fraud/v1/metadata.json").read_text()) == {"auc": "0.5"}
    assert not (old / ".lock").exists()


def test_after_adoption_a_client_of_0_2_3_can_neither_find_nor_write(old: Path) -> None:
    open_before = Client023(str(old)).find("fraud/v1")
    with Metatree(old) as tree:
        before = all_bytes(old / "fraud")
        with pytest.raises(TypeError, match="skip_init"):
            Client023(str(old)).find("fraud/v1")
        with pytest.raises(RuntimeError, match="max attempts"):
            Client023(str(old)).write({"a": "1"})  # the root needs no find
        with pytest.raises(RuntimeError, match="max attempts"):
            open_before.write({"a": "1"})  # it had its node before the adoption
        assert all_bytes(old / "fraud") == before
        assert tree.check(deep=True).ok
    with pytest.raises(RuntimeError, match="max attempts"):
        Client023(str(old)).write({"a": "1"})  # the tripwire stays when nobody has the tree open
    assert_clean(old)


def test_the_tripwire_is_restored_at_each_open_and_is_not_our_lock(old: Path) -> None:
    with Metatree(old) as tree:
        text = (old / ".lock").read_bytes()
        assert b"0.2.3" in text
        (old / ".lock").unlink()
        tree.update("fraud", a=1)
        with Metatree(old) as second:
            assert (old / ".lock").read_bytes() == text
            second.update("fraud", b=2)
    assert_clean(old)


# --- E19: what the filesystem is --------------------------------------------------------------------------------------


UNSAFE = ["nfs", "nfs4", "lustre", "fuse.sshfs", "fuse", "9p", "virtiofs", "cifs", "ceph", "gpfs", "vboxsf", "newfs"]


def log_of(root: Path) -> str:
    return str(json.loads((root / ".metatree").read_bytes())["log"])


@pytest.mark.parametrize("kind", UNSAFE)
def test_a_filesystem_that_is_not_known_to_be_this_machines_alone_gets_a_log_that_hosts_can_share(
    kind: str, fast_path: Path
) -> None:
    root = fast_path / "new"
    root.mkdir()
    with Metatree(wal.LocalStorage(str(root), posix=Mounted(kind)), LEVELS) as tree:
        tree.put("m/v1", b"x", name="b")
        assert tree.check(deep=True).ok
    assert log_of(root) == "slots"
    with Metatree(wal.LocalStorage(str(root), posix=Mounted(kind))) as tree:
        assert b"".join(tree.get("m/v1/b")) == b"x"


@pytest.mark.parametrize("kind", UNSAFE)
def test_a_tree_whose_log_is_one_machines_is_only_read_on_a_filesystem_that_may_be_shared(
    kind: str, fast_path: Path
) -> None:
    root = fast_path / "tree"
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v1", b"x", name="b")
    assert log_of(root) == "append"
    before = all_bytes(root)
    with pytest.raises(UnsupportedStorageError, match=kind):  # made on ext4, then carried there
        Metatree(wal.LocalStorage(str(root), posix=Mounted(kind)))
    assert all_bytes(root) == before
    with Metatree(wal.LocalStorage(str(root), posix=Mounted(kind)), read_only=True) as reader:
        assert b"".join(reader.get("m/v1/b")) == b"x"
        assert reader.check(deep=True).ok
    assert all_bytes(root) == before


def test_an_old_tree_on_such_a_filesystem_is_adopted_with_a_log_that_hosts_can_share(old: Path) -> None:
    with Metatree(wal.LocalStorage(str(old), posix=Mounted("nfs4"))) as tree:
        assert tree.children()
        assert tree.check(deep=True).ok
    assert log_of(old) == "slots"


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"])
def test_the_filesystems_of_the_allow_list_are_taken(kind: str, fast_path: Path) -> None:
    (fast_path / "tree").mkdir()
    with Metatree(wal.LocalStorage(str(fast_path / "tree"), posix=Mounted(kind)), LEVELS) as tree:
        tree.put("m", b"x", name="b")
    assert_clean(fast_path / "tree")


def test_a_mount_table_that_cannot_be_read_counts_as_unknown(fast_path: Path) -> None:
    class Blind(wal.Posix):
        def kernel_file(self, path: str) -> bytes:
            raise FileNotFoundError(path)

    (fast_path / "tree").mkdir()
    with Metatree(wal.LocalStorage(str(fast_path / "tree"), posix=Blind()), LEVELS) as tree:
        tree.update((), made=True)
    assert log_of(fast_path / "tree") == "slots"


# --- E21: what each published file carries ----------------------------------------------------------------------------


def test_every_published_file_carries_its_lsn_and_digest(fast_path: Path) -> None:
    import hashlib

    root = fast_path / "tree"
    (fast_path / "d/e").mkdir(parents=True)
    (fast_path / "d/e/f").write_bytes(b"f")
    with Metatree(root, LEVELS) as tree:
        tree.put("m/v1", b"small", name="s")
        tree.put("m/v1", bytes(range(256)) * 1000, name="large")
        with tree.transaction():
            for number in range(10):
                tree.put("m/v2", os.urandom(40_000), name=f"packed{number}")
            tree.update("m", active="v2")
        tree.put("m/v1", fast_path / "d", recursive=True)
        tree.move("m/v1/large", "m/v3/moved")
        tree.copy("m/v3", "m/v4")
        tree.update("", owner="ann")
        head = tree.lsn
    files = [
        p for p in root.rglob("*") if p.is_file() and p.relative_to(root).parts[0] not in (".wal", ".lock", ".metatree")
    ]
    assert len(files) == 1 + 1 + 4 + 1 + 10 + 1 + 1 + 1
    for file in files:
        attribute = json.loads(os.getxattr(file, "user.metatree"))
        assert attribute["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest(), file
        assert 0 <= attribute["lsn"] <= head and set(attribute) == {"lsn", "sha256"}
    assert os.getxattr(root / "m/v1/d", "user.metatree")


# --- E12: what stays of trimmed records -------------------------------------------------------------------------------


def test_after_trimming_the_headers_stay_for_history_status_and_keys(fast_path: Path) -> None:
    root = fast_path / "tree"
    ids: list[str] = []
    with Metatree(root, LEVELS) as tree:
        for number in range(5):
            with tree.transaction(f"commit {number}", idempotency_key=f"key {number}") as txn:
                tree.put(f"m/v{number}", b"x" * 100, name="b")
            ids.append(txn.txid)
        tree.checkpoint()
    for _ in range(2):
        log = wal.open_log(wal.LocalStorage(str(root)), ".wal", read_only=True)
        records = [(batch.lsn, record) for batch in log.read(0) for record in batch.records]
        assert log.trimmed() == 5
        log.close()
        assert [lsn for lsn, _ in records] == [1, 2, 3, 4, 5]
        assert all(record.body is None for _, record in records)
        headers = [decode_header(record.header) for _, record in records]
        assert [h.message for h in headers] == [f"commit {n}" for n in range(5)]
        assert [h.key for h in headers] == [f"key {n}" for n in range(5)]
        assert [h.txid for h in headers] == ids
        assert all(h.who for h in headers)
        with Metatree(root) as tree:
            assert tree.lsn == 5
            for number, txid in enumerate(ids):
                assert tree.status(txid) == number + 1
                with tree.transaction(idempotency_key=f"key {number}") as txn:
                    tree.put("again", b"twice", name="b")
                assert txn.replayed and txn.lsn == number + 1
            assert tree.lsn == 5 and not tree.exists("again")
            with pytest.raises(NodeNotFoundError):
                tree.find("again")
    assert_clean(root)


def test_a_transaction_older_than_the_trimmed_log_is_still_validated(fast_path: Path) -> None:
    from metatree import ConflictError

    with Metatree(fast_path / "tree", LEVELS) as tree, Metatree(fast_path / "tree") as other:
        tree.put("m", b"x", name="b")
        with pytest.raises(ConflictError), tree.transaction():
            seen = tree.find("m").metadata.get("n", 0)
            other.update("m", n=1)
            other.checkpoint()
            tree.update("m", n=seen + 10)
        with tree.transaction():
            tree.update("m", free=1)
            other.update("m", n=2)
            other.checkpoint()
        assert dict(tree.find("m").metadata) == {"n": 2, "free": 1}
    assert_clean(fast_path / "tree")


@pytest.mark.parametrize("bad", ["a/b", "", ".."])
def test_bad_levels_are_refused_before_a_folder_is_made(bad: str, fast_path: Path) -> None:
    with pytest.raises(InvalidLocationError):
        Metatree(fast_path / "tree", (bad,))
    assert not (fast_path / "tree").exists()
