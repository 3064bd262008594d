"""`metatree doctor` as a user meets it: in a process of its own, on real storages."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from serve_hdfs import Hdfs
from serve_s3 import Server

from metatree import Metatree
from metatree.doctor import failure
from tests.servers.hdfs import Raw
from tests.wal.s3_proxy import Proxy, Request, proxied

CHECKOUT = Path(__file__).resolve().parents[2]
KEYS = {
    "format": int,
    "url": str,
    "examined": str,
    "fit": str,
    "writable": bool,
    "reason": str,
    "storage": dict,
    "findings": list,
    "round_trips_ms": dict,
    "clock": dict,
    "notes": list,
    "leftover": str,
    "error": type(None),
}
STORAGE_KEYS = ["filesystem", "writable", "append_log", "slot_log", "fence", "folders", "attributes"]
FINDING_KEYS = ["check", "guarantee", "status", "needed", "detail", "advice"]
LOCAL = [
    *("reading", "writing", "put-if-absent", "folder-put-if-absent", "read-after-write", "replace-whole"),
    *("attributes", "locks-exclude", "locks-freed"),
]
CONDITIONS = ["create", "replace", "remove", "create-in-parts", "replace-in-parts"]
BUCKET = [
    *("reading", "writing", *(f"condition-{name}" for name in CONDITIONS)),
    *("put-if-absent", "compare-and-set", "read-after-write", "replace-whole", "attributes"),
]
FENCED = [
    *("reading", "writing", "put-if-absent", "folder-put-if-absent", "fence", "read-after-write"),
    *("replace-whole", "attributes"),
]

Doctor = Callable[..., subprocess.CompletedProcess[str]]


SHORT = """from metatree.doctor import races; races._LONGEST = 0.3
from metatree.cli import main; raise SystemExit(main())"""


def command(*arguments: object, short: bool = False) -> list[str]:
    program = ["-c", SHORT] if short else ["-m", "metatree.cli"]
    return [sys.executable, *program, "doctor", *(str(argument) for argument in arguments)]


@pytest.fixture
def doctor(tmp_path_factory: pytest.TempPathFactory) -> Doctor:
    """The command, with a cache of its own: what it learns must not decide another test. `short`: each race has the
    fewest rounds, where its length shows nothing that other tests of the storage do not."""
    cache = str(tmp_path_factory.mktemp("cache"))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error", "XDG_CACHE_HOME": cache}
    environment.pop("AWS_ENDPOINT_URL", None)

    def run(*arguments: object, short: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*arguments, short=short), capture_output=True, text=True, env=environment)

    return run


def options(server: Server) -> list[str]:
    return [part for key, value in server.options.items() for part in ("-o", f"{key}={value}")]


def everything(folder: Path) -> dict[str, tuple[bytes, float]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime)
        for path in folder.rglob("*")
    }


def checks(state: dict[str, Any], status: str = "") -> list[str]:
    return [found["check"] for found in state["findings"] if status in ("", found["status"])]


# --- local disks ------------------------------------------------------------------------------------------------------


def test_a_local_disk_is_fit_for_one_machine_and_is_left_as_it_was(tmp_path: Path, doctor: Doctor) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = everything(tmp_path)
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{tmp_path}: fit for writing, by any number of programs of one machine"
    assert "  holds    of several writers of one new name, exactly one wins" in lines
    assert "  holds    the lock of a killed process is free at once" in lines
    assert any(line.startswith("  round trips, ms: create ") for line in lines)
    assert any(line.startswith("  clock: the same as this machine's, within ") for line in lines)
    assert "FAILS" not in done.stdout and "unknown" not in done.stdout and "\x1b" not in done.stdout
    assert everything(tmp_path) == before


def test_the_json_is_pinned_by_its_keys(tmp_path: Path, doctor: Doctor) -> None:
    done = doctor(tmp_path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    state = json.loads(done.stdout)
    assert {key: type(value) for key, value in state.items()} == KEYS
    assert list(state) == list(KEYS) == list(failure("why", "Error"))
    assert list(state["storage"]) == STORAGE_KEYS
    assert {tuple(finding) for finding in state["findings"]} == {tuple(FINDING_KEYS)}
    assert list(state["round_trips_ms"]) == ["create", "read", "replace", "look", "list"]
    assert list(state["clock"]) == ["seconds", "uncertainty"]
    assert (state["format"], state["fit"], state["writable"], state["reason"]) == (1, "one machine", True, "")
    assert checks(state) == checks(state, "holds") == LOCAL
    assert (state["url"], state["examined"], state["leftover"]) == (str(tmp_path), str(tmp_path), "")


def test_a_folder_that_is_yet_to_be_made_is_examined_where_it_would_be(tmp_path: Path, doctor: Doctor) -> None:
    done = doctor(tmp_path / "not" / "yet")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{tmp_path}/not/yet: fit for writing")
    assert f"it does not exist yet; tested was {tmp_path}, in which it would be created" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_is_in_use_is_not_touched(tmp_path: Path, doctor: Doctor) -> None:
    root = tmp_path / "tree"
    with Metatree(str(root), ("model",)) as tree:
        tree.put("m", b"one", name="weights")
        before = everything(root)
        assert doctor(root).returncode == 0
        after = everything(root)
        assert after.keys() == before.keys()
        assert {name for name in after if after[name] != before[name]} == {".wal"}  # something came and went in it
        tree.update("m", still="fine")
        assert tree.check(deep=True).ok


def test_a_folder_that_an_examination_was_killed_in_is_still_free_for_a_tree(tmp_path: Path) -> None:
    left = tmp_path / ".metatree-probe-0123456789abcdef" / "absent"
    left.mkdir(parents=True)
    with Metatree(str(tmp_path), ("model",)) as tree:
        tree.put("m", b"one", name="weights")
        assert tree.check(deep=True).ok


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_examination_removes_what_it_wrote(tmp_path: Path, number: int, code: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    started = subprocess.Popen(
        command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    while not list(tmp_path.glob(".metatree-probe-*/absent")):
        assert started.poll() is None
        time.sleep(0.005)
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    assert started.returncode == code
    assert out == "" and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_it_says_what_it_is_doing_and_wipes_it_off(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # Linux says EIO when the other end is closed
        while data := os.read(ours, 4096):
            seen += data
    os.close(ours)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0
    assert b"trying: of several writers of one new name" in seen
    assert seen.endswith(b"\r\x1b[K")
    assert b"trying" not in out


def test_where_this_user_may_not_write_it_is_fit_for_reading(tmp_path: Path, doctor: Doctor) -> None:
    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
        done = doctor(tmp_path, "--json")
        tmp_path.chmod(0o755)
    else:  # root may write everywhere, but in the kernel's own folders
        done = doctor("/proc/sys/kernel", "--json")
    state = json.loads(done.stdout)
    assert (done.returncode, state["fit"], state["writable"]) == (1, "read only", False)
    assert state["reason"]


# --- other mounts -----------------------------------------------------------------------------------------------------


def mounted(kind: str, folder: Path) -> list[str]:
    """The command in a world of its own in which a filesystem of this kind is mounted on a folder."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem that is on no list of known ones")
    script = f'mount -t {kind} {kind} "$0" && exec "$@"'
    return ["unshare", "--mount", "bash", "-c", script, str(folder), *command(folder, "--json")]


