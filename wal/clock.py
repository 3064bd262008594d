"""Time, waiting and randomness: the only place of this package that asks the system for them.

No safety rests on any of it: clocks pace waiting, random bytes name things.
"""

from __future__ import annotations

import os
import threading
import time


class Clock:
    """The system's clock and entropy; tests hand in their own."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never runs backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait at least `seconds`."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; whether it came. Where a thread works at intervals until it is ended."""
        return event.wait(seconds)

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        return os.urandom(size)
