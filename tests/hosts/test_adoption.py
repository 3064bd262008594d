"""Trees of metatreedb 0.2.3 in a bucket, on HDFS and on a mount are taken over as those on a disk are."""

from __future__ import annotations

import json

import pytest

from metatree import MetatreeError
from tests.hosts.conftest import LEVELS, Shared
from tests.tree.test_create_and_adopt import OLD


@pytest.fixture
def old(there: Shared) -> dict[str, bytes]:
    """What the real 0.2.3 wrote, copied there file by file."""
    tree = OLD / "tree"
    content = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    for name, data in content.items():
        there.plain.write(name, data)
    return content


def test_a_tree_of_0_2_3_is_adopted_and_changed_like_any_other(there: Shared, old: dict[str, bytes]) -> None:
    with there.open() as tree:
        assert tree.keys == LEVELS
        assert tree.children() == json.loads(old["metadata.json"])["children"]
        order = json.loads(old["fraud/metadata.json"])["children"]
        assert tree.children("fraud") == order
        assert dict(tree.find("fraud/v1").metadata) == {"auc": "0.93", "file": "weights.bin"}
        assert b"".join(tree.get("fraud/<active>/<file>")) == b"fraud v2" * 3
        assert {name: there.plain.read(name) for name in old if name != ".metatree"} == {
            name: data for name, data in old.items() if name != ".metatree"
        }
        config = json.loads(there.plain.read(".metatree"))
        assert config["skip_init"] is True and config["log"] == "slots" and config["adopted"] is True
        assert b"Do not remove it" in there.plain.read(".lock")

        tree.update("fraud/v1", auc=0.94)
        tree.put("fraud/v4", b"new", name="weights.bin")
        tree.put("fraud/v1", b"again", name="weights.bin", force=True)
        tree.delete("churn/v2", recursive=True)
        tree.move("churn/v1", "churn/v9")
        report = tree.check(deep=True)
        assert report.ok, report
    assert there.metadata("fraud")["children"] == [*order, "v4"]
    assert there.metadata("fraud/v1") == {"auc": 0.94, "file": "weights.bin"}
    assert there.plain.read("fraud/v1/weights.bin") == b"again"
    assert there.plain.read("churn/v9/weights.bin") == b"churn v1" * 3
    assert not any(name.startswith(("churn/v1/", "churn/v2/")) for name in there.files())
    there.assert_clean()


def test_adoption_is_refused_while_a_client_of_0_2_3_writes_or_died(there: Shared, old: dict[str, bytes]) -> None:
    there.plain.write(".lock", b"0")
    with pytest.raises(MetatreeError, match=r"0\.2\.3.*remove the file"):
        there.open()
    assert {name: there.plain.read(name) for name in there.plain.everything()} == {**old, ".lock": b"0"}