def test_a_filesystem_that_is_not_known_is_tried_with_its_fence(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(mounted("ramfs", tmp_path), capture_output=True, text=True, env=environment)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    state = json.loads(done.stdout)
    assert (done.returncode, state["fit"]) == (0, "many hosts"), done.stdout
    assert state["storage"]["filesystem"] == "ramfs"
    assert checks(state) == FENCED
    assert set(FENCED) - set(checks(state, "holds")) <= {"attributes"}
    assert any("second host" in note for note in state["notes"])


# --- buckets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def careless(moto: Server) -> Iterator[Proxy]:
    """A server that does not look at signatures, so that conditions can be taken off its requests."""
    with proxied(moto) as proxy:
        yield proxy


@pytest.mark.slow
def test_a_bucket_that_keeps_its_word_is_fit_for_many_hosts(seaweedfs: Server, doctor: Doctor, tmp_path: Path) -> None:
    prefix = tmp_path.name
    done = doctor(f"s3://{seaweedfs.bucket}/{prefix}", "--json", *options(seaweedfs))
    state = json.loads(done.stdout)
    assert (done.returncode, done.stderr, state["fit"]) == (0, "", "many hosts"), done.stdout
    assert {key: type(value) for key, value in state.items()} == KEYS
    assert checks(state) == checks(state, "holds") == BUCKET
    assert any(".wal/" in note and "lifecycle" in note for note in state["notes"])
    client = seaweedfs.client()
    assert "Contents" not in client.list_objects_v2(Bucket=seaweedfs.bucket, Prefix=prefix)
    client.close()


@pytest.mark.slow
def test_moto_is_unfit_because_of_what_is_replaced_in_parts(moto: Server, doctor: Doctor, tmp_path: Path) -> None:
    done = doctor(f"s3://{moto.bucket}/{tmp_path.name}", *options(moto), short=True)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("NOT fit for writing; fit for reading: Metatree(..., read_only=True)")
    name = "the version of an object replaced in parts is honoured (CompleteMultipartUpload If-Match)"
    assert lines[1].startswith(f"  because: it does not hold that {name}")
    assert f"  FAILS    {name}" in lines
    assert "use a server that honours conditional requests" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "header", "failing"),
    [
        ("PUT", "if-none-match", "condition-create"),
        ("PUT", "if-match", "condition-replace"),
        ("DELETE", "if-match", "condition-remove"),
        ("POST", "if-none-match", "condition-create-in-parts"),
    ],
)
def test_a_server_that_ignores_a_condition_is_unfit_and_it_is_named(
    careless: Proxy, doctor: Doctor, tmp_path: Path, method: str, header: str, failing: str
) -> None:
    def plan(request: Request) -> str | None:
        return f"strip {header}" if request.method == method else None

    careless.plan = plan
    done = doctor(f"s3://{careless.server.bucket}/{tmp_path.name}", "--json", *options(careless.server), short=True)
    state = json.loads(done.stdout)
    assert (done.returncode, state["fit"]) == (1, "read only")
    assert checks(state, "fails") == [failing, "condition-replace-in-parts"]  # the second is moto as it is
    assert {"put-if-absent", "compare-and-set"}.isdisjoint(checks(state))  # a race would show nothing new
    assert all(found["advice"] for found in state["findings"] if found["status"] == "fails")


