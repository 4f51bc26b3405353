"""Regions of a picture as published: COCO masks, polygons or boxes, and how a question names them in plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from spatial_lightning.data.corpora.fields import nested
from spatial_lightning.records import RecordError

Box = tuple[float, float, float, float]
Size = tuple[int, int]

SCALE = 1000
"""Boxes are written as shares of the picture's width and height, in thousandths."""
NAMINGS = ("boxes", "names")
_COLUMNS = ("rle", "segmentation", "bbox")
_MASK = re.compile(r"<mask>(?:\s*<depth>)?")
_NAMED = re.compile(r"Region \[(\d+)\]")


@final
class Regions:
    """The regions of a row, each in the first of ``rle``, ``segmentation`` and ``bbox`` that has it.

    Args:
        row: published row; a missing column counts as empty, and each may be a string that holds JSON.
        size: height and width in pixels of the picture that polygons and boxes are given in; asked for when needed.

    Raises:
        RecordError: a column that is no list.
    """

    def __init__(self, row: Mapping[str, Any], size: Callable[[], Size]) -> None:
        self.size = size
        self._columns: dict[str, Sequence[Any]] = {}
        for name in _COLUMNS:
            value = nested(row.get(name), name)
            if value is None:
                continue
            if not isinstance(value, Sequence) or isinstance(value, str | bytes):
                raise RecordError(f"field {name!r} must be a list, got {type(value).__name__}")
            self._columns[name] = value

    def __len__(self) -> int:
        return max(map(len, self._columns.values()), default=0)

    def box(self, index: int) -> Box:
        """Left, top, right and bottom of a region as shares of the picture in [0, 1].

        Raises:
            RecordError: there is no such region, or it is malformed or empty.
        """
        for name, values in self._columns.items():
            if index < len(values) and values[index] is not None:
                left, top, right, bottom, (height, width) = self._pixels(name, values[index])
                box = (_share(left, width), _share(top, height), _share(right, width), _share(bottom, height))
                if not (box[0] < box[2] and box[1] < box[3]):
                    raise RecordError(
                        f"region {index} is empty: {[left, top, right, bottom]} of {width}x{height} pixels"
                    )
                return box
        raise RecordError(f"region {index} does not exist: the row has {len(self)} ({self._described()})")

    def _described(self) -> str:
        return (
            ", ".join(f"{name}: {len(values)}" for name, values in self._columns.items())
            or "no rle, segmentation or bbox"
        )

    def _pixels(self, name: str, given: Any) -> tuple[float, float, float, float, Size]:
        given = nested(given, name)
        if isinstance(given, Mapping):
            box, size = rle_box(given)
            return *box, size
        try:
            flat = (
                np.asarray(given, dtype=np.float64)
                if name == "bbox"
                else np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in given] or [np.empty(0)])
            )
        except (TypeError, ValueError) as error:
            raise RecordError(f"{name} {str(given)[:80]} is not made of numbers") from error
        if not np.isfinite(flat).all():
            raise RecordError(f"{name} {str(given)[:80]} holds numbers that are not finite")
        if name == "bbox":
            if flat.shape != (4,):
                raise RecordError(f"bbox must be left, top, right, bottom, got {str(given)[:80]}")
            left, top, right, bottom = flat.tolist()
        else:
            if flat.size < 6 or flat.size % 2:
                raise RecordError(f"{name} must be polygons of x, y pairs, got {str(given)[:80]}")
            (left, top), (right, bottom) = flat.reshape(-1, 2).min(0).tolist(), flat.reshape(-1, 2).max(0).tolist()
        return left, top, right, bottom, self.size()


