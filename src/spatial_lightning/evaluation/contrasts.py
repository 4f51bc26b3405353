"""What a sentence asserts and what it only sets the answer against, e.g. ``not left but right``."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DENIAL = r"not(?!\sonly\b)|none|neither|nor"
# What follows these words is what the answer is set against, not the answer.
_ASIDE = re.compile(
    rf"\b(?:than|compared\s(?:to|with)|rather|instead|unlike|as\sopposed\sto|while|whereas|(?P<denial>{_DENIAL}))\b",
    re.IGNORECASE,
)
# Behind these words a sentence says what is the case after all.
_TURN = re.compile(
    r"\bbut\b|\b(?:rather|instead)\b(?!\s(?:than|of)\b)|\b(?:so|thus|hence|therefore)\b|[;:]|\s-\s|"
    r"(?:,\s?|-)(?=(?:it|this|that|they|these|the\s(?:\w+\s)?(?:answer|choice|option))\b)",
    re.IGNORECASE,
)
_OPENING = re.compile(r"\W*(?:rather\sthan|instead\sof|unlike|as\sopposed\sto)\b[^,]*,", re.IGNORECASE)
_WRONG = r"(?:wrong|incorrect|false|excluded|eliminated|impossible|ruled\sout)\b"
_REJECTED = re.compile(
    r"[)\"']*\s(?:(?:is|are|was|were|seems|looks|appears|would\sbe|must\sbe)\s(?:(?:clearly|definitely|also|obviously|therefore|simply)\s)?"
    rf"(?:not\b|{_WRONG})|(?:can|could|does|do|would|should)\snot\b)",
    re.IGNORECASE,
)
_NOT_BEFORE = re.compile(
    r"\b(?:not|rather\sthan|instead\sof)\s+(?:(?:about|around|approximately|exactly|really|quite)\s+)?$", re.IGNORECASE
)
_WRONG_AFTER = re.compile(rf"\s(?:is|was|would\sbe|seems)\s(?:not\s(?:right|correct|it)\b|{_WRONG})", re.IGNORECASE)
_MOST_SPANS = 20


def asserted(sentence: str) -> Iterator[tuple[int, int]]:
    """Spans of a sentence that say what is the case: up to a comparison or denial, and again behind a turn such as ``but``.

    Twenty at most: a sentence with more is a model caught in a loop.
    """
    opening = _OPENING.match(sentence)
    start = opening.end() if opening else 0
    for _ in range(_MOST_SPANS):
        aside = _ASIDE.search(sentence, start)
        yield start, aside.start() if aside else len(sentence)
        turn = _TURN.search(sentence, aside.end()) if aside else None
        if turn is None:
            return
        start = turn.end()


def after_denial(sentence: str) -> str:
    """What is put behind a denied thing with no more than a comma, e.g. ``right`` of ``not left, right``; else nothing."""
    aside = _ASIDE.search(sentence)
    if aside is None or (aside["denial"] or "").lower() != "not":
        return ""
    denied, comma, rest = sentence[aside.end() :].partition(",")
    return rest.strip() if comma and denied.strip() else ""


def rejected(sentence: str, end: int) -> bool:
    """Whether what is named up to ``end`` is then called wrong or denied, as in ``A is wrong`` and ``left is not right``."""
    return _REJECTED.match(sentence, end) is not None


def without_denied(sentence: str) -> str:
    """A sentence without the clause from ``not`` to the turn that corrects it; as it is where nothing corrects it."""
    aside = next((match for match in _ASIDE.finditer(sentence) if match["denial"]), None)
    turn = _TURN.search(sentence, aside.end()) if aside else None
    return sentence if aside is None or turn is None else sentence[: aside.start()] + sentence[turn.end() :].lstrip()


def denied_at(text: str, start: int, end: int) -> bool:
    """Whether a number from ``start`` to ``end`` is one that the text denies: ``not 3 m but``, ``3 m is wrong``."""
    before = _NOT_BEFORE.search(text, max(0, start - 40), start)
    return before is not None or _WRONG_AFTER.match(text, end) is not None
