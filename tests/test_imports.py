"""What an import costs: `import metatree` on a local disk must not pay for S3 or for a command line."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "s3fs",
    "fsspec",
    "aiobotocore",
    "aiohttp",
    "botocore",
    "requests",
    "click",
    "typer",
    "rich",
    "tqdm",
    "prompt_toolkit",
}


def imported_by(statement: str) -> set[str]:
    """The top-level modules that are loaded after `statement` in a new interpreter."""
    program = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout)
    return set(names)


@pytest.mark.parametrize("module", ["metatree", "metatreedb", "wal"])
def test_importing_loads_no_filesystem_and_no_command_line_library(module: str) -> None:
    assert imported_by(f"import {module}") & HEAVY == set()


def test_the_log_does_not_load_the_tree() -> None:
    assert "metatree" not in imported_by("import wal")


def test_both_published_imports_give_the_same_class() -> None:
    imported_by("import metatree, metatreedb; assert metatree.Metatree is metatreedb.Metatree")


def test_opening_a_local_root_loads_no_filesystem_library(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = str(tmp_path_factory.mktemp("tree") / "root")
    statement = f"from metatree import Metatree\nwith Metatree({root!r}, ('model',)) as t: t.put('m', b'x', name='f')"
    assert imported_by(statement) & HEAVY == set()


def test_opening_a_local_root_loads_nothing_that_a_bucket_or_an_operator_needs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = str(tmp_path_factory.mktemp("tree") / "root")
    others = ["wal.slot_log", "wal.storage.memory", "metatree.objects", "metatree.check", "metatree.repair_plan"]
    statement = f"from metatree import Metatree\nwith Metatree({root!r}, ('model',)) as t: t.put('m', b'x', name='f')"
    imported_by(f"{statement}\nimport sys; assert not sys.modules.keys() & {others}")


def test_a_commit_imports_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a child that is forked while another thread imports something, importing it would never end."""
    root = str(tmp_path_factory.mktemp("tree") / "root")
    opened = f"from metatree import Metatree\nt = Metatree({root!r}, ('model',))\n"
    committed = "t.put('m', b'x', name='f')\nt.put('m', b'x' * 100_000, name='g')\nt.update('m', a=1)\n"
    in_a_block = "with t.transaction('message', idempotency_key='k'): t.delete('m', recursive=True)\n"
    assert imported_by(opened) == imported_by(opened + committed + in_a_block)
