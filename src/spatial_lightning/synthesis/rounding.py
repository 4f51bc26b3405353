"""How people say a length: rounding a number of metres to words, and reading such words back."""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

import numpy as np

from spatial_lightning.geometry import from_metres, to_metres

Rounding = Literal["none", "decimal", "human", "srgpt", "vqas"]
ROUNDINGS: tuple[str, ...] = get_args(Rounding)

METER, CENTIMETER, FOOT, INCH = "metre", "centimetre", "foot", "inch"
_SPOKEN = {
    METER: ("meter", "meters"),
    CENTIMETER: ("centimeter", "centimeters"),
    FOOT: ("foot", "feet"),
    INCH: ("inch", "inches"),
}
UNIT_PATTERN = "met(?:er|re)s?|centimet(?:er|re)s?|foot|feet|ft|inch(?:es)?|cm|m|in"
_LENGTH = re.compile(rf"(?<![\w.])(\d{{1,9}}(?:\.\d{{1,9}})?)\s*({UNIT_PATTERN})\b", re.IGNORECASE)

COARSE_SHARE = 0.75
IMPERIAL_SHARE = 0.2
SMALL_UNIT_LIMIT = 2.0
_COARSE_STEPS = ((0.75, 0.1), (3.0, 0.5), (10.0, 1.0), (20.0, 5.0), (math.inf, 10.0))
_PRESETS = {
    "srgpt": ((1.0, CENTIMETER, 0.2, INCH), (3.0, METER, 0.5, FOOT), (math.inf, METER, 0.7, FOOT)),
    "vqas": ((1.0, CENTIMETER, 0.6, INCH), (3.0, METER, 0.6, FOOT), (math.inf, METER, 0.7, FOOT)),
}


def say_length(value: float, rng: np.random.Generator, rounding: str = "decimal") -> str:
    """A length in words.

    ``none`` prints millimetres, ``decimal`` one decimal of a metre. ``human`` follows SpatialVLM (arXiv:2401.12168):
    0.86 m is "1 meter" three times out of four, otherwise one or two significant digits in a unit drawn at random, and
    a fifth of all answers is imperial. ``srgpt`` and ``vqas`` are the unit shares of the public pipelines of
    SpatialRGPT (two decimals) and VQASynth (0 to 2 decimals).

    Args:
        value: metres, at least 0 and finite.

    Raises:
        ValueError: unknown rounding, or a value that is no length.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"a length must be finite and at least 0 metres, got {value}")
    match rounding:
        case "none":
            return f"{value:.3f} meters"
        case "decimal":
            return f"{value:.1f} meters"
        case "human":
            return _say_human(value, rng)
        case "srgpt" | "vqas":
            return _say_preset(value, rng, rounding)
        case _:
            raise ValueError(f"rounding is {rounding!r}; allowed: {', '.join(ROUNDINGS)}")


def read_length(text: str) -> float | None:
    """The last length with a unit in ``text``, in metres; None where there is none."""
    found = _LENGTH.findall(text)
    if not found:
        return None
    number, unit = found[-1]
    return to_metres(float(number), unit)


def _say_human(value: float, rng: np.random.Generator) -> str:
    step = next(step for limit, step in _COARSE_STEPS if value < limit)
    coarse = math.floor(value / step + 0.5) * step
    if rng.random() < COARSE_SHARE and coarse > 0:
        return _phrase(coarse, METER)
    # Imperial units only occur here, so their share is scaled up to be a fifth of all answers.
    imperial = rng.random() < IMPERIAL_SHARE / (1 - COARSE_SHARE)
    large, small = (FOOT, INCH) if imperial else (METER, CENTIMETER)
    unit = small if value < SMALL_UNIT_LIMIT and rng.random() < 0.5 else large
    digits = 1 if rng.random() < 0.5 else 2
    return _phrase(_significant(from_metres(value, unit), digits), unit)


def _say_preset(value: float, rng: np.random.Generator, preset: str) -> str:
    metric, share, imperial = next(row[1:] for row in _PRESETS[preset] if value < row[0])
    unit = metric if rng.random() < share else imperial
    decimals = 2 if preset == "srgpt" else int(rng.random() * 3)
    return _phrase(round(from_metres(value, unit), decimals), unit)


def _significant(value: float, digits: int) -> float:
    if value == 0:
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(value)))


def _phrase(number: float, unit: str) -> str:
    text = f"{number:.2f}".rstrip("0").rstrip(".")
    one, many = _SPOKEN[unit]
    return f"{text} {one if text == '1' else many}"
