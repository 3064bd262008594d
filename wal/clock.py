"""Time, waiting and randomness: the only module of this package that asks the system for them.

No guarantee depends on the clock: it only paces waiting. Random bytes serve as identifiers.
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
        """Wait for `event`, at most `seconds`; returns whether it was set. For threads that work at intervals."""
        return event.wait(seconds)

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        return os.urandom(size)
