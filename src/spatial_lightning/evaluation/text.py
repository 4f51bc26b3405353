"""Free text of models brought into one plain form before it is read: typography, markdown, TeX and number words."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator

_UP_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SMALL_NUMBERS = {word: value for value, word in enumerate(_UP_TO_NINETEEN.split())}
TENS = {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}

_TYPOGRAPHY = str.maketrans(
    {
        "ı": "i",
        "İ": "I",
        "’": "'",
        "‘": "'",
        "′": "'",
        "´": "'",
        "″": '"',
        "“": '"',
        "”": '"',
        "–": "-",
        "—": "-",
        "−": "-",
        "‑": "-",
    }
)
_TEX_GROUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|boxed)\s*\{([^{}]*)\}")
_TEX_DEGREE = re.compile(r"\^\s?\{?\s?\\circ\b\s?\}?|\\degrees?\b")
_TEX_SPACE = re.compile(r"\\[,;:! ]|~")
_MARKDOWN = re.compile(r"\*+|`+|\$+|(?<!\w)_+|_+(?!\w)")
_SPACES = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r" ?\n(?: ?\n)+ ?")
LONGEST = 20_000
"""Characters of an answer that are read at most: its first fifth and its last four fifths."""
_NEGATED = re.compile(r"(?<=\w)n't\b|(?<=\bcan)not\b", re.IGNORECASE)
_FINAL = re.compile(r"\bfinal\s+answer(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)


def spoken(text: str) -> str:
    """``text`` without a thought before the answer: what follows ``</think>``, of that what the last ``<answer>`` encloses.

    A thought that never ends has no answer after it.
    """
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    _, enclosed, answer = text.rpartition("<answer>")
    return answer.partition("</answer>")[0] if enclosed else text


def clip(text: str, longest: int = LONGEST) -> str:
    """What :func:`spoken` leaves, without its middle where it is longer than ``longest``: answers are stated first or last.

    Raises:
        ValueError: ``text`` is no text, e.g. None.
    """
    if not isinstance(text, str):
        raise ValueError(f"an answer must be text, got {text!r}; an answer that is missing is the empty text ''")
    text = spoken(text)
    return text if len(text) <= longest else f"{text[: longest // 5]}\n\n{text[len(text) - 4 * longest // 5 :]}"


def plain(text: str) -> str:
    """``text`` with full-width, typographic, markdown and TeX forms replaced by plain ones; line breaks are kept.

    Contracted negations are written out (``is not``), vulgar fractions become ``1/2`` set apart from the number before them;
    private-use and control characters vanish. Of enormous texts the middle is left out, as by :func:`clip`.

    Raises:
        ValueError: ``text`` is no text, e.g. None.
    """
    text = "".join(_spelled(character) for character in clip(text))
    text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY).replace("\u2044", "/")
    text = _TEX_GROUP.sub(r"\1", _TEX_SPACE.sub(" ", _TEX_DEGREE.sub("°", text)))
    return _BREAKS.sub("\n\n", _SPACES.sub(" ", _NEGATED.sub(" not", _MARKDOWN.sub("", text))))


def final_answer(text: str) -> str:
    """What follows the last ``final answer is`` (or ``final answer:``); all of ``text`` where nothing does."""
    for match in reversed(list(_FINAL.finditer(text))):
        if re.search(r"\w", text[match.end() :]):
            return text[match.end() :]
    return text


def conclusions(text: str, cue: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Spans from the last matches of ``cue``, the very last first, each to the end of its paragraph.

    Twenty are enough: a text with more is a model caught in a loop, and each span may be read in full.
    """
    for match in reversed(deque(cue.finditer(text), maxlen=20)):
        end = text.find("\n\n", match.end() + 2)
        yield match.end(), len(text) if end < 0 else end


def _spelled(character: str) -> str:
    if character == "″":
        return '"'
    if character in "º˚":  # an ordinal mark and a ring written for a degree sign
        return "°"
    category = unicodedata.category(character)
    if category in ("Co", "Cs", "Cf") or (category == "Cc" and character not in "\n\t\r"):
        return ""
    if category == "No" and "\u2044" in (form := unicodedata.normalize("NFKC", character)):
        return f" {form}"
    return character
