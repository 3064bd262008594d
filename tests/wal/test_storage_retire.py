"""Retiring a fence: what a committer had under way when its folder was taken from it does not come after that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wal.storage import LocalStorage
from wal.storage.posix import Posix


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[LocalStorage]:
    storage = LocalStorage(str(tmp_path))
    storage.publish("epoch/1/work/here", b"", b"", durable=False)
    storage.publish("m/metadata.json", b"old", b"", durable=False)
    yield storage
    storage.close()


def test_a_rename_whose_folder_was_looked_up_before_fails_afterwards(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "epoch/1/work/temporary").write_bytes(b"late")
    looked_up = os.open(tmp_path / "epoch/1/work", os.O_RDONLY)  # as the kernel holds it while a rename is under way
    storage.retire("epoch/1/work", "aside")
    with pytest.raises(FileNotFoundError):
        os.rename("temporary", tmp_path / "m/metadata.json", src_dir_fd=looked_up)
    with pytest.raises(FileNotFoundError):
        os.rename(tmp_path / "m/metadata.json", "taken", dst_dir_fd=looked_up)
    with pytest.raises(FileNotFoundError):
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=looked_up)
    os.close(looked_up)
    assert (tmp_path / "m/metadata.json").read_bytes() == b"old"
    assert (tmp_path / "aside/temporary").read_bytes() == b"late"


def test_what_comes_in_while_it_is_emptied_goes_too(tmp_path: Path) -> None:
    class Busy(Posix):
        """A committer that is quick with its next temporary file, twice."""

        left = 2

        def rmdir(self, path: str) -> None:
            if self.left:
                self.left -= 1
                Path(path, f"late-{self.left}").write_bytes(b"x")
            super().rmdir(path)

    storage = LocalStorage(str(tmp_path), posix=Busy())
    storage.publish("epoch/1/work/here", b"", b"", durable=False)
    storage.retire("epoch/1/work", "aside")
    assert not (tmp_path / "epoch/1/work").exists()
    assert sorted(path.name for path in (tmp_path / "aside").iterdir()) == ["here", "late-0", "late-1"]
    storage.close()


def test_a_view_can_do_nothing_any_more_and_sealing_again_is_no_error(storage: LocalStorage) -> None:
    view = storage.fenced("epoch/1/work")
    view.publish("m/metadata.json", b"new", b"", durable=False)
    for _ in range(2):
        storage.retire("epoch/1/work", "aside")
    for step in (
        lambda: view.publish("m/metadata.json", b"late", b"", durable=False),
        lambda: view.set_aside("m", "elsewhere"),
        lambda: view.publish_folder("n", []),
    ):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            step()
    assert storage.read("m/metadata.json").data == b"new"
    assert storage.entry("n") is None
