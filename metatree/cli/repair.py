"""`metatree repair`: prints a plan for each deviation; with --yes, carries it out."""

from __future__ import annotations

import json
from typing import Any

import click

from metatree import Finding, Repaired, Report, Step
from metatree.findings import ADOPT, REBUILD, RECOVER, REVERT
from metatree.repair_plan import CANNOT, CHOOSE, DOING, LEAVE

from .check import code_of, line
from .ending import Code, ending
from .output import Line, Styled, tell
from .progress import Progress
from .trees import below, opened, tree_command

_REPLAYED = frozenset({REBUILD, RECOVER, REVERT})  # what a recovery does
_COLOURS = {**dict.fromkeys(DOING, "green"), CHOOSE: "yellow"}


@click.command(short_help="Repair what `metatree check` finds.")
@tree_command
@click.option("--adopt", is_flag=True, help="Commit what was changed by hand.")
@click.option(
    "--revert",
    is_flag=True,
    help="Undo what was changed by hand, as far as the log holds the old content; a copy is kept.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    help="Only this file or folder, as named by check, and what is below it. May be repeated.",
)
@click.option("--deep", is_flag=True, help="Also read every blob and compare it with its digest.")
@click.option("--yes", is_flag=True, help="Carry out the plan. Without it, the plan is printed and nothing is changed.")
@click.pass_context
def repair(
    context: click.Context,
    root: str,
    options: dict[str, Any],
    as_json: bool,
    adopt: bool,
    revert: bool,
    paths: tuple[str, ...],
    deep: bool,
    yes: bool,
) -> None:
    """Repair what `metatree check` finds in the tree at ROOT; without --yes, print the plan.

    What the log since the last checkpoint holds is rewritten. What was changed by hand is left alone without --adopt or
    --revert. Files and folders that the engine did not write are left alone by --revert too, unless --path names each
    itself. A changed blob is adopted, and a missing one that the log does not hold is given up, only if --path names it
    or a folder above it. What cannot be repaired is named. Nothing is deleted: what must make room is moved to
    .wal/quarantine/. A second run says "clean" if nothing was left alone. What was changed by hand can be reverted
    until a checkpoint is made, as when a program closes the tree.

    Exit codes, of the plan as for `metatree check`, or with --yes of what remains: 0 clean, 1 something was changed by
    hand, 2 usage, or something could not be read, 4 conflict with another commit (run it again), 6 damage, 7 commits
    wait for recovery.
    """
    if adopt and revert:
        raise click.UsageError("--adopt and --revert exclude each other: run it once for each, with --path")
    edits = ADOPT if adopt else REVERT if revert else None
    with ending(context, root, as_json=as_json), Progress() as progress:
        progress("checking the tree")
        done, code = _repair(root, options, edits, paths, deep=deep, yes=yes)
    if as_json:
        click.echo(json.dumps({"root": root, **done.as_dict(), "exit": int(code)}, indent=2))
    else:
        tell(*_text(root, done))
    context.exit(code)


def _repair(
    root: str, options: dict[str, Any], edits: str | None, paths: tuple[str, ...], *, deep: bool, yes: bool
) -> tuple[Repaired, Code]:
    with opened(root, options, read_only=True) as tree:
        paths = tuple(below(tree, root, path) for path in paths)
        plan = tree.repair(edits=edits, paths=paths, deep=deep, dry_run=True)
        idle = not any(step.action in DOING for step in plan.steps)
        if yes and idle and plan.steps:
            plan.done, plan.remains = True, tree.check(deep=deep)
    if idle or not yes:
        # Not opened for writing: the checkpoint at its end would take from the log what an edit can be reverted to.
        return plan, _code(plan)
    with opened(root, options, read_only=False) as tree:
        done = tree.repair(edits=edits, paths=paths, deep=deep)
    # What the recovery on opening has carried out, if this was the first opener of a local tree, is not found again.
    known = _paths(done)
    done.steps += [step for step in plan.steps if step.action in _REPLAYED and step.path not in known]
    return done, _code(done)


