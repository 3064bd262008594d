"""Loads a manifest of files into a tree, in transactions of N rows, resumable.

    python tools/ingest.py ROOT MANIFEST --keys model,version          a new tree; for an existing one without --keys
    python tools/ingest.py ROOT MANIFEST --retry-rejects               once what kept rows out is mended
    python tools/ingest.py s3://bucket/tree MANIFEST -o endpoint_url=http://… -o key=… -o secret=…

A manifest row has `location` (where the blob goes), `source` (a path, relative to the manifest's folder, or an fsspec
URL) and optionally `name` (default: the source's last segment); every other column becomes metadata of the
location's node. JSON Lines keep their types; CSV cells are strings unless `--types` is given.

Each batch is one transaction under an idempotency key made of the manifest's content, the options that matter and
the batch's number: run again after a kill, after Ctrl-C or by mistake, it adds nothing twice. Rows that cannot be
loaded go to the rejects file and stop nobody. Change the manifest or an option that matters (--batch, the columns,
--types, --format), and it is another load, whose rows find the blobs of the first one in their place.

The first load is never repeated for its rejected rows: --retry-rejects loads them, from the rejects file, under keys of
their own. Mend the sources, or the rows themselves there under `row`. What is in the tree then leaves the file.

Exit status: 0 all rows are in the tree, 1 some were rejected, 2 wrong usage, 3 stopped by an error of the tree,
130 stopped by a signal; after 3 and 130 the same command continues.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from ingest_load import Loader, Outcome, TreeStoppedError
from ingest_manifest import Batch, Columns, ManifestError, Options, measure, read_batches, run_id
from ingest_rejects import Rejects, RejectsBusyError
from ingest_retry import RetriedRejects, read_rejected
from storage_options import add_option, parse_options

from metatree import Metatree, MetatreeError, UnsupportedStorageError

Progress = Callable[[int], object]


@dataclass(slots=True)
class Summary:
    """What a run did. `already_there`: rows that an earlier run of the same load had committed."""

    rows: int = 0
    added: int = 0
    already_there: int = 0
    rejected: int = 0
    bytes: int = 0  # of the blobs added
    seconds: float = 0.0
    rows_per_second: float = 0.0
    complete: bool = False  # False: stopped before the manifest's end

    def add(self, batch: Batch, outcome: Outcome, rejected: int) -> None:
        size = len(batch.rows) + len(batch.rejects)
        self.rows += size
        self.rejected += rejected
        self.bytes += outcome.bytes
        if outcome.replayed:
            self.already_there += size - rejected
        else:
            self.added += outcome.added


class StopFlag:
    """The first SIGINT or SIGTERM lets the current batch finish; the second interrupts it, which discards it."""

    def __init__(self) -> None:
        self.raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True
        print("Stopping after the current batch; once more to discard it.", file=sys.stderr)

    @contextmanager
    def installed(self) -> Iterator[None]:
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def progress_bar(total: int) -> Iterator[Progress]:
    """A bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        print("No progress bar: pip install 'metatreedb[ingest]'", file=sys.stderr)
        yield lambda rows: None
        return
    with tqdm(total=total, unit="row", smoothing=0.05) as bar:
        yield bar.update


def ingest(loader: Loader, batches: Iterator[Batch], rejects: Rejects, stop: StopFlag, progress: Progress) -> Summary:
    """Load one batch after the other; the next one's sources are read while this one commits."""
    summary = Summary()
    batch = next(batches, None)
    while batch is not None and not stop.raised:
        following = next(batches, None)
        outcome = loader.load(batch, following.rows if following else (), rejects)
        summary.add(batch, outcome, rejects.count(batch.number))
        progress(len(batch.rows) + len(batch.rejects))
        batch = following
    summary.complete = batch is None
    return summary


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ingest.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root", metavar="ROOT", help="the tree: a path or URL; made if it does not exist (needs --keys)"
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path)
    add_option(parser)
    parser.add_argument("--keys", metavar="A,B", help="the names of the tree's levels")
    parser.add_argument("--format", choices=("jsonl", "csv"), help="default: csv for *.csv, otherwise jsonl")
    parser.add_argument("--types", action="store_true", help="CSV cells that are JSON numbers or booleans become such")
    parser.add_argument(
        "--batch",
        type=positive,
        default=500,
        metavar="N",
        help="rows of a transaction (500); keep it to continue a load",
    )
    parser.add_argument("--workers", type=positive, default=4, metavar="N", help="threads that read sources (4)")
    parser.add_argument("--rejects", type=Path, metavar="FILE", help="default: MANIFEST.rejects.jsonl")
    parser.add_argument("--retry-rejects", action="store_true", help="load the rows of the rejects file again")
    parser.add_argument("--location-column", default="location", metavar="COLUMN")
    parser.add_argument("--source-column", default="source", metavar="COLUMN")
    parser.add_argument("--name-column", default="name", metavar="COLUMN")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    given = parser.parse_args(argv)
    if not given.manifest.is_file():
        parser.error(f"there is no manifest {given.manifest}")
    try:
        given.options = parse_options(given.option)
    except ValueError as error:
        parser.error(str(error))
    given.rejects = given.rejects or given.manifest.with_name(given.manifest.name + ".rejects.jsonl")
    if wrong := wrong_rejects(given.rejects, given.manifest, retry=given.retry_rejects):
        parser.error(wrong)
    return given


