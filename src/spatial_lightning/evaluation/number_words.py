"""Numbers in English words: what they look like in running text, and their value."""

from __future__ import annotations

import re

from spatial_lightning.evaluation.text import SMALL_NUMBERS, TENS

_FRACTIONS = {
    "half": 0.5,
    "quarter": 0.25,
    "third": 1 / 3,
    "three quarters": 0.75,
    "two thirds": 2 / 3,
}
_PARTS = r"half|quarter|third|three[\s-]+quarters|two[\s-]+thirds"
_ONES = "|".join(list(SMALL_NUMBERS)[1:10])
_SMALL = "|".join(sorted(SMALL_NUMBERS, key=len, reverse=True))
_BELOW_100 = rf"(?:(?:{'|'.join(TENS)})(?:[\s-]+(?:{_ONES})\b)?|{_SMALL})\b"
# "Between a hundred and two hundred" are two numbers.
_REST = rf"(?:\s+(?:and\s+)?{_BELOW_100}(?!\s+(?:hundred|thousand|dozen|and\s+an?\s+half)\b))?"
_HUNDREDS = rf"(?:a|{_SMALL})\s+hundred\b{_REST}"

WHOLE = (
    rf"(?:(?:{_HUNDREDS}|a|{_BELOW_100})\s+thousand\b(?:,?\s+{_HUNDREDS}|{_REST})|{_HUNDREDS}|"
    rf"(?:{_SMALL})\s+point(?:\s+(?:{_SMALL})\b)+|{_BELOW_100})"
)
"""Pattern of numbers in words from zero on, such as ``twenty-five``, ``a hundred and ten`` and ``one point five``."""
PART = r"(?:(?:a\s+|one\s+)?(?:half|quarter)|(?:a|one)\s+third|three[\s-]+quarters|two[\s-]+thirds)"
"""Pattern of parts of one, such as ``half`` and ``three quarters``."""
AND_A_PART = rf"\s+and\s+(?:(?:an?|one)\s+)?(?:{_PARTS})\b(?!\s+an?\b)"
"""Pattern of what makes one and a half out of one."""
_AND_A_PART = re.compile(rf"(.+?)\s+and\s+(?:an?\s+|one\s+)?({_PARTS})")


def with_part(text: str) -> tuple[str, float]:
    """A number in lower case without the part behind it, and the value of that: ``two and a half`` is ``two`` and 0.5."""
    match = _AND_A_PART.fullmatch(text)
    return (match[1], _FRACTIONS[re.sub(r"[\s-]+", " ", match[2])]) if match else (text, 0.0)


def value_of(text: str) -> float:
    """The value of words in lower case that :data:`WHOLE` or :data:`PART` match; ``a`` alone is one."""
    words = re.findall(r"[a-z]+", text)
    fraction = " ".join(word for word in words if word not in ("a", "an", "one", "of"))
    if fraction in _FRACTIONS:
        return _FRACTIONS[fraction]
    if "point" in words:
        at = words.index("point")
        return float(
            f"{value_of(' '.join(words[:at])):.0f}.{''.join(str(SMALL_NUMBERS[word]) for word in words[at + 1 :])}"
        )
    total = current = 0
    for word in words:
        if word == "hundred":
            current = max(current, 1) * 100
        elif word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        elif word in ("a", "an"):
            current = 1
        else:
            current += TENS.get(word, SMALL_NUMBERS.get(word, 0))
    return float(total + current)
