"""`metatree repair` with choices: what `--revert` brings back and leaves alone, what `--path` names, how it is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import wal
from metatree import InvalidLocationError, Metatree, folders
from metatree.cli.app import commands
from metatree.recover_command import main as metatree_recover

Run = Callable[..., tuple[int, str]]

OLD = Path(__file__).parents[1] / "tree/data/metatreedb-0.2.3"


@pytest.fixture
def run() -> Run:
    """The command in this process: (exit code, stdout and stderr)."""

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(commands, ["repair", *map(str, arguments)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


def plain(root: Path) -> dict[str, bytes]:
    """Every file but the engine's own."""
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.startswith((".wal", ".lock", ".metatree"))}


# --- what the engine did not put there --------------------------------------------------------------------------------


def copied(root: Path) -> Path:
    """As `cp -r` does, without attributes."""
    copy = root.with_name("copy")
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    for folder in filter(Path.is_dir, copy.rglob("*")):  # whose attributes are copied all the same
        for name in os.listxattr(folder):
            os.removexattr(folder, name)
    return copy


def adopted(root: Path) -> Path:
    """A tree of metatreedb 0.2.3 after its first opening."""
    old = root.with_name("old")
    shutil.copytree(OLD / "tree", old, copy_function=shutil.copyfile)
    Metatree(old).close()
    return old


@pytest.mark.parametrize("made, told", [(copied, "  cannot    m/v1/w: "), (adopted, "  left alone: ")])
def test_a_revert_leaves_every_blob_of_a_tree_without_marks(
    made: Callable[[Path], Path], told: str, root: Path, run: Run
) -> None:
    tree = made(root)
    before = plain(tree)
    code, out = run(tree, "--revert", "--yes", *(["--path", "m/v1/w"] if made is copied else []))
    assert code == 1 and told in out
    assert plain(tree) == before
    assert not (tree / ".wal/quarantine/repaired").exists()
    assert run(tree, "--adopt", "--yes")[0] == 0
    assert plain(tree) == before


