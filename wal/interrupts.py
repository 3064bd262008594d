"""Ctrl-C during a flush: delivered after it, so that it never leaves a commit half known."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

# the C functions under signal.signal and signal.getsignal, whose conversions to enums cost ten times the call itself
_raw: Any = sys.modules.get("_signal", signal)
_SIGINT = int(signal.SIGINT)
_default = signal.default_int_handler


class DeferredInterrupt:
    """Within the block, SIGINT is noted; `deliver` raises it afterwards.

    Does something only in the main thread, and only if Python's own handler is installed: a program that handles
    SIGINT itself knows better.
    """

    __slots__ = ("_noted", "_swapped")

    def __init__(self) -> None:
        self._noted = False

    def __enter__(self) -> DeferredInterrupt:
        self._swapped = threading.get_ident() == threading.main_thread().ident and _raw.getsignal(_SIGINT) is _default
        if self._swapped:
            _raw.signal(_SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._swapped:
            _raw.signal(_SIGINT, _default)

    def deliver(self, note: str) -> None:
        """Raise the KeyboardInterrupt that was held back, if any, with a note saying what was done nevertheless."""
        if self._noted:
            self._noted = False
            interrupt = KeyboardInterrupt()
            interrupt.add_note(note)
            raise interrupt

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._noted = True
