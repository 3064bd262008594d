"""tools/dump_log.py: what is in the log, without touching it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import wal
from metatree import Metatree

TOOL = Path(__file__).resolve().parents[2] / "tools" / "dump_log.py"


def dump(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), str(root), *more], capture_output=True, text=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a log of three records."""
    log = wal.open_log(wal.open_storage(str(tmp_path)), create=True)
    for header in (b'{"who": "me"}', b"\xff\x00", b""):
        log.append(lambda head, mates, header=header: wal.Record(header, b"[1, 2]"))  # type: ignore[misc]
    log.close()
    return tmp_path


def test_each_record_is_a_line_with_its_header_in_json_or_hex(root: Path) -> None:
    done = dump(root, "--body", "--verify")
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["lsn"], line["index"], line["body_bytes"], line["body"]) for line in printed] == [
        (number, 0, 6, [1, 2]) for number in (1, 2, 3)
    ]
    assert [line["header"] for line in printed] == [{"who": "me"}, {"hex": "ff00"}, {"hex": ""}]


def test_an_abort_is_shown_with_the_ids_that_it_aborts(tmp_path: Path) -> None:
    with Metatree(tmp_path, ("model", "version")) as tree:
        tree._engine.committing.abort(["0-00112233445566aa"])
    headers = [json.loads(line)["header"] for line in dump(tmp_path).stdout.splitlines()]
    assert [(header["v"], header["aborts"]) for header in headers] == [(2, ["0-00112233445566aa"])]


def test_dumping_changes_no_byte(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    dump(root, "--after", "2")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_log_is_exit_2(tmp_path: Path) -> None:
    done = dump(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no log" in done.stderr