def _code(done: Repaired) -> Code:
    if done.remains is None:
        return _worst(done.steps)
    code = code_of(done.remains)
    return Code.CORRUPTION if done.failed and code == Code.OK else code


def _worst(steps: list[Step]) -> Code:
    """The exit code of a plan: that of a check with the same findings."""
    return code_of(Report(problems=[Finding(step.path, step.reason, step.kind) for step in steps]))


def _text(root: str, done: Repaired) -> list[Line]:
    if not done.steps and done.clean:
        return [(f"{root}: ", Styled("clean", "green"), ": nothing to repair")]
    told, known = _told(done), _paths(done)
    lines: list[Line] = [f"{root}: {_headline(done, told)}"]
    for step in told:
        if step.action == LEAVE:
            continue
        word = f"FAILED {step.action}" if step.path in done.failed else step.action
        colour = "red" if step.path in done.failed else _COLOURS.get(step.action, "red")
        lines.append(("  ", Styled(f"{word:9}", colour), f" {step.path}: {step.reason}"))
        lines += [f"            {text}" for text in (done.failed.get(step.path) or step.detail).split("; ") if text]
    lines += _left(done)
    lines += [f"  FAILED    {path}: {why}" for path, why in done.failed.items() if path not in known]
    if done.lsn is not None:
        lines.append(f"  adopted by commit {done.lsn}")
    lines += [f"  kept      {name}" for name in done.kept]
    return lines + _ending(root, done)


def _headline(done: Repaired, told: list[Step]) -> str:
    if not done.done:
        return "plan, nothing is changed yet"
    actions = [step.action for step in told if step.path not in done.failed]
    mended = sum(action in DOING for action in actions)
    counts = (
        (len(done.failed), "failed", "failed"),
        (actions.count(CHOOSE), "needs a choice", "need a choice"),
        (actions.count(CANNOT), "cannot be repaired", "cannot be repaired"),
        (actions.count(LEAVE), "is left alone", "are left alone"),
    )
    rest = ", ".join(f"{count} {one if count == 1 else several}" for count, one, several in counts if count)
    if not mended and rest:
        return f"nothing repaired: {rest}"
    return f"{mended} repaired; {rest}" if rest else "repaired"


def _told(done: Repaired) -> list[Step]:
    """The steps, but for those that could not be carried out and came right by another one, as by that of a parent."""
    if done.remains is None:
        return done.steps
    remaining = {(each.path, each.kind) for each in (*done.remains.problems, *done.remains.notes)}
    return [step for step in done.steps if step.action != CANNOT or (step.path, step.kind) in remaining]


def _left(done: Repaired) -> list[Line]:
    """What is left alone, in one line: in a tree without the engine's attributes it is every blob."""
    folders = sum(step.action == LEAVE and step.kind == "folder-extra" for step in done.steps)
    files = sum(step.action == LEAVE for step in done.steps) - folders
    counts = [f"{count} {word}{'s' * (count > 1)}" for count, word in ((files, "file"), (folders, "folder")) if count]
    if not counts:
        return []
    adopting = "--adopt adopts the files, " if files else ""
    told = f"{' and '.join(counts)} that the engine did not put here; {adopting}--revert --path NAME sets one aside"
    return [("  ", Styled("left alone", "yellow"), f": {told}")]


def _paths(done: Repaired) -> set[str]:
    return {step.path for step in done.steps}


def _ending(root: str, done: Repaired) -> list[Line]:
    if done.remains is not None:
        if done.clean:
            return [(Styled("clean", "green"), ": nothing deviates any more")]
        left = [*done.remains.problems, *done.remains.notes]
        if not left:
            return ["nothing deviates any more; what was not done is named above"]
        return ["what remains:", *(line(finding) for finding in left)]
    actions = {step.action for step in done.steps}
    lines: list[Line] = []
    if actions & DOING:
        lines.append("run it again with --yes to do this")
    if CHOOSE in actions:
        lines.append(
            "changed by hand: add --adopt or --revert (and --path, for some of them); otherwise they stay as they are"
        )
    if CANNOT in actions:
        lines.append("what cannot be repaired stays as it is")
    return lines
