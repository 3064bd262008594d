"""tools/ingest.py as its users start it: a process with a tree, a manifest and an exit status."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from metatree import Metatree, NodeNotFoundError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "ingest.py"
KEYS = ("model", "version")
Row = dict[str, Any]


def command(root: Path, manifest: Path, *more: str) -> list[str]:
    return [sys.executable, str(TOOL), str(root), str(manifest), "--keys", ",".join(KEYS), "--json", *more]


def ingest(root: Path, manifest: Path, *more: str, status: int = 0) -> Row:
    """Run the tool to its end; its summary."""
    done = subprocess.run(command(root, manifest, *more), capture_output=True, text=True)
    assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout or status == 2, done.stderr  # a traceback is exit 1 as well
    summary: Row = json.loads(done.stdout) if done.stdout else {}
    return summary


def counts(summary: Row) -> tuple[int, int, int]:
    return summary["added"], summary["already_there"], summary["rejected"]


def rejects(manifest: Path) -> list[Row]:
    file = manifest.with_name(manifest.name + ".rejects.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def opened(root: Path) -> Iterator[Metatree]:
    """The tree; at the end, every invariant is verified."""
    with Metatree(str(root)) as tree:
        yield tree
        report = tree.check()
        assert report.ok, str(report)


def blob(tree: Metatree, location: str) -> bytes:
    return b"".join(tree.get(location))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three small blobs a, b, c, and a FIFO."""
    for name in "abc":
        (tmp_path / f"{name}.bin").write_bytes(f"content of {name}".encode())
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def write_rows(folder: Path, *rows: Row | str) -> Path:
    """A JSON Lines manifest; strings are lines as they are."""
    manifest = folder / "manifest.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def test_rows_become_blobs_and_their_other_columns_metadata_with_its_types(folder: Path) -> None:
    values: Row = {"auc": 0.93, "n": 3, "flag": True, "none": None, "list": [1, "x"], "nested": {"a": 1}, "t": "7"}
    manifest = write_rows(
        folder,
        {"location": "m/v1", "source": "a.bin", **values},
        {"location": ["m", "v2"], "source": str(folder / "b.bin"), "name": "weights"},
        {"location": {"model": "n", "version": {"value": "v1"}}, "source": (folder / "c.bin").as_uri()},
    )
    assert counts(ingest(folder / "tree", manifest)) == (3, 0, 0)
    with opened(folder / "tree") as tree:
        assert dict(tree.find("m/v1").metadata) == values
        assert blob(tree, "m/v1/a.bin") == b"content of a"
        assert blob(tree, "m/v2/weights") == b"content of b"
        assert blob(tree, "n/v1/c.bin") == b"content of c"
    assert rejects(manifest) == []


def test_a_source_above_the_read_limit_is_streamed_and_equal(folder: Path) -> None:
    content = os.urandom(3_000_001)
    (folder / "big.bin").write_bytes(content)
    manifest = write_rows(folder, {"location": "m/v1", "source": "big.bin", "name": "w"})
    assert ingest(folder / "tree", manifest)["bytes"] == len(content)
    with opened(folder / "tree") as tree:
        assert blob(tree, "m/v1/w") == content


