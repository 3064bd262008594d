"""The right to apply goes from host to host, at moments that are hard to meet by chance. Handles stand for hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torture_place import Place

import wal
from metatree import Metatree
from tests.hosts.conftest import LEVELS, Shared, shared
from tests.hosts.stepping import Stepping


@pytest.fixture
def mount(request: pytest.FixtureRequest) -> Iterator[Shared]:
    yield from shared("mount", request)


class Once:
    """Does something just before the first call of one kind, on a name with this beginning."""

    def __init__(self, method: str, beginning: str) -> None:
        self.method, self.beginning = method, beginning
        self.act: Callable[[], object] | None = None

    def __call__(self, method: str, arguments: tuple[Any, ...]) -> None:
        if self.act is not None and method == self.method and str(arguments[0]).startswith(self.beginning):
            act, self.act = self.act, None
            act()


@contextmanager
def opened(place: Place, before: Callable[[str, tuple[Any, ...]], None]) -> Iterator[Metatree]:
    with place.open_on(Stepping(place.storage(), before)) as tree:
        yield tree


def test_one_that_takes_its_epoch_again_while_another_claims_the_next_is_overtaken_without_a_word(
    mount: Shared,
) -> None:
    """Both found the right free. What then fails under the hands of the slower one is not its trouble: no warning."""
    applying = Once("publish", "m/metadata.json")
    mount.open(LEVELS).close()
    with opened(mount.place, applying) as slow:
        slow.put("m/v1", b"1", name="b")  # it holds an epoch now, and gave it back
        applying.act = overtake_with(mount.place)
        slow.update("m", overtaken=True)
        assert applying.act is None and slow.unapplied == 0
        report = slow.check(deep=True)
        assert report.ok, report
        assert mount.metadata("m") == {"children": ["v1", "v4"], "overtaken": True}
    mount.assert_clean()


def test_who_claims_an_epoch_late_carries_out_what_was_appended_until_then(mount: Shared) -> None:
    """It found the right free, and slept; the last holder took his own epoch again, and went on to later records."""
    claiming = Once("publish_folder", ".wal/epoch/")
    mount.open(LEVELS).close()
    with opened(mount.place, claiming) as slow, mount.open() as last:
        last.put("m/v0", b"0", name="b")
        claiming.act = lambda: last.delete("m/v1", recursive=True)
        slow.put("m/v1", b"1", name="b")
        assert claiming.act is None
        assert mount.metadata("m") == {"children": ["v0"]}
        assert "m/v1/b" not in mount.files()
        report = slow.check(deep=True)
        assert report.ok, report
    mount.assert_clean()


def test_a_checkpoint_that_is_overtaken_is_made_all_the_same(mount: Shared) -> None:
    trimming = Once("publish", ".wal/00000000000000000001.rec")
    mount.open(LEVELS).close()
    with opened(mount.place, trimming) as slow:
        slow.put("m/v1", b"1", name="b")
        trimming.act = overtake_with(mount.place)
        assert slow.checkpoint() == 2
        assert trimming.act is None
    mount.assert_clean()


def test_what_another_hosts_checkpoint_has_cleared_away_is_not_missed_by_check(mount: Shared) -> None:
    """It knows the record that named the staged blob, and not yet that it was trimmed."""
    with mount.open(LEVELS) as idle, mount.open() as other:
        other.put("m/v1", bytes(100_000), name="weights")
        assert idle.children("m") == ["v1"]
        assert other.checkpoint() == 1
        report = idle.check(deep=True)
        assert report.ok, report
    mount.assert_clean()


def overtake_with(place: Place) -> Callable[[], None]:
    """What another host does that saw the right free: claims the next epoch, and works under it."""

    def overtake() -> None:
        storage = place.storage()
        numbers = sorted(entry.name for entry in storage.list(".wal/epoch"))
        owner = wal.Publication(
            f".wal/epoch/{int(numbers[-1]) + 1:020d}/owner",
            storage.read(f".wal/epoch/{numbers[-1]}/owner").data.replace(b'"held":true', b'"held":false'),
            b"",
        )
        work = wal.Publication(owner.name.replace("/owner", "/work/here"), b"", b"")
        assert storage.publish_folder(owner.name.removesuffix("/owner"), [owner, work])
        storage.set_aside(f".wal/epoch/{numbers[-1]}/work", f".wal/quarantine/epoch-{numbers[-1]}")
        storage.close()
        with place.open() as other:
            other.put("m/v4", b"4", name="b")

    return overtake
