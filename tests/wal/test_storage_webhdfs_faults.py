"""Requests and replies to HDFS that are lost: each answer of the storage is true all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from serve_hdfs import Hdfs

from tests.figures import Layer
from tests.servers.hdfs import Raw
from tests.servers.proxy import Exchange, Plan, Proxy, before
from wal.errors import UnsupportedError
from wal.storage import Publication, Staged
from wal.storage.webhdfs import WebHdfsStorage

OPTIONS = {"user": "root"}


@pytest.fixture
def proxy(hdfs: Hdfs) -> Iterator[Proxy]:
    with before(hdfs.host, hdfs.port) as proxy:
        yield proxy


@pytest.fixture
def storage(proxy: Proxy, raw: Raw) -> Iterator[WebHdfsStorage]:
    raw.write("m/x", b"old")
    raw.write(".wal/staged/1", b"blob")
    raw.call("PUT", "MKDIRS", raw.path(".wal/tmp"))
    storage = WebHdfsStorage(f"webhdfs://{proxy.host}:{proxy.port}{raw.root}", {**OPTIONS, "read_timeout": 20})
    yield storage
    storage.close()


@dataclass(frozen=True)
class Case:
    act: Callable[[WebHdfsStorage], object]
    done: object  # what it returns when it did it
    before: dict[str, bytes | None]  # content of files
    after: dict[str, bytes | None]
    certain: bool = True  # an error that does not call itself unknown says that nothing was done


FOLDER = [Publication("m/v/metadata.json", b"{}", b"a"), Publication("m/v/d/b", Staged(".wal/staged/1"), b"b")]
CASES = {
    "create": Case(lambda s: s.create("m/new", b"mine"), True, {"m/new": None}, {"m/new": b"mine"}),
    "create in a new folder": Case(
        lambda s: s.create("slots/1", b"mine"), True, {"slots/1": None}, {"slots/1": b"mine"}
    ),
    "publish": Case(lambda s: s.publish("m/x", b"new", b"a", durable=True), "", {"m/x": b"old"}, {"m/x": b"new"}),
    "publish staged": Case(
        lambda s: s.publish("n/y", Staged(".wal/staged/1"), b"a", durable=True), "", {"n/y": None}, {"n/y": b"blob"}
    ),
    "publish folder": Case(
        lambda s: s.publish_folder("m/v", FOLDER),
        True,
        {"m/v/metadata.json": None, "m/v/d/b": None},
        {"m/v/metadata.json": b"{}", "m/v/d/b": b"blob"},
    ),
    "set aside": Case(
        lambda s: s.set_aside("m/x", ".wal/trash/x"),
        ".wal/trash/x",
        {"m/x": b"old", ".wal/trash/x": None},
        {"m/x": None, ".wal/trash/x": b"old"},
    ),
    "stage existing": Case(
        lambda s: s.stage_existing("m/x", "staged/2", share=False), None, {"staged/2": None}, {"staged/2": b"old"}
    ),
    "erase": Case(lambda s: s.erase("m/x"), None, {"m/x": b"old"}, {"m/x": None}, certain=False),
    "make folder": Case(lambda s: s.make_folder("a/b", b"att"), None, {}, {}, certain=False),
    "read": Case(lambda s: s.read("m/x").data, b"old", {}, {}),
}


def contents(raw: Raw, names: dict[str, bytes | None]) -> dict[str, bytes | None]:
    there = raw.everything()
    return {name: raw.read(name) if name in there else None for name in names}


def at(number: int, fate: str, *, reading: bool) -> Plan:
    return lambda exchange: fate if exchange.reading == reading and exchange.number == number else "pass"


def attempt(storage: WebHdfsStorage, proxy: Proxy, raw: Raw, case: Case, plan: Plan, number: int) -> bool:
    """Act with one fault and check the answer; False when there are no requests left to fail."""
    proxy.follow(plan)
    try:
        result = case.act(storage)
    except OSError as error:
        found = contents(raw, case.before)
        # nothing in between, and an error means that nothing was done
        assert found == case.before or (found == case.after and not case.certain), (number, error)
        assert "unknown" not in str(error)
    else:
        assert result == case.done
        assert contents(raw, case.after) == case.after, number
    return any(plan(exchange) != "pass" for exchange in proxy.seen)


def restore(raw: Raw) -> None:
    for name in raw.names("") - {".wal", "m"}:
        raw.delete(name)
    for name in ("m", ".wal/trash"):
        raw.delete(name)
    raw.write("m/x", b"old")


@pytest.mark.parametrize(
    ("name", "fate", "reading"),
    [
        *((name, fate, False) for name in CASES if name != "read" for fate in ("reset", "lost")),
        *((name, "error", False) for name in ("create", "publish", "publish folder", "set aside")),
        *((name, "error", True) for name in ("create in a new folder", "publish folder", "set aside")),
        *((name, "cut", True) for name in ("publish staged", "read")),
    ],
)
def test_whatever_request_of_an_operation_is_lost_its_answer_is_true(
    layer: Layer, storage: WebHdfsStorage, proxy: Proxy, raw: Raw, name: str, fate: str, reading: bool
) -> None:
    case, number = CASES[name], 1
    while attempt(storage, proxy, raw, case, at(number, fate, reading=reading), number):
        restore(raw)
        number += 1
    assert contents(raw, case.after) == case.after  # the last attempt met no fault
    layer.report("faults of HDFS", number - 1, floor=1, night=1, unit="requests × faults, all there are")


def renames(fate: str) -> Plan:
    return lambda exchange: fate if exchange.operation == "RENAME" else "pass"


def test_an_own_creation_whose_reply_was_lost_is_ones_own(storage: WebHdfsStorage, proxy: Proxy, raw: Raw) -> None:
    proxy.follow(renames("lost"))
    assert storage.create("m/1", b"mine") is True
    assert raw.read("m/1") == b"mine"
    assert raw.names(".wal/tmp") == set()


def test_anothers_file_of_the_same_content_is_not_ones_own(storage: WebHdfsStorage, proxy: Proxy, raw: Raw) -> None:
    raw.write("m/1", b"same")
    for fate in ("lost", "reset", "error"):
        proxy.follow(renames(fate))
        assert storage.create("m/1", b"same") is False
    assert raw.names(".wal/tmp") == set()


def test_a_rename_that_is_still_under_way_when_its_author_gives_up_finds_no_source(hdfs: Hdfs, raw: Raw) -> None:
    arrive, arrived = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> str:
        if exchange.operation == "RENAME" and exchange.number > 1:  # the first one asks at opening
            arrive.wait(60)
            threading.Timer(0.2, arrived.set).start()
        return "pass"

    with before(hdfs.host, hdfs.port) as proxy:
        proxy.follow(hold)
        storage = WebHdfsStorage(
            f"webhdfs://{proxy.host}:{proxy.port}{raw.root}", {**OPTIONS, "read_timeout": 1}, clock=None
        )
        with pytest.raises(TimeoutError):
            storage.create("1", b"late")
        arrive.set()
        assert arrived.wait(60)
        storage.close()
    assert raw.everything() <= {".wal/", ".wal/tmp/"}


def test_what_cannot_be_found_out_is_called_unknown(storage: WebHdfsStorage, proxy: Proxy, raw: Raw) -> None:
    dead = threading.Event()

    def die(exchange: Exchange) -> str:
        if dead.is_set():
            return "reset"
        if exchange.operation == "RENAME":
            dead.set()
            return "lost"
        return "pass"

    proxy.follow(die)
    with pytest.raises(OSError, match="unknown whether"):
        storage.create("m/1", b"mine")
    assert raw.read("m/1") == b"mine"


def test_a_gateway_that_ignores_the_options_of_rename_is_refused(proxy: Proxy, raw: Raw) -> None:
    proxy.follow(renames("legacy"))
    with pytest.raises(UnsupportedError, match="RENAME ignores its options"):
        WebHdfsStorage(f"webhdfs://{proxy.host}:{proxy.port}{raw.root}", OPTIONS)


def test_a_read_is_sent_again_when_the_connection_is_lost_a_change_never(
    storage: WebHdfsStorage, proxy: Proxy, raw: Raw
) -> None:
    proxy.follow(at(1, "reset", reading=True))
    assert storage.read("m/x").data == b"old"
    proxy.follow(lambda exchange: "lost" if exchange.operation == "MKDIRS" else "pass")
    with pytest.raises(ConnectionError):
        storage.make_folder("a")
    assert [exchange.operation for exchange in proxy.seen] == ["MKDIRS"]


def test_a_server_that_never_answers_is_a_time_out(raw: Raw, hdfs: Hdfs) -> None:
    free = threading.Event()

    def wait(exchange: Exchange) -> str:
        free.wait(60)
        return "reset"

    with before(hdfs.host, hdfs.port) as proxy:
        storage = WebHdfsStorage(f"webhdfs://{proxy.host}:{proxy.port}{raw.root}", {**OPTIONS, "read_timeout": 0.5})
        proxy.follow(wait)
        with pytest.raises(TimeoutError, match="no answer"):
            storage.read("x")
        free.set()
        storage.close()


def test_a_folder_whose_parts_are_cleared_away_while_it_is_built_is_never_published_in_part(
    storage: WebHdfsStorage, proxy: Proxy, raw: Raw
) -> None:
    """Somebody takes the scratch folder for a dead writer's, before each request that changes something."""
    files = {
        "flat": [Publication(f"m/v/{name}", name.encode(), b"") for name in ("a", "b")],
        "deep": [Publication(f"m/v/{name}", name.encode(), b"") for name in ("a", "d/b", "e/c")],
    }
    for publications in files.values():
        whole, number, published = {each.name for each in publications}, 1, 0
        while True:
            cleared: list[int] = []

            def clear(exchange: Exchange, at: int = number, cleared: list[int] = cleared) -> str:
                if exchange.number == at and not exchange.reading:
                    raw.delete(".wal/tmp")
                    cleared.append(at)
                return "pass"

            proxy.follow(clear)
            try:
                assert storage.publish_folder("m/v", publications)
                published += 1
            except FileNotFoundError:
                pass
            found = {name for name in raw.everything() if name.startswith("m/v/") and not name.endswith("/")}
            assert found in (set(), whole), number
            raw.delete("m/v")
            if not cleared:
                break
            number += 1
        assert number > 4 and published < number