BAD_ROWS: dict[str, tuple[Row | str, str]] = {
    "no JSON": ('{"location": "m/v9", ', "JSONDecodeError"),
    "no object": ("[1, 2]", "RowError"),
    "NaN": ('{"location": "m/v9", "source": "a.bin", "x": NaN}', "RowError"),
    "duplicate key": ('{"location": "m/v9", "source": "a.bin", "x": 1, "x": 2}', "RowError"),
    "no location": ({"source": "a.bin"}, "RowError"),
    "location is a number": ({"location": 5, "source": "a.bin"}, "RowError"),
    "no source": ({"location": "m/v9"}, "RowError"),
    "source is a number": ({"location": "m/v9", "source": 5}, "RowError"),
    "source is missing": ({"location": "m/v9", "source": "nowhere.bin"}, "FileNotFoundError"),
    "source is a folder": ({"location": "m/v9", "source": "."}, "IsADirectoryError"),
    "source is a FIFO": ({"location": "m/v9", "source": "fifo"}, "OSError"),
    "source of an unknown protocol": ({"location": "m/v9", "source": "nope://x/y"}, "ValueError"),
    "location leads out": ({"location": "../v9", "source": "a.bin"}, "InvalidLocationError"),
    "location too deep": ({"location": "m/v9/x/y", "source": "a.bin"}, "InvalidLocationError"),
    "name is reserved": ({"location": "m/v9", "source": "a.bin", "name": "metadata.json"}, "InvalidLocationError"),
    "children is not for callers": ({"location": "m/v9", "source": "a.bin", "children": []}, "InvalidMetadataError"),
    "integer beyond 64 bits": ({"location": "m/v9", "source": "a.bin", "x": 2**80}, "InvalidMetadataError"),
    "blob twice": ({"location": "m/v1", "source": "b.bin", "name": "a.bin"}, "BlobExistsError"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_rejected_with_its_reason_and_stops_nobody(folder: Path, case: str) -> None:
    bad, error = BAD_ROWS[case]
    manifest = write_rows(
        folder, {"location": "m/v1", "source": "a.bin", "x": 1}, bad, {"location": "m/v2", "source": "c.bin", "x": 2}
    )
    assert counts(ingest(folder / "tree", manifest, status=1)) == (2, 0, 1)
    (reject,) = rejects(manifest)
    assert (reject["line"], reject["row"]) == (2, bad)
    assert reject["error"] == error
    assert reject["reason"]
    with opened(folder / "tree") as tree:
        assert [tree.find(f"m/v{n}").metadata["x"] for n in (1, 2)] == [1, 2]
        assert blob(tree, "m/v1/a.bin") == b"content of a"
        with pytest.raises(NodeNotFoundError):
            tree.find("m/v9")


def test_a_second_run_adds_nothing_and_keeps_the_rejects(folder: Path) -> None:
    good = [{"location": f"m/v{n}", "source": "a.bin"} for n in range(20)]
    manifest = write_rows(folder, *good[:7], "no json", *good[7:], {"location": "m/v3", "source": "a.bin"})
    assert counts(ingest(folder / "tree", manifest, "--batch", "4", status=1)) == (20, 0, 2)
    before = rejects(manifest)
    with opened(folder / "tree") as tree:
        lsn = tree.lsn
    assert counts(ingest(folder / "tree", manifest, "--batch", "4", status=1)) == (0, 20, 2)
    assert rejects(manifest) == before
    with opened(folder / "tree") as tree:
        assert tree.lsn == lsn


def test_another_manifest_for_the_same_tree_is_another_load(folder: Path) -> None:
    first = write_rows(folder, {"location": "m/v1", "source": "a.bin"}, {"location": "m/v1", "source": "a.bin"})
    assert counts(ingest(folder / "tree", first, status=1)) == (1, 0, 1)
    second = write_rows(folder, {"location": "m/v2", "source": "a.bin"})
    assert counts(ingest(folder / "tree", second)) == (1, 0, 0)
    assert rejects(second) == []


def write_csv(folder: Path, *rows: tuple[str, ...]) -> Path:
    manifest = folder / "manifest.csv"
    with open(manifest, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    return manifest


HEADER = ("location", "source", "auc", "note", "flag")


def test_csv_cells_are_strings_and_empty_ones_set_nothing(folder: Path) -> None:
    manifest = write_csv(folder, HEADER, ("m/v1", "a.bin", "0.93", 'two\nlines, "quoted"', ""))
    ingest(folder / "tree", manifest)
    with opened(folder / "tree") as tree:
        assert dict(tree.find("m/v1").metadata) == {"auc": "0.93", "note": 'two\nlines, "quoted"'}


def test_csv_cells_become_numbers_and_booleans_with_types(folder: Path) -> None:
    manifest = write_csv(folder, HEADER, ("7/8", "a.bin", "0.93", "007", "true"), ("7/9", "a.bin", "12", "NaN", "null"))
    ingest(folder / "tree", manifest, "--types")
    with opened(folder / "tree") as tree:
        assert dict(tree.find("7/8").metadata) == {"auc": 0.93, "note": "007", "flag": True}
        assert dict(tree.find("7/9").metadata) == {"auc": 12, "note": "NaN", "flag": "null"}


def test_csv_rows_of_another_length_or_encoding_are_rejected(folder: Path) -> None:
    manifest = write_csv(folder, HEADER[:2], ("m/v1", "a.bin"), ("m/v2",), ("m/v3", "a.bin"))
    with open(manifest, "ab") as file:
        file.write(b"m/v4,\xff.bin\r\n")
    assert counts(ingest(folder / "tree", manifest, status=1)) == (2, 0, 2)
    assert [reject["line"] for reject in rejects(manifest)] == [3, 5]


def test_columns_may_have_other_names(folder: Path) -> None:
    manifest = write_csv(folder, ("where", "file", "as", "name"), ("m/v1", "a.bin", "w", "Ada"))
    columns = ("--location-column", "where", "--source-column", "file", "--name-column", "as")
    ingest(folder / "tree", manifest, *columns)
    with opened(folder / "tree") as tree:
        assert dict(tree.find("m/v1").metadata) == {"name": "Ada"}
        assert blob(tree, "m/v1/w") == b"content of a"


@pytest.mark.parametrize(
    ("more", "header"), [(("--batch", "0"), HEADER), (("--no-such",), HEADER), ((), ("location", "x"))]
)
def test_wrong_usage_is_exit_2_and_touches_no_tree(folder: Path, more: tuple[str, ...], header: Any) -> None:
    manifest = write_csv(folder, header)
    ingest(folder / "tree", manifest, *more, status=2)
    if more:
        assert not (folder / "tree").exists()


def test_a_missing_manifest_is_exit_2(folder: Path) -> None:
    ingest(folder / "tree", folder / "none.jsonl", status=2)
    assert not (folder / "tree").exists()


# --- stopped half way -------------------------------------------------------------------------------------------------


def make_manifest(folder: Path, models: int, versions: int) -> Path:
    program = Path(__file__).with_name("make_manifest.py")
    subprocess.run([sys.executable, str(program), str(folder), str(models), str(versions)], check=True)
    return folder / "manifest.jsonl"


def wait_for_nodes(process: subprocess.Popen[str], root: Path, nodes: int) -> None:
    """Until the root has `nodes` folders: somewhere in the middle of the load."""
    while process.poll() is None:
        if root.is_dir() and sum(entry.name.startswith("model-") for entry in os.scandir(root)) >= nodes:
            return
        sleep(0.01)
    raise AssertionError(f"the load did not reach its middle: {process.communicate()}")


def start(root: Path, manifest: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(root, manifest, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_tree_equals(root: Path, manifest: Path) -> int:
    """Every row of the manifest is in the tree, with its content and its metadata, and nothing else is."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    with opened(root) as tree:
        nodes = [f"{model}/{version}" for model in tree.children() for version in tree.children(model)]
        assert sorted(nodes) == sorted(row["location"] for row in rows)
        for row in rows:
            node = tree.find(row["location"])
            expected = (manifest.parent / row["source"]).read_bytes()
            assert blob(tree, f"{row['location']}/{row['name']}") == expected
            assert dict(node.metadata) == {k: v for k, v in row.items() if k not in ("location", "source", "name")}
    return len(rows)


def test_a_load_of_10000_blobs_killed_half_way_and_run_again_equals_its_manifest(tmp_path: Path) -> None:
    manifest, root = make_manifest(tmp_path / "data", 100, 100), tmp_path / "tree"
    with start(root, manifest) as process:
        wait_for_nodes(process, root, 40)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    resumed = ingest(root, manifest)
    assert resumed["added"] > 0
    assert resumed["already_there"] > 0
    assert counts(resumed) == (resumed["added"], 10_000 - resumed["added"], 0)
    assert assert_tree_equals(root, manifest) == 10_000
    assert counts(ingest(root, manifest)) == (0, 10_000, 0)


def test_a_signal_lets_the_batch_finish_and_the_next_run_continues(tmp_path: Path) -> None:
    manifest, root = make_manifest(tmp_path / "data", 60, 20), tmp_path / "tree"
    with start(root, manifest, "--batch", "10") as process:
        wait_for_nodes(process, root, 5)
        process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "again to continue" in messages
    stopped = json.loads(output)
    assert 0 < stopped["added"] < 1200
    assert counts(ingest(root, manifest, "--batch", "10")) == (1200 - stopped["added"], stopped["added"], 0)
    assert_tree_equals(root, manifest)


# --- rejected rows, once more -----------------------------------------------------------------------------------------


def test_rejected_rows_are_loaded_by_a_retry_once_their_cause_is_mended(folder: Path) -> None:
    manifest = write_rows(
        folder,
        {"location": "m/v1", "source": "a.bin"},
        {"location": "m/v2", "source": "late.bin", "auc": 0.9},
        {"location": "m/v3", "source": "never.bin"},
        "no json",
    )
    assert counts(ingest(folder / "tree", manifest, status=1)) == (1, 0, 3)
    assert counts(ingest(folder / "tree", manifest, "--retry-rejects", status=1)) == (0, 0, 3)
    (folder / "late.bin").write_bytes(b"late")
    assert counts(ingest(folder / "tree", manifest, "--retry-rejects", status=1)) == (1, 0, 2)
    left = rejects(manifest)
    assert [(row["line"], row["tries"]) for row in left] == [(3, 3), (4, 3)]
    assert counts(ingest(folder / "tree", manifest, status=1)) == (0, 2, 2)  # the first load knows what is left
    assert rejects(manifest) == left
    with opened(folder / "tree") as tree:
        assert blob(tree, "m/v2/late.bin") == b"late" and tree.find("m/v2").metadata["auc"] == 0.9

    file = manifest.with_name("manifest.jsonl.rejects.jsonl")
    left[0]["row"]["source"] = "b.bin"
    left[1]["row"] = {"location": "m/v4", "source": "c.bin"}
    file.write_text("".join(json.dumps(row) + "\n" for row in left))
    assert counts(ingest(folder / "tree", manifest, "--retry-rejects")) == (2, 0, 0)
    assert not file.exists() and not list(folder.glob("*part"))
    assert counts(ingest(folder / "tree", manifest)) == (0, 4, 0)
    with opened(folder / "tree") as tree:
        assert blob(tree, "m/v3/b.bin") == b"content of b" and blob(tree, "m/v4/c.bin") == b"content of c"


def test_a_retry_of_csv_rows_takes_them_as_they_were_typed(folder: Path) -> None:
    manifest = write_csv(folder, HEADER, ("m/v1", "late.bin", "0.5", "007", "true"), ("m/v2", "a.bin", "1", "", ""))
    assert counts(ingest(folder / "tree", manifest, "--types", status=1)) == (1, 0, 1)
    (folder / "late.bin").write_bytes(b"late")
    assert counts(ingest(folder / "tree", manifest, "--types", "--retry-rejects")) == (1, 0, 0)
    with opened(folder / "tree") as tree:
        assert dict(tree.find("m/v1").metadata) == {"auc": 0.5, "note": "007", "flag": True}


def test_a_retry_that_was_killed_goes_on_and_adds_nothing_twice(folder: Path) -> None:
    rows = [{"location": f"model-{n}/v1", "source": f"late{n}.bin"} for n in range(200)]
    manifest, root = write_rows(folder, *rows), folder / "tree"
    assert counts(ingest(root, manifest, "--batch", "1", status=1)) == (0, 0, 200)
    for n in range(200):
        if n % 10:
            (folder / f"late{n}.bin").write_bytes(b"late")
    with start(root, manifest, "--batch", "1", "--retry-rejects") as process:
        wait_for_nodes(process, root, 50)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(rejects(manifest)) == 200
    resumed = ingest(root, manifest, "--batch", "1", "--retry-rejects", status=1)
    assert resumed["already_there"] >= 50 - 10 and resumed["added"] > 0
    assert counts(resumed) == (resumed["added"], 180 - resumed["added"], 20)
    assert [row["line"] for row in rejects(manifest)] == [n + 1 for n in range(0, 200, 10)]
    with opened(root) as tree:
        assert len(tree.children("")) == 180


def failing(folder: Path, *arguments: str) -> str:
    """What a wrong call says: exit 2, and no traceback."""
    done = subprocess.run([sys.executable, str(TOOL), *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_every_wrong_call_says_what_is_wrong_and_makes_nothing(folder: Path) -> None:
    write_rows(folder, {"location": "m/v1", "source": "a.bin"})
    (folder / "full").mkdir()
    (folder / "full/x").touch()
    calls = {
        ("new", "manifest.jsonl"): "--keys model,version",
        ("full", "manifest.jsonl", "--keys", "a"): "neither a tree nor empty",
        ("a.bin", "manifest.jsonl", "--keys", "a"): "is not a folder",
        ("nosuch://bucket/x", "manifest.jsonl", "--keys", "a"): "nosuch://",
        ("new", "manifest.jsonl", "--keys", "a,,b"): "empty",
        ("new", ".", "--keys", "a"): "no manifest",
        ("new", "manifest.jsonl", "--keys", "a", "--rejects", "none/r.jsonl"): "no folder none",
        ("new", "manifest.jsonl", "--keys", "a", "--rejects", "manifest.jsonl"): "a name of its own",
        ("new", "manifest.jsonl", "--keys", "a", "--rejects", "full"): "a name of its own",
        ("new", "manifest.jsonl", "--keys", "a", "--retry-rejects"): "nothing to retry",
        ("new", "manifest.jsonl", "--keys", "a", "--retry-rejects", "--rejects", "manifest.jsonl"): "a name of its own",
        ("new", "manifest.jsonl", "--keys", "a", "--retry-rejects", "--rejects", "a.bin"): "line 1",
    }
    for arguments, expected in calls.items():
        assert expected in failing(folder, *arguments), arguments
    assert not (folder / "new/m").exists()


def test_a_retry_waits_for_the_end_of_the_load(folder: Path) -> None:
    manifest = write_rows(folder, {"location": "m/v1", "source": "late.bin"})
    ingest(folder / "tree", manifest, status=1)
    part = manifest.with_name("manifest.jsonl.rejects.jsonl.part")
    part.touch()
    assert "Let it end" in failing(folder, "tree", "manifest.jsonl", "--retry-rejects")
    part.unlink()
    (folder / "late.bin").write_bytes(b"late")
    assert counts(ingest(folder / "tree", manifest, "--retry-rejects")) == (1, 0, 0)


def test_rows_that_another_load_brought_are_explained(folder: Path) -> None:
    manifest = write_rows(folder, {"location": "m/v1", "source": "a.bin"})
    ingest(folder / "tree", manifest)
    done = subprocess.run(command(folder / "tree", manifest, "--batch", "7"), capture_output=True, text=True)
    assert done.returncode == 1 and "another --batch" in done.stderr and "--retry-rejects" in done.stderr


def test_rows_that_were_rejected_for_something_else_are_not_explained_by_another_load(folder: Path) -> None:
    manifest = write_rows(folder, {"location": "m/v1", "source": "late.bin"})
    done = subprocess.run(command(folder / "tree", manifest), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("1 row was rejected; ")
    assert "another --batch" not in done.stderr and "--retry-rejects" in done.stderr


def test_a_load_that_could_not_begin_leaves_nothing_and_stops_no_retry(folder: Path) -> None:
    manifest = write_rows(folder, {"location": "m/v1", "source": "a.bin"}, {"location": "m/v2", "source": "late.bin"})
    no_keys = [sys.executable, str(TOOL), str(folder / "tree"), str(manifest)]
    assert subprocess.run(no_keys, capture_output=True).returncode == 2
    assert not list(folder.glob("*.part"))
    ingest(folder / "tree", manifest, status=1)
    left = rejects(manifest)
    other_keys = [*no_keys, "--keys", "a,b"]
    assert subprocess.run(other_keys, capture_output=True).returncode == 2
    assert not list(folder.glob("*.part")) and rejects(manifest) == left
    (folder / "late.bin").write_bytes(b"late")
    assert counts(ingest(folder / "tree", manifest, "--retry-rejects")) == (1, 0, 0)
