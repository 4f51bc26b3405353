"""Lengths in words: the published examples and shares, and back to metres."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.synthesis.rounding import ROUNDINGS, read_length, say_length

IMPERIAL = ("foot", "feet", "inch", "inches")


def spoken(value: float, rounding: str, count: int = 4000) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(say_length(value, rng, rounding) for _ in range(count))


def test_eighty_six_centimetres_are_mostly_a_metre() -> None:
    said = spoken(0.86, "human")
    assert said["1 meter"] / said.total() == pytest.approx(0.75, abs=0.025)
    assert {"0.9 meters", "90 centimeters", "3 feet"} <= set(said)


def test_twenty_three_metres_are_mostly_twenty() -> None:
    said = spoken(23.0, "human")
    assert said["20 meters"] / said.total() > 0.7
    assert not [text for text in said if "centimeter" in text or "inch" in text]


@pytest.mark.parametrize("value", [0.3, 0.86, 2.2, 7.0, 14.0, 40.0])
def test_a_fifth_is_imperial(value: float) -> None:
    said = spoken(value, "human")
    share = sum(count for text, count in said.items() if text.endswith(IMPERIAL)) / said.total()
    assert share == pytest.approx(0.2, abs=0.025)


@pytest.mark.parametrize(
    ("value", "coarse"),
    [(0.42, "0.4 meters"), (1.3, "1.5 meters"), (4.4, "4 meters"), (12.6, "15 meters"), (34.0, "30 meters")],
)
def test_coarse_steps(value: float, coarse: str) -> None:
    said = spoken(value, "human")
    assert said[coarse] / said.total() >= 0.725


@pytest.mark.parametrize(("preset", "shares"), [("srgpt", (0.2, 0.5, 0.7)), ("vqas", (0.6, 0.6, 0.7))])
def test_presets_use_their_units(preset: str, shares: tuple[float, ...]) -> None:
    for value, unit, share in zip((0.5, 2.0, 8.0), ("centimeter", "meter", "meter"), shares, strict=True):
        said = spoken(value, preset)
        metric = sum(count for text, count in said.items() if unit in text) / said.total()
        assert metric == pytest.approx(share, abs=0.03)


@given(st.floats(0.1, 100), st.integers(0, 1000), st.sampled_from(ROUNDINGS))
def test_what_is_said_stays_near_the_truth(value: float, seed: int, rounding: str) -> None:
    read = read_length(say_length(value, np.random.default_rng(seed), rounding))
    assert read is not None
    if rounding == "decimal":
        assert abs(read - value) <= 0.05 + 1e-9
    elif rounding == "none":
        assert abs(read - value) <= 0.0005 + 1e-9
    elif rounding == "srgpt":
        assert read == pytest.approx(value, abs=0.005)
    else:
        assert abs(read - value) <= max(value / 2, 0.16)


@given(st.floats(0, 0.1), st.integers(0, 100))
def test_tiny_lengths_can_be_said(value: float, seed: int) -> None:
    assert read_length(say_length(value, np.random.default_rng(seed), "human")) is not None


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("2.4 meters", 2.4),
        ("It is about 90 centimeters.", 0.9),
        ("3 feet", 0.9144),
        ("10 inches", 0.254),
        ("first 2 m, then 3 m", 3.0),
        ("The final answer is 1 meter.", 1.0),
        ("2.4", None),
        ("no idea", None),
    ],
)
def test_reading(text: str, metres: float | None) -> None:
    assert read_length(text) == (None if metres is None else pytest.approx(metres))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_no_length(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        say_length(value, np.random.default_rng(0))
