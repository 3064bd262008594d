"""What docs/storage_contract.md says of filesystems that are not local disks, and of hand edits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import wal
from metatree import CorruptionError, Metatree, UnsupportedStorageError

LEVELS = ("model", "version")


class Elsewhere(wal.Posix):
    """The same disk, as if a mount of another type held it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def kernel_file(self, path: str) -> bytes:
        if path == "/proc/self/mountinfo":
            return f"21 1 0:20 / / rw,relatime shared:1 - {self._kind} server:/export rw\n".encode()
        return super().kernel_file(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    with Metatree(str(folder), LEVELS) as tree:
        tree.put("m/v1", b"one", name="weights")
        tree.update("m", active="v1")
    return folder


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs", "9p", "virtiofs", "ext5"])
def test_a_tree_on_another_mount_is_refused_for_writing_by_name_and_can_be_read(root: Path, kind: str) -> None:
    with pytest.raises(UnsupportedStorageError, match=f"type {kind}, .*read_only=True"):
        Metatree(wal.LocalStorage(str(root), posix=Elsewhere(kind)))
    with Metatree(wal.LocalStorage(str(root), posix=Elsewhere(kind)), read_only=True) as reader:
        assert b"".join(reader.get("m/<active>/weights")) == b"one"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"])
def test_a_tree_on_each_allowed_type_is_written(root: Path, kind: str) -> None:
    with Metatree(wal.LocalStorage(str(root), posix=Elsewhere(kind))) as tree:
        tree.update("m", written_on=kind)
        assert tree.check(deep=True).ok


@pytest.mark.parametrize("url", ["nosuch://host/tree"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_scheme_that_nobody_knows_is_refused(url: str, read_only: bool) -> None:
    with pytest.raises(UnsupportedStorageError, match=url.partition(":")[0]):
        Metatree(url, LEVELS, read_only=read_only)


def test_a_hand_edit_is_noticed_by_check_and_stops_a_commit_that_needs_the_node(root: Path) -> None:
    file = root / "m" / "metadata.json"
    if not os.listxattr(file):
        pytest.fail("the temporary folder keeps no extended attributes: run with --basetemp on a disk that does")
    before = file.read_bytes()
    file.write_bytes(before.replace(b'"v1"\n}', b'"v9"\n}'))
    assert file.read_bytes() != before
    with Metatree(str(root)) as tree:
        assert [finding.path for finding in tree.check().problems] == ["m/metadata.json"]
        with pytest.raises(CorruptionError, match=r"m/metadata\.json"):
            tree.update("m", active="v2")
        tree.put("other/v1", b"two", name="weights")  # others are not concerned
    file.write_bytes(before)
    with Metatree(str(root)) as tree:
        tree.update("m", active="v1", more=1)
        assert tree.check(deep=True).ok


def test_a_damaged_blob_is_noticed_when_it_is_read_to_its_end_and_by_a_deep_check(root: Path) -> None:
    (root / "m" / "v1" / "weights").write_bytes(b"0ne")
    with Metatree(str(root)) as tree:
        assert tree.check().ok
        assert [finding.path for finding in tree.check(deep=True).problems] == ["m/v1/weights"]
        with pytest.raises(CorruptionError, match="m/v1/weights"):
            list(tree.get("m/v1/weights"))
        tree.put("m/v1", b"one", name="weights", force=True)
        assert tree.check(deep=True).ok