def test_wrong_credentials_are_told_and_no_secret_is_shown(seaweedfs: Server, doctor: Doctor) -> None:
    more = ["-o", f"endpoint_url={seaweedfs.endpoint}", "-o", f"key={seaweedfs.key}", "-o", "secret=hunter2-canary"]
    for form in ([], ["--json"]):
        done = doctor(f"s3://{seaweedfs.bucket}/x", *more, *form)
        assert done.returncode == 1
        assert "403" in done.stdout
        assert "hunter2" not in done.stdout + done.stderr
        assert "the key, the secret or what they permit is wrong: pass -o key=" in done.stdout
        assert "nothing can be done here" not in done.stdout
    assert json.loads(done.stdout)["fit"] == "none"


def test_a_missing_bucket_and_a_server_that_is_not_there_are_told_apart(moto: Server, doctor: Doctor) -> None:
    done = doctor("s3://no-such-bucket-here/x", *options(moto))
    assert done.returncode == 1 and "the bucket does not exist" in done.stdout
    assert "create the bucket, or correct its name in the URL" in done.stdout
    done = doctor("s3://bucket/x", "-o", "endpoint_url=http://127.0.0.1:9", "-o", "key=a", "-o", "secret=b")
    assert done.returncode == 1 and "the server does not answer: check its address and port" in done.stdout


