"""The words by which the options of a closed question are known, and how they are spelled in running text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from spatial_lightning.evaluation.text import plain

EXCLAMATIONS = ("definitely", "absolutely", "definitely not", "absolutely not")
YES = ("yes", "true", "correct", "indeed", "yep", "yeah", "definitely", "absolutely", "はい", "是")
NO = (
    *("no", "false", "incorrect", "not true", "not correct", "nope", "definitely not", "absolutely not"),
    *("いいえ", "否", "不是"),
)
SYNONYMS = {
    "yes": YES,
    "true": YES,
    "no": NO,
    "false": NO,
    "left": ("left", "左"),
    "right": ("right", "右"),
}
_LABEL = re.compile(r"^\(?[A-Z]\s?[).:]\s?(?=\S)")
_FALSE_NO = r"(?!\s(?:doubt|one|other|way|problem|longer|matter|idea|clue)\b)"
_HYPHEN = re.compile(r"(?<=[a-z])-(?=[a-z])")
_SILENT = frozenset(("a", "an", "the", "of", "to", "in", "at", "is", "are", "it", "and", "or", "with", "from", "by"))
_VERB = r"(?:is|are|was|were|does|do|did|can|could|would|should|cannot|seems|looks|appears)\b"


def bare(text: str) -> str:
    """An option or answer without its label, article, quotation marks and closing punctuation, in lower case."""
    text = plain(text).strip()
    text = _LABEL.sub("", text, count=1)
    text = re.sub(r"^(?:the|an?)\s(?=\S)", "", text, count=1, flags=re.IGNORECASE)
    text = re.sub(r"[\s\"']+", " ", text.strip(" \t\n\"'.,!?;:")).strip().lower()
    return _HYPHEN.sub(" ", text)


def index_of_names(names: Sequence[str]) -> dict[str, int]:
    """Index of the option by each of its names: its words, their synonyms, and what alone tells it from the others."""
    index: dict[str, int] = {}
    for at, name in enumerate(names):
        synonyms = SYNONYMS.get(name, (name,)) if name not in (*YES, *NO) or is_closed(names) else (name,)
        for synonym in synonyms if name else ():
            index.setdefault(synonym, at)
    openings = [name.partition(",")[0] for name in names]
    if sorted(openings) == ["no", "yes"]:
        for at, opening in enumerate(openings):
            for synonym in SYNONYMS[opening]:
                index.setdefault(synonym, at)
    parts = [name.rpartition(" ") for name in names]
    if len({part[0] for part in parts}) == 1 and parts[0][0] and all(re.fullmatch("[a-z]", part[2]) for part in parts):
        for at, part in enumerate(parts):
            index.setdefault(part[2], at)
    return index


def telling_words(names: Sequence[str]) -> Mapping[str, int]:
    """Words that occur in one option only; none where some option has no such word, or the options share no word."""
    words = [{word for word in re.findall(r"[^\W\d_]{2,}", name)} - _SILENT for name in names]
    count = Counter(word for own in words for word in own)
    if len(names) < 2 or not any(n == len(names) for n in count.values()):
        return {}
    telling = {word: at for at, own in enumerate(words) for word in own if count[word] == 1}
    return telling if set(telling.values()) == set(range(len(names))) else {}


def is_closed(names: Iterable[str]) -> bool:
    """Whether a yes and a no are among the names: a lone ``true`` beside other things is a word like any other."""
    names = set(names)
    return bool(names.intersection(YES) and names.intersection(NO))


def spelled(name: str, closed: bool) -> str:
    """Pattern of an option in running text; a lone yes or no must be a clause of its own, or open the answer.

    Args:
        closed: whether the question is one of yes and no.
    """
    words = r"[\s\"'-]+".join(map(re.escape, name.split(" ")))
    if len(name) == 1 and name.isascii() and name.isalpha():
        return rf"(?<!\w)(?-i:{name.upper()})(?!\w|'|\s(?!is\b)[a-z])"  # "A cup" opens with an article
    if not name.isascii():
        return words
    if closed and name in EXCLAMATIONS:
        return rf"^{words}(?=[.!]|$)"
    if closed and name in (*YES, *NO):
        opened = r"(?:(?<=[.!?:;,(\n])|(?<=[.!?:;,(\n]\s)|(?<=\bis\s)|(?<='s\s))"
        return rf"(?:^{words}\b{_FALSE_NO}|{opened}{words}(?=\s?(?:[.,!;:)\n]|$)))"
    return rf"(?<!\w)(?<!\d\.){words}(?!\w|\.\d)"


def listing(names: Sequence[str]) -> re.Pattern[str]:
    """Pattern of all options in their order, with or without letters: a repetition of the question, not an answer.

    What goes on with a verb is none: ``(A) left. (B) right is wrong`` says something of the second.
    """
    if len(names) < 2:
        return re.compile(r"(?!)")
    worded, labelled = [], []
    for index, name in enumerate(names):
        words = r"(?:the\s)?" + r"[\s-]".join(map(re.escape, name.split(" ")))
        label = rf"\(?{chr(ord('A') + index)}[).:]" if index < 26 else "(?!)"
        labelled.append(rf"{label}(?:\s?{words}(?!\w))?+")
        worded.append(rf"(?<!\w){words}")
    gap = r"[\s,;/.:-]{0,4}(?:(?:or|and)\s)?"
    items = rf"(?:{gap.join(labelled)}|{gap.join(worded)})"
    return re.compile(rf"(?<!\bnot\s)(?<!\bnot\s\(){items}(?!\w|\s?{_VERB})", re.IGNORECASE)
