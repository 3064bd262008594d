"""`metatree check`: verifies a tree, and reports what deviates, why, and what can be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from metatree import Finding, Report
from metatree.findings import EDIT_ADVICE, WORDS, Weight

from .ending import Code, ending
from .output import Line, Styled, tell
from .progress import Progress
from .trees import opened, tree_command

_COLOURS = {
    Weight.DAMAGE: "red",
    Weight.CANNOT_READ: "red",
    Weight.EDIT: "yellow",
    Weight.RECOVERY: "yellow",
    Weight.LEFTOVER: "cyan",
}
_ADVICE = {
    Weight.DAMAGE: "damage: `metatree repair {root}` says what it can rebuild and what it cannot",
    Weight.CANNOT_READ: "what cannot be read may or may not be damaged: run this as a user who may read it, or again "
    "when the storage answers",
    Weight.EDIT: EDIT_ADVICE,
    Weight.RECOVERY: "commits wait to be replayed: `metatree-recover {root}` does so and reports what it did",
    Weight.LEFTOVER: "leftovers are harmless",
}


@click.command(short_help="Verify a tree: log against folders, folders against log.")
@tree_command
@click.option("--deep", is_flag=True, help="Also read every blob and compare it with its digest.")
@click.pass_context
def check(context: click.Context, root: str, options: dict[str, Any], as_json: bool, deep: bool) -> None:
    """Verify the tree at ROOT: log against folders, and folders against log.

    It changes nothing, needs no write permission, and may run while the tree is in use. Each finding has a path, a
    reason, a stable kind, and what `metatree repair` could do about it.

    A blob is missing if a commit put it and none has removed it since. It cannot know so of blobs that metatreedb 0.2.3
    put, until a repair has adopted them.

    Exit codes: 0 clean, 1 something was changed by hand, 2 usage, or something could not be read, 6 damage, 7 commits
    wait for recovery.
    """
    with (
        ending(context, root, as_json=as_json),
        opened(root, options, read_only=True) as tree,
        Progress() as progress,
    ):
        report = tree.check(deep=deep, progress=telling(progress))
    code = code_of(report)
    if as_json:
        click.echo(json.dumps({"root": root, **report.as_dict(), "exit": int(code)}, indent=2))
    else:
        tell(*_text(root, report))
    context.exit(code)


def telling(progress: Progress) -> Any:
    """A callback for `check` that shows its progress as a bar."""
    return lambda report, done: progress(counted(report), done)


def counted(report: Report) -> str:
    """What was checked, for people."""
    read = f", {size(report.bytes)} read" if report.deep else ""
    return f"{report.nodes:,} nodes, {report.blobs:,} blobs{read}"


def size(count: float) -> str:
    """A number of bytes, for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:,.3g} TB"


def code_of(report: Report) -> Code:
    """The exit code of the worst finding."""
    if report.has(Weight.DAMAGE):
        return Code.CORRUPTION
    if report.has(Weight.CANNOT_READ):
        return Code.USAGE
    if report.has(Weight.RECOVERY):
        return Code.RECOVERY_NEEDED
    return Code.OK if report.clean else Code.DIFFERS


def line(finding: Finding, owner: str = "") -> Line:
    """A finding as a line for people."""
    word = Styled(f"{WORDS[finding.weight]:8}", _COLOURS[finding.weight])
    return "  ", word, f" {finding.path}: {finding.reason}{owner}"


def _owner(root: str, finding: Finding) -> str:
    """The owner of a file that cannot be read, if this machine knows it."""
    if finding.weight is not Weight.CANNOT_READ:
        return ""
    try:
        return f" (it belongs to {Path(root, finding.path).owner()})"
    except (OSError, KeyError):
        return ""


def _text(root: str, report: Report) -> list[Line]:
    verdict = Styled("clean", "green") if report.clean else Styled("deviates", "red")
    lines: list[Line] = [(f"{root}: ", verdict, f": {counted(report)}, log to {report.head}")]
    findings = sorted((*report.problems, *report.notes), key=lambda each: list(Weight).index(each.weight))
    lines += [line(finding, _owner(root, finding)) for finding in findings]
    lines += [_ADVICE[weight].format(root=root) for weight in Weight if report.has(weight)]
    return lines
