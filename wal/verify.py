"""`verify`: reads every byte of the log again. Changes nothing."""

from __future__ import annotations

from wal.chain import Chain
from wal.errors import LogCorruptionError, WalError
from wal.format import SEAL, SEGMENT_HEADER
from wal.head import HeadFile
from wal.history import History, frames
from wal.log import LSN, Verification
from wal.segment import Tail, behind, records, successor, unpadded


def verify_log(chain: Chain, history: History, head_file: HeadFile | None, head: LSN, *, whole: bool) -> Verification:
    """`whole`: the append right is held, so that bytes behind the head are checked too."""
    problems: list[str] = []
    shelf = chain.shelf
    redo = chain.checkpoint.redo
    try:
        redo = chain.load_checkpoint().redo
    except (WalError, OSError) as error:
        problems.append(str(error))
    headless = head_file is None or not head_file.belongs_to(chain.log_id) or head_file.state() is None
    if headless:
        problems.append(f"the head file is missing, damaged or of another log (file {shelf.names.head})")
    numbers = shelf.numbers()
    if not numbers:
        problems.append(f"the log's segments are missing (folder {shelf.names.folder})")
    tail: Tail | None = None
    gone: dict[int, FileNotFoundError] = {}
    for number in numbers:
        try:
            tail = _segment(chain, number, tail, head, whole)
        except FileNotFoundError as error:
            gone[number], tail = error, None
        except (WalError, OSError) as error:
            problems.append(str(error))
            tail = None
    kept = _history(history, _first(chain, numbers), problems)  # listed last: what was freed meanwhile is in it
    problems += [str(error) for number, error in gone.items() if number not in kept]
    if tail is not None and tail.lsn < head:
        problems.append(str(chain.short_of(head, tail)) if not problems else "")
    problems = [problem for problem in problems if problem]
    only_head = headless and len(problems) == 1
    return Verification(min(redo, head) + 1, head, len(numbers), tuple(problems), only_head)


def _first(chain: Chain, numbers: list[int]) -> LSN | None:
    """The first batch of the oldest segment; None if it cannot be read, which `_segment` reports."""
    try:
        return chain.shelf.header(numbers[0], chain.log_id).first if numbers else None
    except (WalError, OSError):
        return None


def _history(history: History, segments_from: LSN | None, problems: list[str]) -> list[int]:
    """Check that each history file is intact and follows the one before, and that the segments follow the last; returns
    the numbers of these files."""
    following: LSN | None = None
    numbers = history.numbers()
    for number in numbers:
        try:
            header, data, name = history.opened(number, whole=True)
            if following is not None and header.first != following:
                problems.append(f"the headers after batch {following - 1} are missing (file {name})")
            following = None  # unknown if this file is damaged
            for found in frames(header, data, name, sealed=True):
                if found.header.kind == SEAL:
                    following = found.header.lsn + 1
                else:
                    records(found, name)
        except (WalError, OSError) as error:
            problems.append(str(error))
    if following is not None and segments_from is not None and segments_from > following:
        problems.append(f"the headers after batch {following - 1} are missing, and no segment holds them any more")
    return numbers


def _segment(chain: Chain, number: int, before: Tail | None, head: LSN, whole: bool) -> Tail:
    """Check one segment to its end; returns the tail that the next one must continue. Raises LogCorruptionError."""
    name = chain.shelf.names.segment(number)
    data = chain.shelf.peek(number)  # by name: the file this handle has open may not be it
    header = chain.shelf.check(number, data, chain.log_id)
    tail = header.tail()
    if before is not None and before != tail:
        if before.number != number and whole and not unpadded(data[SEGMENT_HEADER:]):
            return before  # an interrupted rotation
        raise LogCorruptionError("the segment does not follow the one before", file=name)
    end = tail.offset
    for found in frames(header, data, name):
        end = found.offset + found.header.size
        following = successor(found, name)
        if following is None:
            records(found, name)
            tail = behind(number, found)
        else:
            tail = Tail(following, SEGMENT_HEADER, found.header.crc, found.header.lsn)
    judged = whole or tail.number != number
    stray = len(data[end:]) - len(data[end:].lstrip(b"\x00"))
    if judged and end + stray < len(data):
        raise LogCorruptionError("bytes behind the last frame", file=name, offset=end + stray)
    return tail
