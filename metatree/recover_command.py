"""The command `metatree-recover`: needs only argparse and the engine, so that it runs without click.

Exit codes: 0 clean or recovered, 1 damage remains, 2 wrong usage, a server that cannot be reached, a tree of a newer
version, or files that this user may not read or write: whether there is damage is unknown. What was changed by hand is
told, but is neither damage nor a recovery's business: it changes no exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import wal

from . import Metatree, __version__
from .errors import ApplyPendingWarning, CorruptionError, MetatreeError, UnavailableError, shortage
from .findings import EDIT_ADVICE, REBUILD, RECOVER, WORDS, Report, Weight
from .look import is_refusal
from .options import parse_options
from .printing import shown, with_stdout
from .recovery import Recovered

_REFUSED = (Weight.CANNOT_READ, Weight.RECOVERY)
_ADVICE = {
    1: "damage remains: restore what is named above from a backup, or see what `metatree repair {root}` says of it, "
    "then run this again",
    2: "not all could be read or written: run this again as a user who may, or when the storage answers",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return with_stdout("metatree-recover", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        options = parse_options(arguments.option)
    except ValueError as error:
        parser.error(f"-o: {error}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplyPendingWarning)  # the report says the same
            done, report = _recover(arguments.root, options, dry_run=arguments.dry_run)
    except (MetatreeError, OSError, TypeError) as error:
        return _fail(arguments.root, error, as_json=arguments.json)
    code = _code(done, report)
    if arguments.json:
        findings = report.as_dict()["problems"]
        found = {**done.as_dict(), "clean": done.clean and not code and not findings, "damage": findings}
        state = {"root": arguments.root, "dry_run": arguments.dry_run, **found}
        print(json.dumps(state, indent=2))
    else:
        print("\n".join(map(shown, _text(arguments.root, done, report, dry_run=arguments.dry_run))))
    return code


def _code(done: Recovered, report: Report) -> int:
    """The exit code. A refused access is not damage, but then not everything was done."""
    problems = report.problems
    refused = {finding.path for finding in problems if finding.weight in _REFUSED}
    failed = [path for path, error in done.errors.items() if not is_refusal(error)]
    damaged = report.has(Weight.DAMAGE)
    if damaged or any((path or ".") not in refused for path in failed):
        return 1
    return 2 if refused or done.errors else 0


def _advice(root: str, code: int, done: Recovered, report: Report) -> list[str]:
    """What to do."""
    short = next(filter(None, map(shortage, done.errors.values())), "") if code == 2 else ""
    advice = [f"{short}, then run this again" if short else _ADVICE[code].format(root=root)] if code else []
    if any(finding.weight is Weight.EDIT for finding in report.problems):
        advice.append(EDIT_ADVICE.format(root=root))
    return advice


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metatree-recover",
        allow_abbrev=False,  # a new option must not make an abbreviation in a script ambiguous
        description="Replay a tree's log after a crash and report what was done. Deletes nothing: what it sets aside "
        "goes to .wal/quarantine/. Running it again is harmless and says 'clean'. A tree of metatreedb 0.2.3 is not "
        "adopted.",
        epilog="exit codes: 0 clean or recovered, 1 damage remains, 2 usage, or not all can be read or written",
    )
    parser.add_argument("root", metavar="ROOT", help="the tree: a folder or URL")
    parser.add_argument("--version", action="version", version=f"%(prog)s, version {__version__}")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-o", dest="option", action="append", default=[], metavar="KEY=VALUE", help="storage option")
    return parser


def _recover(root: str, options: dict[str, Any], *, dry_run: bool) -> tuple[Recovered, Report]:
    with Metatree(root, read_only=True, storage_options=options) as tree:
        plan = tree.recover(dry_run=True)
        if dry_run:
            return plan, _remaining(plan, tree.check())
    tree = Metatree(root, storage_options=options)
    try:
        done = tree.recover()
        return done, tree.check()
    finally:
        with suppress(UnavailableError):  # the report says what could not be brought up to date
            tree.close()


def _remaining(plan: Recovered, found: Report) -> Report:
    """What a check found, but for what the replay that is planned would repair."""
    repaired = {RECOVER, REBUILD} if plan.records else {RECOVER}
    return replace(found, problems=[each for each in found.problems if not repaired.intersection(each.remedies)])


def _fail(root: str, error: Exception, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"root": root, "error": type(error).__name__, "message": str(error)}, indent=2))
    print(shown(f"metatree-recover: {root or repr(root)}: {type(error).__name__}: {error}"), file=sys.stderr)
    return 1 if isinstance(error, CorruptionError) or isinstance(error.__cause__, wal.UnsafePathError) else 2


def _text(root: str, done: Recovered, report: Report, *, dry_run: bool) -> list[str]:
    verb = "would be" if dry_run else "were"
    lines = [f"{root}: log after {done.redo} up to {done.head}"]
    code = _code(done, report)
    problems = report.problems
    if done.clean:
        lines.append(("" if code or problems else "clean: ") + "nothing to replay, nothing to set aside")
    else:
        lines += [
            f"  {done.records} transactions {verb} replayed",
            f"  {done.nodes} metadata.json files and {done.blobs} blobs {verb} rewritten, {done.removed} removed",
        ]
    if dry_run and done.records:
        lines.append("  (if no program has the tree open now: a living writer needs no replay)")
    if done.adopted:
        lines.append(
            f"  {done.adopted} of the log's batches were complete but not acknowledged; they are committed now"
        )
    if done.tail_bytes:
        place = ", ".join(done.tail_files) or "quarantine"
        lines.append(f"  {done.tail_bytes} bytes of torn tail {verb} moved to {place}")
    for what, names in (("staged blobs", done.staged), ("unfinished files", done.scratch)):
        lines += [f"  {what} {verb} set aside: {name}" for name in names]
    lines += [f"  edited by hand, kept as {name}" for name in done.edited]
    lines += [f"  NOT brought up to date: {path or 'the root'}: {why}" for path, why in done.failed.items()]
    for finding in problems:
        if finding.kind != "cannot-write" or finding.path not in {path or "." for path in done.failed}:
            lines.append(f"  {WORDS[finding.weight]}: {finding.path}: {finding.reason}")
    return [*lines, *_advice(root, code, done, report)]


if __name__ == "__main__":
    sys.exit(main())
