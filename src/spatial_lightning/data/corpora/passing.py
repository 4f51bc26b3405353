"""How far a pass over a corpus is, said now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from spatial_lightning.data.corpora.rows import RowAt, Rows
from spatial_lightning.records import BadRows

_SPEAK_EVERY = 10.0
"""Seconds between two lines of progress."""


class PassProgress:
    """Says now and then how far the pass is and how long it will take."""

    def __init__(self, rows: Rows, name: str, say: Callable[[str], None]) -> None:
        self.rows, self.name, self.say = rows, name, say
        self.began = self.spoke = time.monotonic()
        self.count = 0

    def row(self, found: RowAt, bad: BadRows) -> None:
        """One more row."""
        self.count += 1
        if self.count % 256 or time.monotonic() - self.spoke < _SPEAK_EVERY:
            return
        self.spoke = time.monotonic()
        seconds = self.spoke - self.began
        done = self.rows.done(found.mark) / max(1, self.rows.total_bytes)
        left = seconds * (1 - done) / max(done, 1e-9)
        self.say(
            f"checking {self.name}: {self.count:,} rows, {100 * done:.0f} %, {self.count / seconds:,.0f} rows/s, "
            f"{bad.bad:,} bad, {left / 60:.0f} min left"
        )

    def end(self, bad: BadRows, records: int) -> None:
        """The pass is done."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        self.say(
            f"checked {self.name}: {self.count:,} rows, {bad.bad:,} bad, {records:,} records, "
            f"{self.count / seconds:,.0f} rows/s"
        )