def rle_box(mask: Mapping[str, Any]) -> tuple[Box, Size]:
    """Box in pixels around the foreground of a COCO run-length mask, right and bottom exclusive, and its height and width.

    Args:
        mask: ``size`` [height, width] and ``counts``: lengths of runs down the columns, background first, as a list or in
            COCO's compressed string.

    Raises:
        RecordError: malformed, runs that do not cover the size, or no foreground.
    """
    try:
        height, width = (int(value) for value in mask["size"])
        counts = mask["counts"]
        runs = _decompress(counts) if isinstance(counts, str | bytes) else np.asarray(counts, dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"a run-length mask needs size [height, width] and counts, got {str(dict(mask))[:80]}"
        ) from error
    if height <= 0 or width <= 0 or runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise RecordError(f"runs of a mask cover {int(runs.sum())} pixels, its size is {height}x{width}")
    ends = runs.cumsum()
    starts, lasts = (ends - runs)[1::2], ends[1::2] - 1
    starts, lasts = starts[runs[1::2] > 0], lasts[runs[1::2] > 0]
    if starts.size == 0:
        raise RecordError("a run-length mask has no foreground")
    # A run that leaves its column covers the bottom of one and the top of the next.
    crosses = (starts // height != lasts // height).any()
    top = 0 if crosses else (starts % height).min()
    bottom = height if crosses else (lasts % height).max() + 1
    return (float(starts[0] // height), float(top), float(lasts[-1] // height + 1), float(bottom)), (height, width)


def _decompress(counts: str | bytes) -> np.ndarray:
    """Runs from COCO's string: five bits a character, low ones first, each run but the first three less the one two before."""
    data = counts.encode("ascii") if isinstance(counts, str) else counts
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0 or (codes < 0).any() or (codes > 63).any() or codes[-1] & 0x20:
        raise ValueError("not a compressed mask")
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = 5 * (np.arange(codes.size) - np.repeat(starts, ends - starts + 1))
    if places.max() > 55:
        raise ValueError("not a compressed mask")
    runs = np.add.reduceat((codes & 0x1F) << places, starts)
    runs -= np.where(codes[ends] & 0x10, np.int64(1) << (places[ends] + 5), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def name_regions(text: str, regions: Regions, first: int, naming: str) -> tuple[str, str, int]:
    """A question with its ``<mask> <depth>`` replaced by ``Region [0]``, ``Region [1]``, ... in plain names and as written.

    Args:
        first: region that the first placeholder stands for.
        naming: ``names``, or ``boxes`` to put ``(left, top, right, bottom)`` in thousandths of the picture behind each name.

    Returns:
        The text with names alone, the text as ``naming`` wants it, and how many regions it took.

    Raises:
        RecordError: a region that does not exist, or ``<depth>`` without ``<mask>``.
    """
    written = []
    for number in range(len(_MASK.findall(text))):
        if first + number >= len(regions):
            raise RecordError(f"{text[:80]!r} asks for region {first + number}, the row has {len(regions)} regions")
        name = f"Region [{number}]"
        written.append(f"{name} {_written(regions.box(first + number))}" if naming == "boxes" else name)
    names, boxes = (f"Region [{number}]" for number in range(len(written))), iter(written)
    plain, full = _MASK.sub(lambda _: next(names), text), _MASK.sub(lambda _: next(boxes), text)
    if "<depth>" in plain:
        raise RecordError(f"{text[:80]!r} has <depth> without <mask>")
    return plain, full, len(written)


def require_regions(answer: str, count: int) -> None:
    """Refuse an answer with a placeholder, or about a region that its question does not name.

    Raises:
        RecordError: it does.
    """
    if "<mask>" in answer:
        raise RecordError(f"{answer[:80]!r} holds <mask>; answers name regions as Region [k]")
    beyond = [int(number) for number in _NAMED.findall(answer) if int(number) >= count]
    if beyond:
        raise RecordError(f"{answer[:80]!r} speaks of Region [{beyond[0]}], the question names {count} regions")


def _share(position: float, side: int) -> float:
    return min(max(position / side, 0.0), 1.0)


def _written(box: Box) -> str:
    return f"({', '.join(str(round(SCALE * share)) for share in box)})"
