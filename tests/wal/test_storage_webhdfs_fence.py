"""A committer that was overtaken: its view of the storage changes nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from serve_hdfs import Hdfs

from tests.servers.hdfs import Raw
from tests.servers.proxy import Exchange, Proxy, before
from wal.storage import Publication, Staged, Storage
from wal.storage.webhdfs import WebHdfsStorage

OPTIONS = {"user": "root"}
HELD = ".wal/epoch/7/t"
FOLDER = [Publication("m/v2/metadata.json", b"{}", b"a"), Publication("m/v2/d/e", b"", b"b")]
DEEP = [Publication("n/o/v/metadata.json", b"{}", b"a")]
OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "create": lambda s: s.create("m/new", b""),
    "create in a new folder": lambda s: s.create("slots/deep/1", b""),
    "publish a new file": lambda s: s.publish("m/new", b"{}", b"a", durable=True),
    "replace a file": lambda s: s.publish("m/x", b"new", b"a", durable=True),
    "publish in a new folder": lambda s: s.publish("m/d/e/f", b"new", b"a", durable=True),
    "publish a staged file": lambda s: s.publish("m/blob", Staged(".wal/staged/1"), b"a", durable=True),
    "publish a folder": lambda s: s.publish_folder("m/v2", FOLDER),
    "publish an empty folder": lambda s: s.publish_folder("m/v2", []),
    "publish a folder in a new folder": lambda s: s.publish_folder("n/o/v", DEEP),
    "make a folder": lambda s: s.make_folder("m/a/b"),
    "make a marked folder": lambda s: s.make_folder("m/a/b", b"att"),
    "mark a folder": lambda s: s.make_folder("m/v1", b"att"),
    "set a file aside": lambda s: s.set_aside("m/x", ".wal/trash/1/x"),
    "set a folder aside": lambda s: s.set_aside("m", ".wal/trash/1/m"),
    "set aside below the fence": lambda s: s.set_aside("m/x", f"{HELD}/kept/x"),
    "erase a file": lambda s: s.erase("m/x"),
    "erase a folder": lambda s: s.erase("m"),
}


def fill(raw: Raw) -> None:
    raw.write("m/x", b"old")
    raw.write(".wal/staged/1", b"blob")
    raw.call("PUT", "MKDIRS", raw.path("m/v1"))
    raw.call("PUT", "MKDIRS", raw.path(HELD))


@pytest.fixture
def view(hdfs_url: str, raw: Raw) -> Iterator[Storage]:
    fill(raw)
    storage = WebHdfsStorage(hdfs_url, OPTIONS)
    yield storage.fenced(HELD)
    storage.close()


def tree(raw: Raw) -> set[str]:
    """All that is there, but for what lies out of sight: temporary names, and what went away with the fence."""
    return {name for name in raw.everything() if not name.startswith((".wal/tmp/", ".wal/quarantine/"))}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if any(w in name for w in ("new", "mark", "aside"))])
def test_a_view_whose_folder_is_there_does_it(view: Storage, raw: Raw, name: str) -> None:
    earlier, content = tree(raw), raw.read("m/x")
    OPERATIONS[name](view)
    assert tree(raw) != earlier or raw.read("m/x") != content or view.attribute("m/v1") == b"att"
    assert "marked" not in name or view.attribute("m/a/b") == b"att"
    assert raw.names(HELD) <= {"kept"} and raw.names(".wal/tmp") == set()


@pytest.mark.parametrize(
    ("name", "file_in_its_place"),
    [*((name, False) for name in OPERATIONS), *((name, True) for name in ("replace a file", "publish a folder"))],
)
def test_a_view_whose_folder_was_moved_away_changes_nothing(
    view: Storage, raw: Raw, name: str, file_in_its_place: bool
) -> None:
    raw.call("PUT", "MKDIRS", raw.path(".wal/quarantine"))
    raw.rename(HELD, ".wal/quarantine/7")
    if file_in_its_place:
        raw.write(HELD, b"")
    earlier = tree(raw)
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        OPERATIONS[name](view)
    assert tree(raw) == earlier
    assert raw.read("m/x") == b"old" and view.attribute("m/v1") is None
    assert raw.names(".wal/tmp") == set() and raw.names(".wal/quarantine/7") == set()


@pytest.mark.parametrize("name", ["create in a new folder", "replace a file", "set a folder aside", "erase a file"])
def test_a_view_that_is_overtaken_between_its_requests_changes_nothing_from_then_on(
    hdfs: Hdfs, raw: Raw, name: str
) -> None:
    """The folder goes before the k-th request that changes something, for each k."""
    with before(hdfs.host, hdfs.port) as proxy:
        storage = WebHdfsStorage(f"webhdfs://{proxy.host}:{proxy.port}{raw.root}", OPTIONS)
        number = 1
        while overtaken(storage, proxy, raw, name, number):
            number += 1
        assert number > 2
        storage.close()


def overtaken(storage: WebHdfsStorage, proxy: Proxy, raw: Raw, name: str, number: int) -> bool:
    """Whether the operation had that many requests."""
    for made in raw.names(""):
        raw.delete(made)
    fill(raw)
    raw.call("PUT", "MKDIRS", raw.path(".wal/quarantine"))
    at_the_move: list[object] = []

    def overtake(exchange: Exchange) -> str:
        if exchange.number == number and not exchange.reading:
            raw.rename(HELD, ".wal/quarantine/7")
            at_the_move.append(visible(raw))
        return "pass"

    proxy.follow(overtake)
    try:
        OPERATIONS[name](storage.fenced(HELD))
        assert not at_the_move or name == "erase a file"  # what is left of it then is out of sight
    except (FileNotFoundError, NotADirectoryError):
        assert at_the_move
    if at_the_move:
        assert at_the_move == [visible(raw)], number
    return bool(at_the_move)


def visible(raw: Raw) -> tuple[set[str], bytes | None]:
    """The tree. What was set aside left it before the move, and may end its way to the trash later."""
    names = {name for name in tree(raw) if not name.startswith(".wal/trash")}
    return names, raw.read("m/x") if "m/x" in names else None


def test_a_view_shares_its_connections_and_closing_it_does_nothing(view: Storage) -> None:
    view.close()
    assert view.read("m/x").data == b"old"
