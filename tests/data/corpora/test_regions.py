"""Regions: boxes of COCO masks against an encoder of their own, polygons, boxes, and what is malformed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.data.corpora.regions import Regions, name_regions, require_regions, rle_box
from spatial_lightning.records import RecordError


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of runs down the columns, background first."""
    flat = mask.T.reshape(-1).astype(bool)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def compressed(runs: list[int]) -> str:
    """COCO's string of run lengths."""
    text = ""
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        while True:
            bits, rest = rest & 0x1F, rest >> 5
            done = rest == (-1 if bits & 0x10 else 0)
            text += chr(48 + bits + (0 if done else 0x20))
            if done:
                break
    return text


def masks() -> st.SearchStrategy[np.ndarray]:
    def draw(seed: int, height: int, width: int, share: float) -> np.ndarray:
        generator = np.random.default_rng(seed)
        mask = generator.random((height, width)) < share
        top, left = generator.integers(0, height), generator.integers(0, width)
        mask[top : top + generator.integers(1, height + 1), left : left + generator.integers(1, width + 1)] = True
        return mask

    side = st.integers(1, 300)
    return st.builds(draw, st.integers(0, 2**31), side, side, st.sampled_from([0.0, 0.001, 0.3]))


@given(masks())
def test_the_box_of_a_mask_is_that_of_its_foreground(mask: np.ndarray) -> None:
    rows, columns = np.nonzero(mask)
    wanted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    runs = run_lengths(mask)
    for counts in (runs, compressed(runs), compressed(runs).encode()):
        assert rle_box({"size": list(mask.shape), "counts": counts}) == (wanted, mask.shape)


def test_runs_of_large_masks_need_several_characters() -> None:
    mask = np.zeros((1200, 1600), dtype=bool)
    mask[100:1100, 700:900] = True
    text = compressed(run_lengths(mask))
    assert len(text) > 4
    assert rle_box({"size": [1200, 1600], "counts": text})[0] == (700, 100, 900, 1100)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        ({"size": [2, 2]}, "needs size .height, width. and counts"),
        ({"size": [2], "counts": [0, 4]}, "needs size .height, width. and counts"),
        ({"size": [2, 2], "counts": "É"}, "needs size .height, width. and counts"),
        ({"size": [2, 2], "counts": "oo"}, "needs size .height, width. and counts"),
        ({"size": [2, 2], "counts": "o" * 40 + "1"}, "needs size .height, width. and counts"),
        ({"size": [2, 2], "counts": [1, "a"]}, "needs size .height, width. and counts"),
        ({"size": [2, 2], "counts": [1, 2]}, "cover 3 pixels, its size is 2x2"),
        ({"size": [2, 2], "counts": [6, -2]}, "cover 4 pixels, its size is 2x2"),
        ({"size": [0, 2], "counts": []}, "its size is 0x2"),
        ({"size": [2, 2], "counts": [4]}, "no foreground"),
    ],
)
def test_malformed_masks_are_refused(mask: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        rle_box(mask)


def regions_of(**row: Any) -> Regions:
    return Regions(row, lambda: (100, 200))


def test_masks_polygons_and_boxes_give_shares_of_their_picture() -> None:
    mask = np.zeros((50, 40), dtype=bool)
    mask[10:20, 4:30] = True
    rle = {"size": [50, 40], "counts": compressed(run_lengths(mask))}
    assert regions_of(rle=[rle]).box(0) == (0.1, 0.2, 0.75, 0.4)
    assert regions_of(segmentation=[rle]).box(0) == (0.1, 0.2, 0.75, 0.4)
    assert regions_of(segmentation=[[[20, 10, 60, 10, 60, 30], [100, 50, 120, 50, 110, 80]]]).box(0) == (
        0.1,
        0.1,
        0.6,
        0.8,
    )
    assert regions_of(bbox=[[20, 10, 60, 30]]).box(0) == (0.1, 0.1, 0.3, 0.3)
    assert regions_of(bbox="[[20, 10, 60, 30]]").box(0) == (0.1, 0.1, 0.3, 0.3)
    assert regions_of(bbox=[[-5, 10, 400, 30]]).box(0) == (0.0, 0.1, 1.0, 0.3)


def test_a_region_is_taken_where_the_row_has_it() -> None:
    regions = regions_of(rle=[{"size": [2, 2], "counts": [0, 1, 3]}, None], bbox=[[0, 0, 9, 9], [20, 10, 60, 30]])
    assert len(regions) == 2
    assert regions.box(0) == (0.0, 0.0, 0.5, 0.5)
    assert regions.box(1) == (0.1, 0.1, 0.3, 0.3)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"bbox": [[1, 2, 3]]}, "bbox must be left, top, right, bottom"),
        ({"bbox": [[1, 2, 3, "x"]]}, "not made of numbers"),
        ({"bbox": [[1, 2, float("nan"), 4]]}, "not finite"),
        ({"bbox": [[60, 10, 20, 30]]}, "region 0 is empty"),
        ({"bbox": [[300, 10, 400, 30]]}, "region 0 is empty"),
        ({"segmentation": [[[1, 2, 3]]]}, "polygons of x, y pairs"),
        ({"segmentation": [7]}, "not made of numbers"),
        ({"bbox": []}, "region 0 does not exist: the row has 0 .bbox: 0."),
        ({}, "region 0 does not exist: the row has 0 .no rle, segmentation or bbox."),
        ({"bbox": {"a": 1}}, "bbox' must be a list, got dict"),
        ({"rle": "none"}, "rle is a string that holds no JSON"),
    ],
)
def test_malformed_regions_are_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        regions_of(**row).box(0)


def test_placeholders_become_names_and_boxes() -> None:
    regions = regions_of(bbox=[[0, 0, 9, 9], [20, 10, 60, 30], [100, 50, 200, 100]])
    asked = "Is <mask> <depth> above <mask><depth>?"
    plain = "Is Region [0] above Region [1]?"
    assert name_regions(asked, regions, 1, "names") == (plain, plain, 2)
    boxed = "Is Region [0] (100, 100, 300, 300) above Region [1] (500, 500, 1000, 1000)?"
    assert name_regions(asked, regions, 1, "boxes") == (plain, boxed, 2)
    with pytest.raises(RecordError, match="asks for region 3, the row has 3 regions"):
        name_regions(asked, regions, 2, "names")
    with pytest.raises(RecordError, match="<depth> without <mask>"):
        name_regions("Is <depth> near?", regions, 0, "names")
    require_regions("Region [1] is above Region [0].", 2)
    with pytest.raises(RecordError, match=r"speaks of Region \[2\], the question names 2 regions"):
        require_regions("Region [2] is above.", 2)