def wrong_rejects(rejects: Path, manifest: Path, *, retry: bool) -> str:
    """Why this cannot be the rejects file; '' if it can."""
    if not rejects.parent.is_dir():
        return f"there is no folder {rejects.parent} for the rejects file"
    if rejects.is_dir() or (rejects.exists() and rejects.samefile(manifest)):
        return f"the rejects file needs a name of its own, not {rejects}"
    if retry and not rejects.is_file():
        return f"there is nothing to retry: {rejects} does not exist"
    return ""


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def options_of(given: argparse.Namespace) -> Options:
    guessed = "csv" if given.manifest.suffix.lower() == ".csv" else "jsonl"
    columns = Columns(given.location_column, given.source_column, given.name_column)
    return Options(given.format or guessed, columns, given.types, given.batch)


def open_tree(given: argparse.Namespace) -> Metatree:
    keys = tuple(given.keys.split(",")) if given.keys else None
    try:
        return Metatree(given.root, keys, storage_options=given.options)
    except (ValueError, TypeError, UnsupportedStorageError) as error:
        raise ManifestError(str(error)) from error
    except MetatreeError as error:
        if type(error) is not MetatreeError:
            raise
        # no tree and no keys, other keys than the tree's, a folder of something else
        raise ManifestError(str(error).replace("keys=('model', …)", "--keys model,version")) from error


def plan(given: argparse.Namespace) -> tuple[str, int, Rejects, Iterator[Batch]]:
    """The run's name, its lines, where it rejects to, and what it loads."""
    options = options_of(given)
    if not given.retry_rejects:
        content, lines = measure(given.manifest)
        name = run_id(content, options)
        return name, lines, Rejects(given.rejects, name), read_batches(given.manifest, options)
    content, lines = measure(given.rejects)
    name = run_id(f"retry {content}", options)
    folder = given.manifest.resolve().parent
    return name, lines, RetriedRejects(given.rejects, name), read_rejected(given.rejects, folder, options)


def run(given: argparse.Namespace, stop: StopFlag) -> Summary:
    name, lines, rejects, batches = plan(given)
    started = time.monotonic()
    try:
        with open_tree(given) as tree, Loader(tree, name, given.workers) as loader, progress_bar(lines) as progress:
            summary = ingest(loader, batches, rejects, stop, progress)
    except BaseException:
        rejects.close()
        raise
    if summary.complete:
        rejects.finish()
    else:
        rejects.close()
    summary.seconds = round(time.monotonic() - started, 3)
    summary.rows_per_second = round(summary.rows / max(summary.seconds, 0.001), 1)
    return summary


def report(summary: Summary, given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(asdict(summary)))
        return
    for name, value in asdict(summary).items():
        if name != "complete":
            print(f"{name.replace('_', ' '):<16}{value:>14,}")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    stop = StopFlag()
    try:
        with stop.installed():
            summary = run(given, stop)
    except (ManifestError, RejectsBusyError) as error:
        return complain(error, 2)
    except KeyboardInterrupt:
        return complain("The current batch was discarded. Run the same command again to continue.", 130)
    except (MetatreeError, TreeStoppedError, OSError) as error:
        return complain(f"{error}\nStopped. Once this is repaired, run the same command again to continue.", 3)
    report(summary, given)
    if not summary.complete:
        return complain("Stopped. Run the same command again to continue.", 130)
    return complain(advice(summary, given), 1) if summary.rejected else 0


def advice(summary: Summary, given: argparse.Namespace) -> str:
    """What to do about rejected rows."""
    rows = "1 row was" if summary.rejected == 1 else f"{summary.rejected:,} rows were"
    text = f"{rows} rejected; {given.rejects} says why. "
    taken = all(json.loads(line)["error"] == "BlobExistsError" for line in given.rejects.read_bytes().splitlines())
    if taken and not given.retry_rejects and not summary.added and not summary.already_there:
        text += (
            "Was this manifest loaded before, with another --batch? That is another load; its rows are in the tree. "
        )
    return text + "Once that is mended, load them with the same command and --retry-rejects."


def complain(message: object, status: int) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