def test_a_copy_without_attributes_is_repaired_by_adopting_all_of_it(root: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/inner/x").write_text("x")
    with Metatree(root) as tree:
        tree.put("m", tmp_path / "folder", name="data", recursive=True)
    tree = Metatree(copied(root))
    found = {each.path: each.kind for each in tree.check().notes}
    assert found["m/data/inner/x"] == "blob-replaced" and "m/data" not in found
    before = plain(Path(tree.root))
    tree.close()
    code, out = run(tree.root, "--revert", "--path", "m/data", "--yes")  # it is no stray folder
    assert code == 1 and "  cannot    m/data/inner/x: " in out
    assert run(tree.root, "--adopt", "--yes")[0] == 0
    assert plain(Path(tree.root)) == before
    with Metatree(tree.root) as tree:
        assert tree.check(deep=True).clean and tree.list("m") == ["data"]


def test_a_revert_leaves_foreign_files_and_folders_and_says_so(root: Path, run: Run) -> None:
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main")
    (root / ".DS_Store").write_bytes(b"\0")
    (root / "m/v1/notes.txt").write_text("mine")
    before = plain(root)
    told = (
        "  left alone: 2 files and 1 folder that the engine did not put here; --adopt adopts the files, "
        "--revert --path NAME sets one aside"
    )
    code, out = run(root, "--revert")
    assert code == 1 and told in out.splitlines()
    assert "run it again with --yes" not in out
    code, out = run(root, "--revert", "--yes")
    assert code == 1 and told in out.splitlines()
    assert out.splitlines()[-4] == "what remains:"
    assert plain(root) == before
    assert {step["action"] for step in json.loads(run(root, "--revert", "--json")[1])["steps"]} == {"leave"}


def test_a_revert_sets_aside_what_is_named_and_not_what_is_below_it(root: Path, run: Run) -> None:
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main")
    (root / "m/v1/notes.txt").write_text("mine")
    assert run(root, "--revert", "--yes", "--path", "m/v1")[0] == 1
    assert (root / "m/v1/notes.txt").exists()
    code, out = run(root, "--revert", "--yes", "--path", ".git/", "--path", "m/v1/notes.txt")
    assert code == 0 and "  kept      .wal/quarantine/repaired/3/.git" in out.splitlines()
    assert (root / ".wal/quarantine/repaired/3/m/v1/notes.txt").read_text() == "mine"
    assert not (root / ".git").exists()


def test_a_plan_tells_that_a_revert_leaves_what_is_not_named(root: Path, run: Run) -> None:
    (root / "m/v1/notes.txt").write_text("mine")
    assert "            --revert: left alone, unless --path names it" in run(root)[1].splitlines()
    assert "            --revert: goes to .wal/quarantine" in run(root, "--path", "m/v1/notes.txt")[1].splitlines()


# --- names that no commit may have ------------------------------------------------------------------------------------


def children(root: Path, path: str = "m") -> list[str]:
    with Metatree(root, read_only=True) as tree:
        return tree.children(path)


def steps(out: str) -> dict[str, tuple[str, str]]:
    return {step["path"]: (step["action"], step["detail"]) for step in json.loads(out)["steps"]}


@pytest.mark.parametrize("edit", [False, True])
def test_a_node_whose_folder_got_a_name_that_no_node_can_have_is_not_adopted(edit: bool, root: Path, run: Run) -> None:
    (root / "m/v1").rename(root / "m/v1.tmp")
    if edit:
        (root / "m/metadata.json").write_bytes(b'{"children": ["v1", "v2"], "by hand": 1}')
    action, why = steps(run(root, "--adopt", "--json")[1])["m/v1.tmp"]
    assert action == "cannot" and why.startswith("rename it: 'v1.tmp' cannot be a segment of a location")
    assert run(root, "--adopt", "--yes")[0] == 6
    with Metatree(root) as tree:
        assert tree.children("m") == ["v1", "v2"]
        tree.update("m", owner="ann")
    (root / "m/v1.tmp").rename(root / "m/v1")
    with Metatree(root) as tree:
        assert tree.check(deep=True).clean and tree.find("m").metadata["owner"] == "ann"


def test_a_list_with_such_a_name_is_put_right_by_adopting_it(root: Path, run: Run) -> None:
    """As earlier versions left it."""
    (root / "m/v1").rename(root / "m/v1.tmp")
    storage = wal.LocalStorage(str(root))
    data = folders.render({}, ["v2", "v1.tmp"])
    storage.publish("m/metadata.json", data, folders.Attribute(1, folders.digest(data)).encode(), durable=True)
    storage.close()
    with Metatree(root) as tree:
        with pytest.raises(InvalidLocationError, match=r"v1\.tmp"):
            tree.update("m", owner="ann")
        tree.put("m/v2", b"important", name="f")
    (root / "m/v1.tmp").rename(root / "m/v1")
    (root / "m/metadata.json").write_bytes(b'{"children": ["v1", "v2"]}')
    assert run(root, "--adopt", "--yes")[0] == 0
    assert children(root) == ["v1", "v2"]


def test_a_foreign_file_is_adopted_if_its_whole_name_can_be_a_blobs(root: Path, run: Run) -> None:
    names = ["src/ok", "src/metadata.json", "src/.lock", "src/bad:dir/ok", "src/sub/x.tmp", ".lock"]
    for name in names:
        (root / "m/v1" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "m/v1" / name).write_text(name)
    found = steps(run(root, "--adopt", "--json")[1])
    assert [found[f"m/v1/{name}"][0] for name in names] == ["adopt"] * 3 + ["cannot"] * 3
    assert found["m/v1/src/bad:dir/ok"][1].startswith("rename it: 'bad:dir' cannot be a segment")
    code, out = run(root, "--adopt", "--yes", "--json")
    assert code == 1 and json.loads(out)["failed"] == {}
    assert steps(run(root, "--adopt", "--json")[1]).keys() == {f"m/v1/{name}" for name in names[3:]}
    with Metatree(root) as tree:
        assert b"".join(tree.get("m/v1/src/metadata.json")) == b"src/metadata.json"
        tree.put("m/v3", b"important", name="f")


@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_node_that_is_missing_stays_in_the_list_that_is_adopted(checkpointed: bool, root: Path, run: Run) -> None:
    with Metatree(root) as tree:
        tree.update("m", owner="bob")
        if checkpointed:
            tree.checkpoint()
        tree.flush()
        (root / "m/v1").rename(root.parent / "elsewhere")
        (root / "m/metadata.json").write_bytes(b'{"children": ["v1", "v2", "v9"], "owner": "ann"}')
        tree.repair(edits="adopt", paths=["m/metadata.json"])
        assert tree.children("m") == ["v1", "v2"] and tree.find("m").metadata["owner"] == "ann"
        assert [each.path for each in tree.check().problems] == ["m/v1/metadata.json"]
        (root.parent / "elsewhere").rename(root / "m/v1")
    assert run(root) == (0, f"{root}: clean: nothing to repair\n")


def test_adopting_a_node_gives_up_none_of_those_beside_it(root: Path, run: Run) -> None:
    (root / "m/metadata.json").write_bytes(b'{"children": ["v1"]}')
    (root / "m/v1").rename(root.parent / "elsewhere")
    assert run(root, "--adopt", "--yes")[0] == 6
    assert children(root) == ["v1", "v2"]
    (root.parent / "elsewhere").rename(root / "m/v1")
    assert run(root) == (0, f"{root}: clean: nothing to repair\n")


def test_a_node_of_a_tree_of_an_earlier_version_stays_in_the_list_too(root: Path, run: Run) -> None:
    old = adopted(root)
    with Metatree(old) as tree:
        tree.update((), owner="us")  # the file is the engine's from now on, so that a change of it is an edit
    listed = json.loads((old / "metadata.json").read_bytes())
    gone = listed["children"][0]
    (old / gone).rename(root.parent / "elsewhere")
    (old / "metadata.json").write_text(json.dumps({**listed, "by hand": 1}))
    run(old, "--adopt", "--yes")
    with Metatree(old) as tree:
        assert tree.find(()).metadata["by hand"] == 1 and tree.children(()) == listed["children"]


@pytest.mark.parametrize("listed", [None, ["v1", "v2", "V1"], ["V1", "v2"], []])
def test_a_copy_of_a_node_whose_name_differs_only_in_case_is_not_adopted(
    listed: list[str] | None, root: Path, run: Run
) -> None:
    subprocess.run(["cp", "-a", root / "m/v1", root / "m/V1"], check=True)
    if listed is not None:
        (root / "m/metadata.json").write_text(json.dumps({"children": listed, "by hand": 1}))
    assert run(root, "--adopt", "--yes")[0] == 1
    assert sorted(children(root)) == ["v1", "v2"]
    assert steps(run(root, "--adopt", "--json")[1])["m/V1"][0] == "cannot"
    (root / "m/V1").rename(root / "m/v3")
    assert run(root, "--adopt", "--yes")[0] == 0
    assert sorted(children(root)) == ["v1", "v2", "v3"]


def test_a_node_whose_folder_was_renamed_in_case_alone_is_not_adopted_beside_it(root: Path, run: Run) -> None:
    (root / "m/v1").rename(root / "m/V1")
    assert "differs from it only in case" in steps(run(root, "--adopt", "--json")[1])["m/V1"][1]
    assert run(root, "--adopt", "--yes")[0] == 6
    assert children(root) == ["v1", "v2"]


@pytest.mark.parametrize("twins", [("W",), ("d/a", "d/A"), ("d/sub/a", "d/SUB/b"), ("d/a", "D/b")])
def test_foreign_files_whose_names_differ_only_in_case_are_not_adopted(
    twins: tuple[str, ...], root: Path, run: Run
) -> None:
    for name in (*twins, "d/other"):
        (root / "m/v1" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "m/v1" / name).write_text(name)
    found = steps(run(root, "--adopt", "--json")[1])
    assert [found[f"m/v1/{name}"][0] for name in twins] == ["cannot"] * len(twins)
    assert found["m/v1/d/other"][0] == ("adopt" if "D/b" not in twins else "cannot")


# --- what is named ----------------------------------------------------------------------------------------------------


@pytest.fixture
def edited(root: Path) -> Path:
    """With a file of somebody's in m/v1 and in m/v2."""
    for version in ("v1", "v2"):
        (root / "m" / version / "notes.txt").write_text("mine")
    return root


def planned(out: str) -> list[str]:
    return [step["path"] for step in json.loads(out)["steps"]]


@pytest.mark.parametrize(
    ("at", "typed"),
    [
        ("{root}", "m/v1/notes.txt"),
        ("{root}", "./m/v1//notes.txt"),
        ("{root}", "m/v2/../v1/notes.txt"),
        ("{root}", "{root}/m/v1/notes.txt"),
        ("{root}/", "{root}/m/v1/"),
        ("file://{root}", "{root}/m/v1/notes.txt"),
        ("file://{root}", "file://{root}/m/v1/notes.txt"),
        ("tree", "tree/m/v1/notes.txt"),
        ("./tree/", "tree/m/v1"),
        ("tree", "./tree/m/v1/notes.txt"),
        ("tree", "{root}/m/v1/notes.txt"),
        ("link", "{root}/m/v1/notes.txt"),
        ("link", "link/m/v1/notes.txt"),
        ("../here/tree", "../here/tree/m/v1"),
    ],
)
def test_a_path_is_understood_as_people_type_it(
    at: str, typed: str, edited: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = edited.parent / "here"
    here.mkdir()
    (here / "link").symlink_to(edited.rename(here / "tree"))
    monkeypatch.chdir(here)
    root = str(here / "tree")
    code, out = run(at.format(root=root), "--json", "--path", typed.format(root=root))
    assert (code, planned(out)) == (1, ["m/v1/notes.txt"])


@pytest.mark.parametrize("typed", [".", "{root}", "{root}/", "tree"])
def test_the_root_may_be_named(typed: str, edited: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(edited.parent)
    code, out = run("tree", "--json", "--path", typed.format(root=edited))
    assert (code, planned(out)) == (1, ["m/v1/notes.txt", "m/v2/notes.txt"])


def test_a_node_that_is_called_as_the_root_is_meant_by_its_name(
    edited: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (edited.parent / "m").symlink_to(edited)
    monkeypatch.chdir(edited.parent)
    assert planned(run("m", "--json", "--path", "m/v1")[1]) == ["m/v1/notes.txt"]


@pytest.mark.parametrize("typed", ["m/v9", "m/v1/note", "/m/v3/x", "../m", "m/v1/notes.txt/below"])
def test_a_path_at_which_nothing_is_found_is_wrong_usage(typed: str, edited: Path, run: Run) -> None:
    before = plain(edited)
    for more in (("--adopt", "--yes"), ("--path", "m/v1"), ()):
        code, out = run(edited, "--path", typed, *more)
        assert code == 2 and typed.removeprefix("/") in out and "2 other findings" in out
        assert "clean" not in out
    assert plain(edited) == before
    code, out = run(edited, "--path", typed, "--json")
    assert code == 2 and '"error": "InvalidLocationError"' in out


def test_a_changed_blob_that_is_named_without_deep_is_wrong_usage_and_says_so(edited: Path, run: Run) -> None:
    (edited / "m/v2/w").write_bytes(b"rotten!")
    code, out = run(edited, "--path", "m/v2/w", "--adopt")
    assert code == 2 and "deep" in out
    assert run(edited, "--path", "m/v2/w", "--adopt", "--deep")[0] == 6


def test_a_path_of_a_clean_tree_is_clean(root: Path, run: Run) -> None:
    assert run(root, "--path", "m/v1", "--adopt", "--yes") == (0, f"{root}: clean: nothing to repair\n")


def test_what_the_recovery_has_mended_may_be_named(edited: Path, run: Run) -> None:
    program = "import os, sys\nfrom metatree import Metatree\ntree = Metatree(sys.argv[1])\n"
    program += "tree.put('m/v3', b'three', name='w')\nos._exit(0)"
    subprocess.run([sys.executable, "-c", program, str(edited)], check=True)
    shutil.rmtree(edited / "m/v3")
    code, out = run(edited, "--path", "m/v3", "--yes")
    assert code == 1 and out.startswith(f"{edited}: repaired\n")
    assert (edited / "m/v3/w").read_bytes() == b"three"


# --- how it is told ---------------------------------------------------------------------------------------------------


def test_to_adopt_and_to_revert_exclude_each_other(edited: Path, run: Run) -> None:
    before = plain(edited)
    for choices in (("--adopt", "--revert"), ("--revert", "--adopt")):
        code, out = run(edited, *choices, "--yes")
        assert code == 2 and "--adopt" in out and "--revert" in out
    assert plain(edited) == before


def test_the_first_line_says_what_was_done(edited: Path, run: Run) -> None:
    assert run(edited, "--yes")[1].splitlines()[0] == f"{edited}: nothing repaired: 2 need a choice"
    assert run(edited, "--yes", "--revert")[1].splitlines()[0] == f"{edited}: nothing repaired: 2 are left alone"
    (edited / "m/v1/metadata.json").unlink()
    named = ("--path", "m/v2", "--path", "m/v1/metadata.json")
    first = f"{edited}: nothing repaired: 1 needs a choice, 1 cannot be repaired"
    assert run(edited, "--yes", *named)[1].splitlines()[0] == first
    first = f"{edited}: 1 repaired; 1 cannot be repaired"
    assert run(edited, "--yes", "--adopt", *named)[1].splitlines()[0] == first


def test_what_cannot_be_repaired_is_told_with_one_advice_and_check_names_no_remedy(root: Path, run: Run) -> None:
    (root / "m/v1/metadata.json").write_bytes(b'{"cut')
    out = run(root)[1]
    assert "  cannot    m/v1/metadata.json: " in out
    assert "repair() cannot" not in out and out.count("backup") == 1
    with Metatree(root) as tree:
        tree.put("m/v3", b"three", name="w")
        tree.flush()
        (root / "m/v3/metadata.json").unlink()
        found = json.loads(CliRunner().invoke(commands, ["check", str(root), "--json"]).stdout)["problems"]
        remedies = {each["path"]: each["remedies"] for each in found}
        assert remedies == {"m/v1/metadata.json": [], "m/v3/metadata.json": ["rebuild"]}
        assert tree.repair(paths=["m/v3"]).steps[0].action == "rebuild"


def test_who_has_not_chosen_yet_can_still_revert(root: Path, run: Run) -> None:
    with Metatree(root) as tree:
        tree.put("m/v3", b"three", name="w")
        tree.flush()
        edited = root / "m/v3/metadata.json"
        edited.write_bytes(b'{"by hand": 1}')
        assert run(root, "--yes")[0] == 1
        assert edited.read_bytes() == b'{"by hand": 1}'
        assert run(root, "--revert", "--yes")[0] == 0
        assert json.loads(edited.read_bytes()) == {}


def test_what_another_step_has_mended_is_not_counted_among_what_cannot_be_repaired(root: Path, run: Run) -> None:
    (root / "m/metadata.json").write_bytes(b'{"children": ["v1", "v2", "v9"]}')
    assert "  cannot    m/v9/metadata.json: " in run(root, "--adopt")[1]
    code, out = run(root, "--adopt", "--yes")
    assert code == 0 and out.splitlines()[0] == f"{root}: repaired"
    assert "cannot" not in out


def test_what_was_not_adopted_for_the_sake_of_a_lost_blob_is_told_with_the_loss(root: Path, run: Run) -> None:
    (root / "m/v1/w").unlink()
    (root / "m/v1/w").mkdir()
    (root / "m/v1/w/notes").write_text("mine")
    for more in ((), ("--yes",), ("--yes", "--path", "m/v1")):
        code, out = run(root, "--adopt", *more)
        assert code == 6
        assert "  cannot    m/v1/w: " in out and "  cannot    m/v1/w/notes: " in out
        assert "            m/v1/w is lost, and this stands in its place: move it away first\n" in out


def test_a_file_that_cannot_be_read_has_a_way_out_that_is_no_circle(
    root: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "m/v1/metadata.json").write_bytes(b'{"cut')
    assert metatree_recover([str(root)]) == 1
    code, repaired = run(root)
    assert code == 6
    for out in (capsys.readouterr().out, repaired):
        assert "delete('m/v1', recursive=True)" in out
        assert "run metatree-recover" not in out and "`metatree repair`" not in out
    with Metatree(root) as tree:
        tree.delete("m/v1", recursive=True)
    assert run(root) == (0, f"{root}: clean: nothing to repair\n")
    assert metatree_recover([str(root)]) == 0
    kept = {file.name: file.read_bytes() for file in (root / ".wal/quarantine").rglob("*") if file.is_file()}
    assert kept == {"metadata.json": b'{"cut', "w": b"weights"}
