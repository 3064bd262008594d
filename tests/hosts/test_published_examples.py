"""The published examples for S3 and WebHDFS, verbatim but for host, port and names; and what they leave, file by file.

The files are read without the library: by signed GETs of botocore, and by plain HTTP from WebHDFS.
"""

from __future__ import annotations

import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Shared
from tests.tree.test_quick_start import IMPORTS, PUBLISHED_ROOT, QUICK_START

LOCAL = 'Metatree("/tmp/my-model-repository", ("model", "version"))'
S3 = (
    'Metatree("s3://bucket/tmp/my-model-repository", ("model","version"), '
    'endpoint_url="http://localhost:9000", key="KEY", secret="SECRET")'
)
HDFS = 'Metatree("webhdfs:///tmp/my-model-repository", ("model","version"), host="localhost", port=9870, user="hadoop")'


def published(there: Shared, sources: Path, module: str) -> str:
    """The example as it is published, with this server and place, and the sources in a folder of this test."""
    root, options = there.place.root, there.place.options
    if there.kind == "seaweedfs":
        opening = S3.replace("s3://bucket/tmp/my-model-repository", root)
        opening = opening.replace("http://localhost:9000", options["endpoint_url"])
        opening = opening.replace('"KEY"', repr(options["key"])).replace('"SECRET"', repr(options["secret"]))
    else:
        opening = HDFS.replace("webhdfs:///tmp/my-model-repository", root)
        opening = opening.replace('"localhost"', repr(options["host"])).replace("9870", str(options["port"]))
    code = QUICK_START.replace(LOCAL, opening).replace(IMPORTS["metatree"], IMPORTS[module])
    assert code.count(PUBLISHED_ROOT) == 2, "the sources, and the comment on what is printed"
    return code.replace(f'"{PUBLISHED_ROOT}/trained.pkl"', f'"{sources}/trained.pkl"')


@pytest.mark.parametrize("module", IMPORTS)
def test_the_published_example_leaves_exactly_these_files(
    module: str, remote: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec(compile(published(remote, tmp_path, module), "example", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out == f"{remote.place.root}/my-awful-model/v2\n"

    # while the program still runs
    assert remote.metadata() == {"children": ["my-awful-model"]}
    assert remote.metadata("my-awful-model") == {"children": ["v1", "v2", "v3"], "active": "v2"}
    assert list(remote.metadata("my-awful-model")) == ["children", "active"]
    for version in ("v1", "v2", "v3"):
        assert remote.metadata(f"my-awful-model/{version}") == {"model_file": "trained.pkl"}
    versions = {f"my-awful-model/v{i}/{name}" for i in (1, 2, 3) for name in ("metadata.json", "trained.pkl")}
    assert remote.files() == {"metadata.json", "my-awful-model/metadata.json", *versions}

    contents = [remote.plain.read(f"my-awful-model/v{i}/trained.pkl") for i in (1, 2, 3)]
    assert len({pickle.loads(content) for content in contents}) == 3
    assert pickle.loads(contents[2]) == names["awful_uuid"]
    assert isinstance(names["awful_uuid"], uuid.UUID)
    assert b"".join(names["file"]) == contents[1]
    names["metatree"].close()
    remote.assert_clean()


def test_what_the_example_left_opens_again_without_keys_and_shows_the_same(
    remote: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec(compile(published(remote, tmp_path, "metatreedb"), "example", "exec"), names)  # noqa: S102
    names["metatree"].close()
    for read_only in (True, False):
        with remote.open(read_only=read_only) as again:
            assert again.keys == ("model", "version")
            assert again.children("my-awful-model") == ["v1", "v2", "v3"]
            assert again.find("my-awful-model/<active>").path == "my-awful-model/v2"
            assert again.list("my-awful-model/v1") == ["trained.pkl"]
            assert dict(again.find("my-awful-model").metadata) == {"active": "v2"}
    assert "v2" in capsys.readouterr().out


def test_no_secret_is_kept_anywhere_in_the_tree(remote: Shared, tmp_path: Path) -> None:
    exec(compile(published(remote, tmp_path, "metatree"), "example", "exec"), {})  # noqa: S102
    secret = str(remote.place.options.get("secret", "no such secret")).encode()
    for name in remote.plain.everything():
        assert secret not in remote.plain.read(name)
    assert json.loads(remote.plain.read(".metatree"))["log"] == "slots"
