"""Each check can fail: storages that break one promise, and the check that notices."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import wal
from metatree.doctor import Fit, advice, measures, races
from metatree.doctor.contenders import ContenderError, Contenders
from metatree.doctor.findings import Check, Finding, Report, Status, judge
from metatree.doctor.place import Place

THREADS = 4


class Threads:
    """Contenders that share one storage, so that a broken one can be handed in."""

    def __init__(self, storage: wal.Storage) -> None:
        self._storage = storage
        self._pool = ThreadPoolExecutor(THREADS)
        self._running: list[Future[Any]] = []

    def race(self, turn: Callable[..., Any], *arguments: Any) -> list[Any]:
        self.start(turn, *arguments)
        return self.finish()

    def start(self, turn: Callable[..., Any], *arguments: Any) -> None:
        line = threading.Barrier(THREADS)

        def run(number: int) -> Any:
            line.wait()
            return turn(self._storage, str(number), *arguments)

        self._running = [self._pool.submit(run, number) for number in range(THREADS)]

    def busy(self) -> bool:
        return not all(each.done() for each in self._running)

    def finish(self) -> list[Any]:
        return [each.result() for each in self._running]


class Broken:
    """A local folder whose operations can be replaced by worse ones."""

    def __init__(self, root: Path) -> None:
        self.good = wal.LocalStorage(str(root))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.good, name)


class Quick(wal.Clock):
    """Little patience: each look at the time is a second later."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 1.0
        return self._now


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Callable[[type[Broken]], races.Arena]]:
    made: list[Broken] = []

    def make(kind: type[Broken]) -> races.Arena:
        made.append(kind(tmp_path))
        storage: Any = made[-1]
        contenders: Any = Threads(storage)
        return races.Arena(storage, contenders, Quick())

    yield make
    for storage in made:
        storage.good.close()


Make = Callable[[type[Broken]], races.Arena]


class LooksThenWrites(Broken):
    def create(self, name: str, data: bytes) -> bool:
        if self.good.entry(name) is not None:
            return False
        wal.Clock().sleep(0.01)
        self.good.publish(name, data, b"", durable=False)
        return True


class WritesThenRefuses(Broken):
    def create(self, name: str, data: bytes) -> bool:
        won = self.good.create(name, data)
        wal.Clock().sleep(0.01)
        if not won:
            self.good.publish(name, data, b"", durable=False)
        return won


@pytest.mark.parametrize("kind", [LooksThenWrites, WritesThenRefuses])
def test_a_create_that_is_not_exclusive_is_found(arena: Make, kind: type[Broken]) -> None:
    assert not races.put_if_absent(arena(kind))[0]


class Unconditional(Broken):
    """Versions that nobody compares."""

    def read(self, name: str) -> wal.Stored:
        stored = self.good.read(name)
        return wal.Stored(stored.data, None, stored.data.decode())

    def publish(self, name: str, content: Any, attribute: bytes, *, durable: bool, expect: str | None = None) -> str:
        wal.Clock().sleep(0.005)
        return self.good.publish(name, content, attribute, durable=durable)


class Forgetful(Unconditional):
    """Says yes, and does nothing, now and then."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lock, self._calls = threading.Lock(), 0

    def publish(self, name: str, content: Any, attribute: bytes, *, durable: bool, expect: str | None = None) -> str:
        with self._lock:
            if expect is not None and expect != self.good.read(name).data.decode():
                raise wal.ChangedError("another version")
            self._calls += 1
            if self._calls % 3:
                self.good.publish(name, content, attribute, durable=durable)
            return ""


@pytest.mark.parametrize("kind", [Unconditional, Forgetful])
def test_versions_that_are_not_compared_are_found(arena: Make, kind: type[Broken]) -> None:
    holds, seen = races.compare_and_set(arena(kind))
    assert not holds
    assert "twice" in seen or "acknowledged" in seen


class FolderInParts(Broken):
    def publish_folder(self, name: str, files: Sequence[wal.Publication]) -> bool:
        if self.good.entry(name) is not None:
            return False
        for file in files:
            self.good.publish(file.name, file.content, file.attribute, durable=False)
            wal.Clock().sleep(0.01)
        return True


class FolderTwice(Broken):
    def publish_folder(self, name: str, files: Sequence[wal.Publication]) -> bool:
        self.good.publish_folder(name, files)
        return True


class FolderNotForWatchers(FolderInParts):
    def publish_folder(self, name: str, files: Sequence[wal.Publication]) -> bool:
        if name.endswith("-watched"):
            return super().publish_folder(name, files)
        return self.good.publish_folder(name, files)


@pytest.mark.parametrize("kind", [FolderInParts, FolderTwice, FolderNotForWatchers])
def test_a_folder_that_is_not_published_in_one_step_is_found(arena: Make, kind: type[Broken]) -> None:
    assert not races.folder_once(arena(kind))[0]


class Unfenced(Broken):
    def fenced(self, folder: str) -> Any:
        return self.good


class FencedPublishOnly(Broken):
    """A view whose other operations do not go through the fence."""

    def fenced(self, folder: str) -> Any:
        good, view = self.good, self.good.fenced(folder)

        class View:
            publish = view.publish
            publish_folder = good.publish_folder
            set_aside = good.set_aside

        return View()


@pytest.mark.parametrize("kind", [Unfenced, FencedPublishOnly])
def test_a_fence_that_lets_something_through_is_found(arena: Make, kind: type[Broken]) -> None:
    assert not races.fence(arena(kind))[0]


class OldLists(Broken):
    """Lists as they were a moment ago."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._kept: list[wal.Entry] = []

    def list(self, folder: str) -> list[wal.Entry]:
        kept, self._kept = self._kept, self.good.list(folder)
        return kept


