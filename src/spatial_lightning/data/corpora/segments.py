"""Where a published response ends to describe and begins to reason (arXiv:2506.21656 sec. 3.4)."""

from __future__ import annotations

import re

from spatial_lightning.records import DESCRIPTION, REASONING, Segment

_TAG = "</description>"
_HEADING = re.compile(r"\s*###[ \t]*description\b", re.IGNORECASE)
_SECTION = re.compile(r"^###", re.MULTILINE)


def description_end(text: str) -> int | None:
    """Number of characters that describe, from the beginning; None where nothing says so.

    The description ends with ``</description>``, or where the section after ``### Description`` begins.
    """
    closing = text.lower().find(_TAG)
    if closing >= 0:
        return closing + len(_TAG)
    heading = _HEADING.match(text)
    if heading is None:
        return None
    following = _SECTION.search(text, heading.end())
    return following.start() if following else len(text)


def cut(text: str) -> tuple[Segment, ...]:
    """Segments that tile the text; all of it is reasoning where nothing describes."""
    end = description_end(text) or 0
    spans = ((DESCRIPTION, 0, end), (REASONING, end, len(text)))
    return tuple(Segment(name, start, stop) for name, start, stop in spans if stop > start)
