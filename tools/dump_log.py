"""Prints a write-ahead log, one JSON object a line; changes nothing, needs no write permission, knows no trees.

    python tools/dump_log.py ROOT [--folder .wal] [--after LSN] [--body] [--verify]

Each line is a record: LSN, index in its batch, header, and the length of its body (null: trimmed). A header or body
that is JSON is printed as JSON, anything else in hex.

Exit status: 0 read to the end, 1 there is damage, 2 wrong usage or no log.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence

import wal


def readable(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return {"hex": data.hex()}


def lines(log: wal.WriteAheadLog, after: int, bodies: bool) -> Iterator[str]:
    for batch in log.read(after):
        for index, record in enumerate(batch.records):
            size = None if record.body is None else len(record.body)
            line: dict[str, object] = {"lsn": batch.lsn, "index": index, "body_bytes": size}
            line["header"] = readable(record.header)
            if bodies and record.body is not None:
                line["body"] = readable(record.body)
            yield json.dumps(line, ensure_ascii=False)


def dump(given: argparse.Namespace) -> int:
    log = wal.open_log(wal.open_storage(given.root), given.folder, read_only=True)
    try:
        for line in lines(log, given.after, given.body):
            print(line)
        problems = log.verify().problems if given.verify else ()
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    finally:
        log.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("--folder", default=".wal", help="the log's folder below ROOT")
    parser.add_argument("--after", type=int, default=0, metavar="LSN", help="begin behind this batch")
    parser.add_argument("--body", action="store_true", help="print bodies as well")
    parser.add_argument("--verify", action="store_true", help="read every byte again and name what is wrong")
    try:
        return dump(parser.parse_args(argv))
    except BrokenPipeError:  # `| head`: what was wanted was printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (wal.LogCorruptionError, wal.LogFormatError) as error:
        print(error, file=sys.stderr)
        return 1
    except (wal.WalError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