class Undead(Broken):
    """What was removed is listed on."""

    def erase(self, name: str) -> None:
        pass


class NegativeCache(Broken):
    """What was not there once is not found for a while."""

    def read(self, name: str) -> wal.Stored:
        if name.startswith("fresh/"):
            raise FileNotFoundError(name)
        return self.good.read(name)


@pytest.mark.parametrize("kind", [OldLists, Undead, NegativeCache])
def test_a_view_of_the_past_is_found(arena: Make, kind: type[Broken]) -> None:
    assert not races.read_after_write(arena(kind))[0]


class InPlace(Broken):
    """Replaces by writing into the file that is there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._root = root

    def publish(self, name: str, content: bytes, attribute: bytes, *, durable: bool, expect: str | None = None) -> str:
        with (self._root / name).open("wb") as file:
            for at in range(0, len(content), 1024):
                file.write(content[at : at + 1024])
                file.flush()
        return ""


class RemoveThenWrite(Broken):
    def publish(self, name: str, content: Any, attribute: bytes, *, durable: bool, expect: str | None = None) -> str:
        self.good.erase(name)
        wal.Clock().sleep(0.001)
        return self.good.publish(name, content, attribute, durable=durable)


class OtherMark(Broken):
    def read(self, name: str) -> wal.Stored:
        stored = self.good.read(name)
        return wal.Stored(stored.data, b"of another version")


@pytest.mark.parametrize("kind", [InPlace, RemoveThenWrite, OtherMark])
def test_a_replacement_that_readers_can_see_happen_is_found(arena: Make, kind: type[Broken]) -> None:
    made = arena(kind)
    assert not races.replace_whole(races.Arena(made.storage, made.contenders, wal.Clock()))[0]


class NoLocks(Broken):
    """Every caller gets every lock, as on a filesystem that only pretends."""

    def lock(self, name: str) -> Any:
        class Open:
            def acquire(self, *, shared: bool = False, timeout: float | None = None) -> bool:
                return True

            def release(self) -> None:
                pass

            close = release

        return Open()


def test_locks_that_exclude_nobody_are_found(arena: Make) -> None:
    holds, seen = races.locks_exclude(arena(NoLocks))
    assert not holds
    assert "40 times 1 was added" in seen


class NoMarks(Broken):
    def read(self, name: str) -> wal.Stored:
        return wal.Stored(self.good.read(name).data, None)


def test_marks_that_are_not_kept_are_found(tmp_path: Path) -> None:
    storage: Any = NoMarks(tmp_path)
    assert measures.attributes(storage) == (False, "a file came back without its attribute")
    storage.good.close()


def test_a_good_storage_passes_them_all(arena: Make) -> None:
    for race in (races.put_if_absent, races.folder_once, races.fence, races.read_after_write, races.locks_exclude):
        assert race(arena(Broken))[0], race.__name__


# --- what is made of it -----------------------------------------------------------------------------------------------


def test_one_needed_guarantee_that_was_not_seen_to_hold_is_enough_to_be_unfit() -> None:
    can = wal.Capabilities(writable=True, append_log=True, attributes=True)
    good = [Finding(advice.READING, Status.HOLDS, ""), Finding(advice.ABSENT, Status.HOLDS, "")]
    assert judge(can, good) is Fit.ONE_MACHINE
    for status in (Status.FAILS, Status.UNKNOWN):
        assert judge(can, [*good, Finding(advice.LOCKS, status, "")]) is Fit.READ_ONLY
        assert judge(can, [*good, Finding(advice.ATTRIBUTES, status, "")]) is Fit.ONE_MACHINE
        assert judge(can, [Finding(advice.READING, status, "")]) is Fit.NONE
    assert judge(can, []) is Fit.NONE


def test_the_reason_names_the_first_thing_that_is_missing() -> None:
    report = Report("/x", "/x", wal.Capabilities(writable=True, append_log=True, attributes=False))
    report.findings = [
        Finding(advice.READING, Status.HOLDS, ""),
        Finding(advice.ATTRIBUTES, Status.FAILS, "none"),
        Finding(advice.LOCKS, Status.FAILS, "40 turns, 12 counted"),
        Finding(advice.FRESH, Status.UNKNOWN, "OSError: gone"),
    ]
    assert report.reason == (
        "it does not hold that a lock keeps all other processes and threads out (and 1 more, see below)"
    )


# --- contenders -------------------------------------------------------------------------------------------------------


def end_at_once(storage: wal.Storage, who: str) -> None:
    import os

    os._exit(3)


def fail(storage: wal.Storage, who: str) -> None:
    raise PermissionError(f"not for {who}")


def test_an_error_in_another_process_is_told_and_the_process_goes_on(tmp_path: Path) -> None:
    contenders = Contenders(str(tmp_path), {})
    try:
        with pytest.raises(ContenderError, match=r"PermissionError: not for \d\.\d"):
            contenders.race(fail)
        assert len([who for who in contenders.race(races.turns.create, "name") if who]) == 1
    finally:
        contenders.close()


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    contenders = Contenders(str(tmp_path), {})
    try:
        contenders.start(fail)  # and then the trial ends with an error of its own
        assert len([who for who in contenders.race(races.turns.create, "name") if who]) == 1
    finally:
        contenders.close()


def test_a_process_that_ends_is_an_error_and_no_hang(tmp_path: Path) -> None:
    contenders = Contenders(str(tmp_path), {})
    try:
        with pytest.raises(ContenderError, match="ended unexpectedly"):
            contenders.race(end_at_once)
    finally:
        contenders.close(kill=True)


# --- the place --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "local://{}"])
def test_a_local_place_is_found_however_it_is_written(tmp_path: Path, form: str) -> None:
    place = Place(form.format(tmp_path), {}, wal.Clock())
    place.make().create("x", b"1")
    assert [path.name.startswith(".metatree-probe-") for path in tmp_path.iterdir()] == [True]
    assert place.remove() == ""
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_removed_is_named(tmp_path: Path) -> None:
    place = Place(str(tmp_path), {}, wal.Clock())
    place.make()
    (name,) = (path.name for path in tmp_path.iterdir())

    def refuse(name: str) -> None:
        raise PermissionError(name)

    place.around.erase = refuse  # type: ignore[method-assign]
    assert place.remove() == f"{tmp_path}/{name}"
    with suppress(FileNotFoundError):
        assert (tmp_path / name).is_dir()


@pytest.mark.parametrize(
    ("check", "error", "filesystem", "expected"),
    [
        (
            advice.READING,
            PermissionError(errno.EACCES, "list: no usable credentials were found"),
            "s3",
            "there are no cr",
        ),
        (
            advice.READING,
            PermissionError(errno.EACCES, "list: the server answered 403"),
            "s3",
            "the key, the secret or",
        ),
        (advice.READING, PermissionError(errno.EACCES, "denied"), "ext4", "give this user permission to read here"),
        (advice.READING, OSError(errno.ENXIO, "list: the bucket does not exist"), "s3", "create the bucket"),
        (advice.READING, ConnectionError("list: no answer"), "s3", "the server does not answer"),
        (advice.READING, OSError(errno.EIO, "strange"), "s3", "nothing can be done here"),
        (advice.SCRATCH, PermissionError(errno.EACCES, "denied"), "s3", "give this user permission to write here"),
        (advice.SCRATCH, OSError(errno.ENOSPC, "No space left on device"), "ext4", "the disk is full: free space"),
        (advice.SCRATCH, OSError(errno.EDQUOT, "quota"), "webhdfs", "the quota is used up: free space"),
        (advice.READING, ContenderError("a process ended"), "ext4", "nothing can be done here"),
    ],
)
def test_the_advice_fits_the_error(check: Check, error: Exception, filesystem: str, expected: str) -> None:
    told = advice.after(check, error, filesystem)
    assert told.lost.startswith(expected) and (told.name, told.needed) == (check.name, check.needed)
