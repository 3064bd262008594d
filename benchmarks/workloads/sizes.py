"""How much of each work is done: for `make bench`, at the sizes of the issue, and for a test."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """One size of everything."""

    steps: int  # operations in a round, of those that take microseconds
    batch: int  # W2: puts in a transaction
    limited: int  # W2: the same for peers that need minutes otherwise
    blobs: tuple[int, int]  # W5: bytes
    children: tuple[int, int]  # W6
    puts: int  # W7: of each process
    nodes: tuple[int, int]  # W8
    records: int  # W10


USUAL = Sizes(300, 10_000, 200, (10 * MIB, 128 * MIB), (100, 20_000), 100, (10_000, 50_000), 10_000)
FULL = Sizes(300, 10_000, 200, (10 * MIB, 1024 * MIB), (100, 100_000), 100, (10_000, 1_000_000), 100_000)
TINY = Sizes(2, 10, 10, (MIB // 8, MIB // 4), (3, 20), 3, (20, 60), 20)
