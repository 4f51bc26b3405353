"""Numbers in digits and in English words: what they look like in running text, and their value."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache

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

# "From that point five meters away" is no half: only behind these words does "point" open a number.
_OPENING = (
    r"(?:(?<!\S)(?<!\s)|(?<=\bis )|(?<=\babout )|(?<=\baround )|(?<=\broughly )|(?<=\bapproximately )|(?<=[:=] ))"
)

WHOLE = (
    rf"(?:(?:{_HUNDREDS}|a|{_BELOW_100})\s+thousand\b(?:,?\s+{_HUNDREDS}|{_REST})|{_HUNDREDS}|"
    rf"(?:(?:{_SMALL})\s+|{_OPENING})point(?:\s+(?:{_SMALL})\b)+|{_BELOW_100})"
)
"""Pattern of numbers in words from zero on, such as ``twenty-five``, ``a hundred and ten`` and ``one point five``."""
PART = r"(?:(?:a\s+|one\s+)?(?:half|quarter)|(?:a|one)\s+third|three[\s-]+quarters|two[\s-]+thirds)"
"""Pattern of parts of one, such as ``half`` and ``three quarters``."""
AND_A_PART = rf"[\s-]+and[\s-]+(?:(?:an?|one)[\s-]+)?(?:{_PARTS})\b(?!\s+an?\b)"
"""Pattern of what makes one and a half out of one."""
_AND_A_PART = re.compile(rf"(.+?)[\s-]+and[\s-]+(?:(?:an?|one)[\s-]+)?({_PARTS})")
DIGITS = (
    r"(?<![\w.,/])(?>(?<!region )[1-9]\d{0,2}(?: \d{3}){1,4}(?:[.,]\d{1,12})?(?![\d/])|"
    r"(?:\d{1,12}(?:\s+and)?\s+|[1-9]\d{0,11}-)\d{1,3}/\d{1,3}|\d{1,3}/\d{1,3}|"
    r"\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,12})?|\d{1,12}(?:[.,]\d{1,12})?(?:e[+-]?\d{1,2})?|\.\d{1,12})"
)
"""Pattern of numbers in digits: decimals with a point or a comma, grouped thousands, fractions and mixed fractions."""
_WORDS = (
    r"\b(?>(?:half\s+)?a\s+dozen|a\s+couple(?:\s+of)?|"
    rf"(?:{PART}|third)(?:\s+of)?(?:\s+an?\b)?|{WHOLE}|an?)\b"
)
NUMBER = rf"(?>(?:{DIGITS}|{_WORDS})(?:{AND_A_PART})?)"
"""Pattern of numbers in digits or in words; :func:`number` gives their value."""
_COUNTED = {"couple": 2.0, "dozen": 12.0, "half dozen": 6.0}
_TILDE = re.compile(r"(\d(?:\s?(?:[ckm]?m|met(?:er|re)s?|in|inch(?:es)?|ft|feet))?)(\s?)[~～]\2(?=\d)", re.IGNORECASE)
_STAR = re.compile(r"(?<=\d) \* (?=\d)")
_EXPONENT = re.compile("(?<=10)[⁻⁺]?[⁰¹²³⁴-⁹]{1,2}")
_GROUPED = re.compile(r"(?<![\w.,'])[1-9]\d{0,2}(?:'\d{3}){1,4}(?!\d)")
_POWER = re.compile(
    r"(?:(?<![\w.,])(\d{1,6}(?:[.,]\d{1,9})?)\s?(?:[×x·]|\\times|\\cdot)\s?|(?<![\w.,]))"
    r"10\s?\^\s?\{?\s?([+-]?\d{1,2})(?!\d)\s?\}?"
)
_TOLERANCE = re.compile(r"(?<=\d)\s?(?:±|\\pm\b|\+/-)\s?\d{1,6}(?:[.,]\d{1,6})?")


def signs_kept(text: str) -> str:
    """``text`` with signs between numbers that :func:`~.text.plain` would drop as typography in forms that it keeps.

    A tilde becomes the hyphen of a range, a star a multiplication sign, and a raised exponent of ten follows ``^``.
    """
    text = text.replace("&nbsp;", " ").replace("ʼ", "'")
    text = _STAR.sub(" × ", _TILDE.sub(r"\1-", text))
    return _EXPONENT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)


def written_out(text: str) -> str:
    """Plain ``text`` with numbers as :data:`DIGITS` has them: no powers of ten, tolerances (``± 0.1``) or ``1'500``."""
    text = _GROUPED.sub(lambda match: match[0].replace("'", ""), text)
    return _TOLERANCE.sub("", _POWER.sub(lambda match: f"{match[1] or 1}e{match[2]}", text))


@lru_cache(maxsize=4096)
def number(text: str) -> float:
    """The value of what :data:`NUMBER` matches; nan where a fraction divides by zero."""
    text = text.lower().strip()
    text, part = with_part(text)
    if part:
        return number(text) + part
    if "/" in text:
        *whole, above, below = re.findall(r"\d+", text)
        return float(whole[0] if whole else 0) + (float(above) / float(below) if float(below) else math.nan)
    if any(character.isdigit() for character in text):
        text = text.replace(" ", "")
        thousands = re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text)
        return float(text.replace(",", "") if thousands else text.replace(",", "."))
    counted = " ".join(word for word in text.split() if word not in ("a", "of"))
    return _COUNTED[counted] if counted in _COUNTED else value_of(text)


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
