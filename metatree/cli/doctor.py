"""`metatree doctor`: whether a storage is fit for a tree, and if not, why."""

from __future__ import annotations

import json
from typing import Any

import click

import wal
from metatree.doctor import Fit, Report, Status, examine, failure

from .output import Line, Styled, complain, tell
from .progress import Progress
from .storage_options import storage_options

_FIT = {
    Fit.MANY_HOSTS: "fit for writing, by any number of programs on any number of hosts",
    Fit.ONE_MACHINE: "fit for writing, by any number of programs of one machine",
    Fit.READ_ONLY: "NOT fit for writing; fit for reading: Metatree(..., read_only=True)",
    Fit.NONE: "NOT fit for use",
}
_STATUS = {
    Status.HOLDS: ("holds", "green"),
    Status.FAILS: ("FAILS", "red"),
    Status.UNKNOWN: ("unknown", "yellow"),
}


@click.command(short_help="Test whether a storage is fit for a tree.")
@click.argument("url")
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; its keys are always the same.")
@click.pass_context
def doctor(context: click.Context, url: str, options: dict[str, Any], as_json: bool) -> None:
    """Test whether the storage at URL gives the guarantees that a tree needs.

    URL is a path, s3://bucket/prefix, webhdfs://host:port/path, or any other that fsspec knows. No tree is needed
    there. Several processes write to a temporary folder, which is removed afterwards, and touch nothing else. It takes
    some seconds, and up to a few thousand requests.

    Exit codes: 0 fit for writing, 1 not fit, 2 usage.
    """
    progress = Progress()
    try:
        report = examine(url, options, lambda what: progress(f"trying: {what}"))
    except (OSError, wal.WalError) as error:
        progress.clear()
        usage = isinstance(error, FileNotFoundError | NotADirectoryError)
        context.exit(_fail(url, error, as_json=as_json, code=2 if usage else 1))
    except (ValueError, TypeError) as error:
        progress.clear()
        context.exit(_fail(url, error, as_json=as_json, code=2))
    progress.clear()
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        tell(*_text(report))
    context.exit(0 if report.writable else 1)


def _fail(url: str, error: Exception, *, as_json: bool, code: int) -> int:
    # Without the error number, which str() of an OSError would show.
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
    if as_json:
        click.echo(json.dumps(failure(text, type(error).__name__), indent=2))
    complain(f"metatree doctor: {text}")
    return code


def _text(report: Report) -> list[Line]:
    verdict = Styled(_FIT[report.fit], "green" if report.writable else "red", bold=True)
    lines: list[Line] = [(f"{report.url}: ", verdict)]
    if not report.writable and report.reason:
        lines.append(f"  because: {report.reason}")
    if report.examined != report.url:
        lines.append(f"  it does not exist yet; tested was {report.examined}, in which it would be created")
    lines.append("")
    for finding in report.findings:
        word, colour = _STATUS[finding.status]
        if finding.status is Status.FAILS and not finding.check.needed:
            word, colour = "missing", "yellow"
        lines.append(("  ", Styled(f"{word:8}", colour), f" {finding.check.guarantee}"))
        lines.append(("           ", Styled(finding.detail, dim=True)))
        if finding.status is not Status.HOLDS:
            lines.append(f"           {'' if finding.check.needed else 'not needed: '}{finding.check.lost}")
    lines += _measured(report)
    lines += [f"  note: {note}" for note in report.notes]
    if report.leftover:
        lines.append(f"  could not be removed, please remove it: {report.leftover}")
    return lines


def _measured(report: Report) -> list[str]:
    lines = [""] if report.round_trips or report.notes else []
    if report.round_trips:
        times = ", ".join(f"{name} {value:.3g}" for name, value in report.round_trips.items())
        lines.append(f"  round trips, ms: {times}")
    if report.clock is not None:
        found = report.clock
        if abs(found.seconds) <= found.uncertainty:
            lines.append(f"  clock: the same as this machine's, within {found.uncertainty:.2g} s")
        else:
            order = "ahead of" if found.seconds > 0 else "behind"
            lines.append(f"  clock: {abs(found.seconds):.3g} s {order} this machine's (no guarantee depends on it)")
    return lines
