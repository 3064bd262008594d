"""How the holder of the committer's right identifies itself where hosts share the storage: one small JSON object.

It is not a lock, and no clock of another host is read: the holder increments a counter, and a waiter measures with
its own clock how long the counter has stood still.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wal.process import whoami

MARKS = 8


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds the right, or had it last."""

    log: str  # the log's id
    token: str  # of the holder: new in every handle
    holder: str  # user@host:pid; for people
    counter: int  # incremented by every renewal
    held: bool  # False: released
    epoch: int  # which tenure this is
    clean: bool  # no working folder of an earlier epoch is left that its holder could still use
    marks: tuple[int, ...]  # the consumer's numbers, as the holder last wrote them

    @classmethod
    def of_nobody(cls, log: str, token: str, marks: Sequence[int]) -> Claim:
        """What a handle with this token makes its claims from."""
        return cls(log, token, whoami(), 0, False, 0, True, tuple(marks))

    def encode(self) -> bytes:
        """The object's content: one line of JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Claim | None:
        """The claim in an object's content; None if it is not a valid claim: then no holder is known."""
        try:
            fields: dict[str, Any] = json.loads(data)
            claim = cls(**{**fields, "marks": tuple(fields["marks"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return claim if claim._is_possible() else None

    def _is_possible(self) -> bool:
        numbers = (self.counter, self.epoch, *self.marks)
        texts = (self.log, self.token, self.holder)
        return (
            all(type(number) is int and number >= 0 for number in numbers)
            and all(isinstance(text, str) for text in texts)
            and type(self.held) is type(self.clean) is bool
            and len(self.marks) == MARKS
        )
