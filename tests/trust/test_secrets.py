"""What nobody may find: storage options in what is stored, said or logged; and code that would run what it reads."""

from __future__ import annotations

import ast
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metatree import Metatree, MetatreeError
from tests.tree.model import BIG, LEVELS
from tests.tree.storages import CACHE, trust

if TYPE_CHECKING:
    from serve_s3 import Server

ROOT = Path(__file__).parents[2]
CANARY = "canary-31c9e07a"
RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "torch",
}
CALLS = {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("package", ["metatree", "wal"])
def test_nothing_that_is_read_is_ever_run(package: str) -> None:
    """Trees can be pickled by whoever holds one; the packages themselves load no pickle, and nothing like it."""
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in CALLS, f"{file}:{node.lineno}"
                continue
            else:
                continue
            assert not names & RUNS_WHAT_IT_READS, f"{file}:{node.lineno}"


def test_a_secret_of_the_storage_is_in_nothing_that_is_stored_said_or_logged(
    moto: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    options = {"endpoint_url": moto.endpoint, "key": moto.key, "secret": CANARY}
    trust(moto)
    caplog.set_level(logging.DEBUG)
    said = []
    url = f"s3://{moto.bucket}/secrets"
    with Metatree(url, LEVELS, **options) as tree:
        with tree.transaction("a message"):
            tree.put("m/v1", b"small", name="b")
            tree.put("m/v1", BIG, name="big")
        tree.update("m", n=1)
        said += [repr(tree), str(tree), repr(tree.find("m")), str(tree.check(deep=True)), str(tree.root)]
        calls: list[Callable[[], object]] = [
            lambda: tree.find("none").metadata,
            lambda: b"".join(tree.get("m/v1/none")),
            lambda: tree.put("m/../x", b"", name="b"),
        ]
        said += [_chain(call) for call in calls]
        tree.checkpoint()
    wrong = {**options, "endpoint_url": "http://127.0.0.1:9", "max_attempts": 1}
    said += [
        _chain(lambda: Metatree(f"s3://no-such-bucket-{CANARY[-4:]}/x", **options)),
        _chain(lambda: Metatree(url, **{**options, "secrte": CANARY})),
        _chain(lambda: Metatree(url, client_kwargs={"nonsense": 1}, **wrong)),
    ]
    for text in said:
        assert CANARY not in text
    assert not [record for record in caplog.records if CANARY in f"{record.getMessage()} {record.args!r}"]
    client = moto.client()
    names = [key["Key"] for key in client.list_objects_v2(Bucket=moto.bucket, Prefix="secrets/")["Contents"]]
    assert len(names) > 5
    for name in names:
        answer = client.get_object(Bucket=moto.bucket, Key=name)
        assert CANARY.encode() not in answer["Body"].read(), name
        assert CANARY not in repr(answer["Metadata"]), name
    client.close()
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert CANARY.encode() not in file.read_bytes(), file


def _chain(call: Callable[[], object]) -> str:
    """What a person sees of an error: the whole chain, as the interpreter prints it."""
    with pytest.raises((MetatreeError, TypeError, OSError)) as caught:
        call()
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value.args)