# --- HDFS -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hdfs_is_fit_for_many_hosts_and_nothing_stays(hdfs: Hdfs, raw: Raw, doctor: Doctor) -> None:
    """In a folder that is yet to be made, found by host and port as options."""
    more = ["-o", f"host={hdfs.host}", "-o", f"port={hdfs.port}", "-o", "user=root"]
    done = doctor(f"webhdfs://{raw.root}/not/yet", "--json", *more, short=True)
    state = json.loads(done.stdout)
    assert (done.returncode, done.stderr, state["fit"]) == (0, "", "many hosts"), done.stdout
    assert {key: type(value) for key, value in state.items()} == KEYS
    assert checks(state) == checks(state, "holds") == FENCED
    assert any("300 bytes" in note for note in state["notes"])
    assert state["examined"] == f"webhdfs://{hdfs.host}:{hdfs.port}{raw.root}"
    assert raw.everything() == set()


# --- what cannot be examined ------------------------------------------------------------------------------------------


def test_any_other_filesystem_is_fit_for_reading(doctor: Doctor, tmp_path: Path) -> None:
    archive = tmp_path / "tree.zip"
    subprocess.run([sys.executable, "-m", "zipfile", "-c", str(archive), __file__], check=True)
    done = doctor(f"zip://::file://{archive}", "--json")
    state = json.loads(done.stdout)
    assert (done.returncode, state["fit"], state["storage"]["writable"]) == (1, "read only", False)
    assert "can only be read" in state["reason"]
    assert checks(state) == ["reading"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "Missing argument 'URL'"),
        ([""], 2, "is not a valid root: pass a path or URL"),  # what the library refuses, in its words
        (["~/x"], 2, "is not a valid root: only a shell expands '~'; pass"),
        (["local://~/x"], 2, "is not a valid root: only a shell expands '~'; pass"),
        (["s3:/bucket/x"], 2, "a URL has two slashes after its scheme"),
        (["s3://name:hunter2@bucket/x"], 2, "a s3:// root must not hold a password or secret"),
        ([__file__], 2, "Not a directory"),
        (["s3://"], 2, "s3://bucket/prefix is expected"),
        (["/tmp", "-o", "nothing"], 2, "key=value is expected"),
        (["/tmp", "-o", "client_kwargs={"], 2, "the value of client_kwargs is not valid JSON"),
        (["/tmp", "-o", "secret=hunter2"], 2, "a local root takes no storage options: secret"),
        (["s3://bucket/x", "-o", "sceret=hunter2"], 2, "sceret"),
        (["memory://nowhere"], 2, "no such folder"),
        (["nosuch://host/x"], 1, "nosuch"),
        (["webhdfs://127.0.0.1:1/x"], 1, "doctor: the connection was refused or lost (Connection refused)"),
    ],
)
def test_what_cannot_be_examined_is_told_in_one_line(
    doctor: Doctor, arguments: list[str], code: int, words: str
) -> None:
    done = doctor(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "hunter2" not in done.stderr


def test_the_reason_is_in_the_json_as_well(doctor: Doctor) -> None:
    done = doctor("nosuch://host/x", "--json")
    state = json.loads(done.stdout)
    assert done.returncode == 1
    assert list(state) == list(KEYS)
    assert (state["fit"], state["writable"], state["error"]) == ("none", False, "UnsupportedError")
    assert "nosuch" in state["reason"]


def test_help_tells_the_exit_codes(doctor: Doctor) -> None:
    done = doctor("--help")
    assert done.returncode == 0
    assert "Exit codes: 0 fit for writing, 1 not fit, 2 usage." in done.stdout
