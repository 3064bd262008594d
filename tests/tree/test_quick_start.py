"""The published quick start, verbatim, and what it leaves behind, file by file."""

from __future__ import annotations

import inspect
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.tree.conftest import assert_clean

PUBLISHED_ROOT = "/tmp/my-model-repository"
QUICK_START = """
from metatree import Metatree

metatree = Metatree("/tmp/my-model-repository", ("model", "version"))

import uuid, pickle
from pathlib import Path
for i in range(1, 4):
    awful_uuid = uuid.uuid4()
    trained = Path("/tmp/my-model-repository/trained.pkl")      # yes: inside the root
    with open(trained, "wb") as f:
        pickle.dump(awful_uuid, f)
    metatree.put(f"my-awful-model/v{i}", trained)

metatree.find("my-awful-model")                                 # moves the tree's cursor ...
metatree.update(active="v2")                                    # ... and this updates where it stands
for i in range(1, 4):
    metatree.find(f"my-awful-model/v{i}").update(model_file="trained.pkl")

metatree.find("my-awful-model/<active>")
print(metatree.location)      # /tmp/my-model-repository/my-awful-model/v2   (no file:// prefix)
file = metatree.get("my-awful-model/<active>/<model_file>")     # a generator of bytes chunks
"""
IMPORTS = {
    "metatree": "from metatree import Metatree",
    "metatreedb": "from metatreedb import Metatree",
}


def run(root: Path, module: str) -> dict[str, Any]:
    """Run the quick start on `root`; the names it leaves."""
    code = QUICK_START.replace(IMPORTS["metatree"], IMPORTS[module]).replace(PUBLISHED_ROOT, str(root))
    assert code.count(str(root)) == 3
    names: dict[str, Any] = {}
    exec(compile(code, "quick start", "exec"), names)  # noqa: S102
    return names


def parsed(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", IMPORTS)
def test_the_quick_start_leaves_exactly_these_files(
    module: str, fast_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fast_path / "my-model-repository"
    names = run(root, module)
    assert capsys.readouterr().out == f"{root}/my-awful-model/v2\n"

    # as `cat` shows them while the program still runs, before close()
    assert parsed(root / "metadata.json") == {"children": ["my-awful-model"]}
    assert parsed(root / "my-awful-model/metadata.json") == {"children": ["v1", "v2", "v3"], "active": "v2"}
    for version in ("v1", "v2", "v3"):
        assert parsed(root / f"my-awful-model/{version}/metadata.json") == {"model_file": "trained.pkl"}
        assert sorted(p.name for p in (root / "my-awful-model" / version).iterdir()) == ["metadata.json", "trained.pkl"]
    assert {p.name for p in root.iterdir()} == {
        "metadata.json",
        ".metatree",
        ".lock",
        ".wal",
        "trained.pkl",
        "my-awful-model",
    }
    assert {p.name for p in (root / "my-awful-model").iterdir()} == {"metadata.json", "v1", "v2", "v3"}

    file = names["file"]
    assert inspect.isgenerator(file)
    chunks = list(file)
    assert all(type(chunk) is bytes for chunk in chunks)
    assert b"".join(chunks) == (root / "my-awful-model/v2/trained.pkl").read_bytes()
    names["metatree"].close()
    assert_clean(root)


def test_each_version_keeps_the_bytes_it_was_put_with_though_one_source_file_was_rewritten(fast_path: Path) -> None:
    root = fast_path / "my-model-repository"
    names = run(root, "metatree")
    versions = [pickle.loads((root / f"my-awful-model/v{i}/trained.pkl").read_bytes()) for i in range(1, 4)]
    assert len(set(versions)) == 3
    assert all(isinstance(version, uuid.UUID) for version in versions)
    # the last one is what the source still holds; it is another file, so rewriting the source touches no version
    assert versions[2] == names["awful_uuid"] == pickle.loads((root / "trained.pkl").read_bytes())
    assert (root / "trained.pkl").stat().st_ino != (root / "my-awful-model/v3/trained.pkl").stat().st_ino
    assert (root / "trained.pkl").stat().st_nlink == 1
    names["metatree"].close()
    assert_clean(root)


def test_after_the_quick_start_the_tree_opens_again_without_keys_and_shows_the_same(fast_path: Path) -> None:
    root = fast_path / "my-model-repository"
    names = run(root, "metatreedb")
    names["metatree"].close()
    again = names["Metatree"](str(root))
    assert again.keys == ("model", "version")
    assert again.children() == ["my-awful-model"]
    assert again.children("my-awful-model") == ["v1", "v2", "v3"]
    assert again.find("my-awful-model/<active>").path == "my-awful-model/v2"
    assert again.list("my-awful-model/v1") == ["trained.pkl"]
    assert dict(again.find("my-awful-model").metadata) == {"active": "v2"}
    again.close()
    assert_clean(root)


def test_both_imports_are_one_class() -> None:
    import metatree
    import metatreedb

    assert metatree.Metatree is metatreedb.Metatree
