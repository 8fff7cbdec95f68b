"""A line that says how far many files are; for whoever watches, nothing in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 24
# Fewer are done before one could read it.
_LEAST = 3


class Progress:
    """A bar on a terminal: share done, files a second, seconds left.

    Args:
      count: of all files.
      stream: where to; nothing is written where it is no terminal.
    """

    def __init__(self, count: int, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._shown = count >= _LEAST and self._stream.isatty()
        self._count, self._done, self._begun = count, 0, time.monotonic()

    def step(self) -> None:
        """One file more is done."""
        self._done += 1
        if not self._shown:
            return
        seconds = max(time.monotonic() - self._begun, 1e-6)
        rate, full = self._done / seconds, _WIDTH * self._done // self._count
        bar = "#" * full + "." * (_WIDTH - full)
        left = (self._count - self._done) / rate
        self._write(f"\r[{bar}] {self._done}/{self._count}  {rate:.1f}/s  {left:.0f} s left ")

    def clear(self) -> None:
        """Takes the bar off the line, so that something else can be written there."""
        if self._shown:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
