"""`metatree gc`: what dead writers have staged, and with --yes, removing it."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from metatree.gc import Collected

from .ending import Code, ending
from .output import Line, Styled, tell
from .trees import opened, tree_command

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Duration(click.ParamType[float]):
    """A duration such as 12h, 2d, 30m, 45s, converted to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
        if found is None:
            self.fail(f"{value!r} is not a duration, such as 12h, 2d or 30m", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


@click.command(short_help="Remove what dead writers have staged in a tree.")
@tree_command
@click.option(
    "--older-than", type=_Duration(), default="1d", show_default=True, help="Leave younger files: 30m, 12h, 2d."
)
@click.option("--yes", is_flag=True, help="Carry out the plan. Without it, the plan is printed and nothing is changed.")
@click.pass_context
def gc(context: click.Context, root: str, options: dict[str, Any], as_json: bool, older_than: float, yes: bool) -> None:
    """Remove what dead writers have staged in the tree at ROOT; without --yes, print the plan.

    Staged blobs of transactions that never committed are moved to .wal/quarantine/; in a bucket they are deleted. Each
    transaction is aborted first: if its writer is alive after all, its commit is refused as a conflict.

    Exit codes: 0 nothing (more) to remove, 1 there is something, 2 usage, 6 damage, 7 recovery needed.
    """
    with ending(context, root, as_json=as_json), opened(root, options, read_only=not yes) as tree:
        done = tree.gc(older_than=older_than, dry_run=not yes)
    code = Code.OK if done.done or done.clean else Code.DIFFERS
    if as_json:
        click.echo(json.dumps({"root": root, **done.as_dict(), "exit": int(code)}, indent=2))
    else:
        tell(*_text(root, done))
    context.exit(code)


def _text(root: str, done: Collected) -> list[Line]:
    lines: list[Line]
    if done.clean:
        lines = [(f"{root}: ", Styled("clean", "green"), ": nothing to remove")]
    else:
        lines = [f"{root}: {'removed' if done.done else 'plan, nothing is changed yet'}: {done.bytes} bytes"]
    lines += [f"  old       {name}" for name in (*done.old, *done.scratch)]
    lines += [f"  young     {name}: its writer may still be running" for name in done.young]
    lines += [f"  foreign   {name}: not the engine's, never touched" for name in done.foreign]
    lines += [f"  kept      {name}" for name in done.kept]
    lines += [f"  erased    {name}" for name in done.erased]
    return lines if done.done or done.clean else [*lines, "run it again with --yes to do this"]
