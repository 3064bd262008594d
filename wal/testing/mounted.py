"""Makes a local folder look like one on another type of filesystem: for testing the slot log without a second host."""

from __future__ import annotations

from wal.storage.posix import Posix


class Mounted(Posix):
    """The real system calls, but everything seems to be on one mount of this type."""

    def __init__(self, kind: str = "nfs4", options: str = "rw") -> None:
        self.kind, self.options = kind, options

    def kernel_file(self, path: str) -> bytes:
        if path == "/proc/self/mountinfo":
            return f"1 1 0:1 / / {self.options} - {self.kind} none {self.options}\n".encode()
        return super().kernel_file(path)
