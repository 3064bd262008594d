"""The progress of a long job: one line on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import click

_EVERY = 0.1  # seconds; a terminal is slower than a disk
_WIDTH = 24


class Progress:
    """A line on stderr that is overwritten; removed at the end of the `with` block."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, text: str, done: float | None = None) -> None:
        """Show `text`; `done`: the part that is done, 0 to 1, shown as a bar."""
        if not self._shown or (done is not None and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + _EVERY
        bar = ""
        if done is not None:
            full = round(min(max(done, 0.0), 1.0) * _WIDTH)
            bar = f"[{'#' * full}{'.' * (_WIDTH - full)}] "
        self.clear()
        click.echo(f"  {bar}{text[:76]} …", err=True, nl=False)

    def clear(self) -> None:
        """Remove the line; to be called before other output."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
