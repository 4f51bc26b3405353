"""What answers are wrapped in, brought into one form: tokens, tags, JSON, boxes, headings and openings."""

from __future__ import annotations

import re

_BOX = re.compile(
    r"\\f?box(?:ed)?\s*\{((?:[^{}]|\{[^{}]*\}){1,400})\}|<\|begin_of_box\|>(.{1,400}?)<\|end_of_box\|>", re.DOTALL
)
_MATHS = re.compile(r"\\[\[\]()]")
_FIELD = re.compile(
    r"[\"'](?:final[ _]?)?(?:answer|choice|option)[\"']\s?:\s{0,3}"
    r"(?:\[\s?)?(?:\"([^\"\n]*)\"|'([^'\n]*)'|(true|false|-?\d+(?:\.\d+)?)\b)(?!\s?,\s?[\"'][^\"'\n]*[\"']\s?\])",
    re.IGNORECASE,
)
_MARKED = re.compile(r"\[ANSWER\](.{0,400}?)\[/ANSWER\]", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<\|[^<>|\n]{1,40}\|>|</?[A-Za-z][\w-]{0,30}\s?/?>")
_LETTER_IN_BRACKETS = re.compile(r"[\[{【]\s?[\"']?([A-Z])[\"']?\s?[\]}】]")
_HEADING = re.compile(r"^#*\s?((?:final\s|correct\s)?(?:answer|choice)):?\s?\n+(?=\S)", re.IGNORECASE | re.MULTILINE)
_EXCHANGE = re.compile(r"^Q:[^\n]*\n+A:", re.IGNORECASE)
_SPEAKER = re.compile(r"^(?:assistant|model|response|output)\s?:\s?", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[→✅✓✔➡⇒•►▶☑]\s?|[->]>?\s|\d{1,2}[.)]\s(?=\(?[A-Z][).]{0,2}$))+")
_ASKED = re.compile(r"\b(?:true\sor\sfalse|yes\sor\sno)\s?\?\s?", re.IGNORECASE)
_FOREIGN = re.compile(
    r"(?:答案(?:是|为|為)?|(?<!\w)选择?(?=\s?:?\s?[A-Z](?!\w))|\bla\srespuesta(?:\s(?:correcta|final))?\ses\b|"
    r"\bdie\s(?:richtige\s)?antwort\s(?:ist|lautet)\b|\bla\s(?:bonne\s)?réponse\sest\b|\bответ\b)\s?:?\s?",
    re.IGNORECASE,
)


def boxed_as_answer(raw: str) -> str:
    """``raw`` with what stands in a box, e.g. ``\\boxed{B}``, written as an answer of its own: ``Answer: B``."""
    return _BOX.sub(lambda box: f"\n\nAnswer: {(box[1] or box[2]).strip()}\n\n", raw)


def unwrapped(text: str) -> str:
    """Plain text without special tokens, tags, bullets and speakers; of JSON with an ``answer`` field only that field."""
    if fields := list(_FIELD.finditer(text)):
        return next(filter(None, fields[-1].groups()), "").strip()
    text = _TAG.sub("", _MARKED.sub(r"\n\nAnswer: \1\n\n", _MATHS.sub(" ", text)))
    text = _FOREIGN.sub("Answer: ", _HEADING.sub(r"\1: ", _ASKED.sub("", _LETTER_IN_BRACKETS.sub(r"(\1)", text))))
    text = _EXCHANGE.sub("Answer:", text.strip())
    return _BULLET.sub("", _SPEAKER.sub("", text)).strip()
