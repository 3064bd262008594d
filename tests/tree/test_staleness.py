"""`consistency=SECONDS`, where hosts share the storage: a read may be out of date, but is never of two states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import wal
from metatree import Metatree
from tests.tree.conftest import LEVELS
from tests.tree.test_create_and_adopt import Mounted


def open_shared(root: Path, **options: float | str) -> Metatree:
    return Metatree(wal.LocalStorage(str(root), posix=Mounted("nfs4")), LEVELS, **options)  # type: ignore[arg-type]


@pytest.fixture
def root(fast_path: Path) -> Path:
    root = fast_path / "tree"
    root.mkdir()
    with open_shared(root) as tree:
        tree.put("m/v1", b"1", name="b")
        tree.update("m", active="v1")
    return root


@pytest.fixture
def writer(root: Path) -> Iterator[Metatree]:
    with open_shared(root) as tree:
        yield tree
        assert tree.check(deep=True).ok


def test_a_read_within_the_seconds_may_be_out_of_date_and_asks_nobody(root: Path, writer: Metatree) -> None:
    with open_shared(root, consistency=3600) as reader:
        assert reader.find("m").metadata["active"] == "v1"
        writer.update("m", active="v2")
        assert reader.find("m").metadata["active"] == "v1"
        with open_shared(root) as strong:
            assert strong.find("m").metadata["active"] == "v2"


def test_files_that_are_newer_than_the_reader_knows_never_make_a_mix(root: Path, writer: Metatree) -> None:
    with open_shared(root, consistency=3600) as reader:
        assert reader.find("m").metadata["active"] == "v1"
        writer.put("m/v2", b"2", name="b")
        writer.update("m", active="v2")
        writer.delete("m/v1", recursive=True)
        writer.checkpoint()
        assert b"".join(reader.get("m/<active>/b")) == b"2"
        assert reader.children("m") == ["v2"]


def test_a_change_is_made_to_the_newest_state_however_old_what_was_read_is(root: Path, writer: Metatree) -> None:
    with open_shared(root, consistency=3600) as late:
        assert late.find("m").metadata["active"] == "v1"
        writer.update("m", active="v2", seen=1)
        late.update("m", seen=2)
        assert dict(late.find("m").metadata) == {"active": "v2", "seen": 2}
        late.update("m", seen=2)  # nothing to do is said of the newest state as well
        writer.update("m", seen=3)
        late.update("m", seen=2)
        assert writer.find("m").metadata["seen"] == 2


def test_a_flush_brings_the_files_to_the_newest_state(root: Path) -> None:
    with open_shared(root, consistency=3600) as late, open_shared(root, apply="background") as writer:
        late.find("m")
        writer._engine.committer.stop()  # its thread does not follow
        writer.update("m", active="v2")
        late.flush()
        assert json.loads((root / "m/metadata.json").read_text())["active"] == "v2"


@pytest.mark.parametrize("what", ["checkpoint", "recover"])
def test_what_others_committed_and_applied_meanwhile_is_no_damage_to_the_log(
    root: Path, writer: Metatree, what: str
) -> None:
    with open_shared(root, consistency=3600) as late:
        late.find("m")
        writer.update("m", active="v2")
        getattr(late, what)()
        assert late.lsn == writer.lsn


def test_a_recovery_replays_nothing_that_the_checkpoint_of_another_has_made_durable(
    root: Path, writer: Metatree
) -> None:
    with open_shared(root, consistency=3600) as late:
        late.find("m")
        writer.update("m", active="v2")
        done = late.recover()
        assert (done.records, done.head) == (1, writer.lsn)
        writer.checkpoint()
        done = late.recover()
        assert (done.clean, done.redo) == (True, writer.lsn)
