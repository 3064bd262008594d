"""Which idempotency keys the log holds, in bounded memory.

A key stays used for ever, since headers are never trimmed. So nothing that is remembered here ever becomes wrong, but
neither can all of it be kept. The last keys are kept exactly. Of older ones a filter tells "never used" or "perhaps";
only then are the headers read again. Rejected: to read them for each key that is not among the last ones, since a new
key, the common case, would cost a reading of the whole history.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from struct import Struct

import wal

from .facts import Header

RECENT_KEYS = 10_000  # kept with their positions, some 250 bytes each however long the keys are
FILTER_BYTES = (
    4 << 20
)  # used beyond that: of 100,000 new keys none, of 1,000,000 about 40 cost a reading of all headers

_BITS = Struct("<4I")  # a key's digest is its four places in the filter

Since = Callable[[int], Iterable[tuple[wal.Position, Header]]]


class UsedKeys:
    """The idempotency keys of all records up to `head`. Not thread-safe: the reader's lock guards it."""

    def __init__(self, since: Since) -> None:
        """`since`: the positions and headers of the records after an LSN, in order."""
        self._since = since
        self._head = 0
        # digest of a key -> its record, the oldest first; a dict would look for its first entry ever longer
        self._recent: OrderedDict[bytes, wal.Position] = OrderedDict()
        self._filter = bytearray()  # of the digests that are no longer in `_recent`; empty if there are none
        self._forgotten = 0  # the last LSN of their records
        self._searched = (b"", 0)  # the last digest that was searched for in vain, and up to which LSN

    def find(self, key: str, head: int) -> wal.Position | None:
        """Where a key was first used; None: nowhere up to `head`, to which `since` must lead."""
        if head > self._head:
            for position, header in self._since(self._head):
                if header.key is not None:
                    self._note(_digest(header.key), position)
            self._head = head
        digest = _digest(key)
        return self._recent.get(digest) or (self._search(key, digest) if self._may_be_forgotten(digest) else None)

    def _note(self, digest: bytes, position: wal.Position) -> None:
        self._recent.setdefault(digest, position)
        while len(self._recent) > RECENT_KEYS:
            oldest = next(iter(self._recent))
            self._forgotten = max(self._forgotten, self._recent[oldest].lsn)
            if not self._filter:
                self._filter = bytearray(FILTER_BYTES)
            for bit in _BITS.unpack(oldest):
                self._filter[bit // 8 % FILTER_BYTES] |= 1 << bit % 8
            self._recent.pop(oldest, None)  # last: an interrupt before it leaves the key known twice

    def _may_be_forgotten(self, digest: bytes) -> bool:
        return bool(self._filter) and all(
            self._filter[bit // 8 % FILTER_BYTES] & 1 << bit % 8 for bit in _BITS.unpack(digest)
        )

    def _search(self, key: str, digest: bytes) -> wal.Position | None:
        # A transaction asks when it begins, and again with the append right held: that must not take long.
        searched, after = self._searched
        for position, header in self._since(after if searched == digest else 0):
            if position.lsn > self._forgotten:
                break
            if header.key == key:
                self._note(digest, position)
                return position
        self._searched = (digest, self._forgotten)
        return None


def _digest(key: str) -> bytes:
    return blake2b(key.encode(errors="surrogatepass"), digest_size=_BITS.size).digest()
