"""Which option of a closed question the free text of a model picks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from spatial_lightning.evaluation.contrasts import after_denial, asserted, rejected
from spatial_lightning.evaluation.text import SMALL_NUMBERS, conclusions, final_answer, plain

_YES = ("yes", "true", "correct", "indeed", "はい", "是")
_NO = ("no", "false", "incorrect", "not true", "not correct", "いいえ", "否", "不是")
_SYNONYMS = {
    "yes": _YES,
    "true": _YES,
    "no": _NO,
    "false": _NO,
    "left": ("left", "左"),
    "right": ("right", "右"),
}
_OPTION_LABEL = re.compile(r"^\(?[A-Z]\s?[).:]\s?(?=\S)")
_LETTER = r"(?:(?:option|choice|letter|answer)\s)?\"?"
_BRACKETED = re.compile(r"\(\s?([A-Za-z])\s?\)|(?<![\w(])([A-Z])\)")
_LABELLED = re.compile(
    r"\b(?:option|choice|point|box|label(?:l?ed)?|marked|choose|select|pick|go\swith|it(?:\sis|'s))\s\"?"
    r"(?-i:([B-Z]|A(?!\s(?!is\b)[a-z])))\b",
    re.IGNORECASE,
)
_LEADING = re.compile(rf"{_LETTER}(?:\(\s?([A-Za-z])\s?\)|([A-Z])(?:\"|[).:,]|\n|$)|([a-z])[).]?$)")
_STATED = re.compile(
    rf"\s?{_LETTER}\(?([A-Za-z])(?:[)\].:,;\"']|\s?$|\s?\n|\s(?:is|because|since|as|-)\b)", re.IGNORECASE
)
_ANSWER = re.compile(r"\b(?:answer|choice|option)(?:\s(?:is|would\sbe|should\sbe)\b\s?:?|\s?:)", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|so|overall|(?:in\s)?conclusion|based\son\s(?:this|these|the|my))\b", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?:[^.!?\n]|(?<=\d)\.(?=\d))+(?:[.!?\n]+|$)")
_CONCLUDED = re.compile(
    rf"[\s,:]*(?i:{_LETTER}|it\s(?:is|must\sbe)\s)\(?([A-Z])(?:[)\].:,;\"']|\s?$|\s?\n|\s(?:is|because|since|as|-)\b)"
)
_FALSE_NO = r"(?!\s(?:doubt|one|other|way|problem|longer|matter|idea|clue)\b)"


LETTER = "option letter"
TEXT = "option text"


class Pick(NamedTuple):
    """An option that was picked: its index, and whether by its letter or by its words (``option letter``, ``option text``)."""

    index: int
    rule: str


def extract_choice(answer: str, options: Sequence[str]) -> int | None:
    """Index of the option that ``answer`` picks, or None where that cannot be decided.

    Understood are letters (``(A)``, ``A.``, ``Answer: B``) in the order of ``options``, the options' own words, and the
    usual synonyms of yes and no. Only what follows ``the final answer is`` counts where that is written. Otherwise the
    last stated answer wins, then one given at once, then the last conclusion, then the last letter in brackets, then
    the first sentence that names one option. Repeating the list of options picks none of them.

    Raises:
        ValueError: ``answer`` is no text, e.g. None.
    """
    pick = read_choice(answer, options)
    return None if pick is None else pick.index


def read_choice(answer: str, options: Sequence[str]) -> Pick | None:
    """As :func:`extract_choice`, with the rule by which the option was found.

    Raises:
        ValueError: ``answer`` is no text, e.g. None.
    """
    text = final_answer(plain(answer)).strip()
    return _Reader(options).read(text) if options else None


class _Reader:
    """The options of one question, ready to be looked for in plain text."""

    def __init__(self, options: Sequence[str]) -> None:
        self.count = len(options)
        names = [_bare(option) for option in options]
        self.numeric = all(name.isdigit() for name in names)
        self.index: dict[str, int] = {}
        for index, name in enumerate(names):
            for synonym in _SYNONYMS.get(name, (name,)) if name else ():
                self.index.setdefault(synonym, index)
        # One group a name: which one matched is then known without comparing cases a second time.
        self.spelled = sorted(self.index, key=len, reverse=True)
        self.names = re.compile("|".join(f"({_spelled(name)})" for name in self.spelled) or r"(?!)", re.IGNORECASE)
        # "It is true, is not it": what follows a yes or no does not deny it.
        self.closed = {self._words(name) for name in self.index if name in (*_YES, *_NO)}
        self.worded = [re.compile(rf"\s?{_spelled(name)}" if name else "", re.IGNORECASE) for name in names]
        self.listing = _listing(names)

    def read(self, text: str) -> Pick | None:
        """The option that ``text`` picks; None where that cannot be decided."""
        if self.numeric:
            text = re.sub(r"[A-Za-z]+", lambda word: str(SMALL_NUMBERS.get(word[0].lower(), word[0])), text)
        if (whole := self._whole(text)) is not None:
            return whole
        text = self.listing.sub("\n", text).strip()
        for start, end in conclusions(text, _ANSWER):
            if (pick := self._stated(text[start:end])) is not None:
                return pick
        if (pick := self._leading(text)) is not None:
            return pick
        for start, end in conclusions(text, _CONCLUSION):
            if (pick := self._concluded(text[start:end])) is not None:
                return pick
        sentences = _SENTENCE.findall(text)
        return self._last_bracketed(sentences) if _BRACKETED.search(text) else self._best_sentence(sentences)

    def _name(self, match: re.Match[str]) -> str:
        return self.spelled[(match.lastindex or 1) - 1]

    def _words(self, name: str) -> Pick:
        return Pick(self.index[name], TEXT)

    def _letter(self, letter: str | None) -> Pick | None:
        index = ord(letter.upper()) - ord("A") if letter and letter.isascii() else -1
        return Pick(index, LETTER) if 0 <= index < self.count else None

    def _whole(self, text: str) -> Pick | None:
        bare = _bare(text)
        if bare in self.index:
            return self._words(bare)
        letter = bare.strip(" ().:")
        return self._letter(letter) if len(letter) == 1 else None

    def _stated(self, text: str) -> Pick | None:
        """What the words after ``answer is`` pick: a letter on its own, else the first sentence that names options."""
        return self._opening_letter(text, _STATED) or self._first_named(text)

    def _concluded(self, text: str) -> Pick | None:
        """What the words after ``therefore`` pick; a lone capital letter is enough there."""
        return self._opening_letter(text, _CONCLUDED) or self._first_named(text)

    def _opening_letter(self, text: str, form: re.Pattern[str]) -> Pick | None:
        """The letter that ``text`` opens with, or with what it corrects that to: ``not A but B``."""
        for start, end in asserted(text):
            match = form.match(text, start)
            if match and not rejected(text, match.end(1)) and (pick := self._letter(match[1])) is not None:
                return pick
            if text[start:end].strip():
                return None
        return None

    def _leading(self, text: str) -> Pick | None:
        match = _LEADING.match(text)
        if match and not self._rejected(text, match):
            return self._letter(next(filter(None, match.groups()), None))
        match = self.names.match(text)
        name = self._name(match) if match else ""
        return self._words(name) if name in (*_YES, *_NO) else None

    def _first_named(self, text: str) -> Pick | None:
        for sentence in _SENTENCE.findall(text):
            if named := self._named(sentence):
                return named[0] if len(set(named)) == 1 else None
        return None

    def _last_bracketed(self, sentences: list[str]) -> Pick | None:
        for sentence in reversed(sentences):
            if named := self._bracketed(sentence) or self._corrected(sentence):
                return named[0] if len(set(named)) == 1 else None
        return None

    def _best_sentence(self, sentences: list[str]) -> Pick | None:
        """The first sentence that names one option; where three or more were all discussed, the last one after that."""
        mentions = [(self._named(sentence), self._named(sentence, denied=True)) for sentence in sentences]
        single = [(named, bool(own)) for own, every in mentions for named in [own or every] if len(set(named)) == 1]
        order = [named[0].index for named, _ in single]
        picks = [named[0] for named, own in single if own]
        if self.count > 2 and len(set(order)) == self.count:
            discussed = max(order.index(index) for index in range(self.count)) + 1
            later = [named[0] for named, own in single[discussed:] if own]
            return later[-1] if later else picks[0] if len(set(picks)) == 1 else None
        return picks[0] if picks else None

    def _rejected(self, text: str, match: re.Match[str]) -> bool:
        """Whether the letter in ``match``, with or without the option's words behind it, is then called wrong."""
        pick = self._letter(next(filter(None, match.groups()), None))
        words = self.worded[pick.index].match(text, match.end()) if pick else None
        return rejected(text, words.end() if words else match.end())

    def _bracketed(self, sentence: str, denied: bool = False) -> list[Pick]:
        found = [match for match in _BRACKETED.finditer(sentence) if denied or not self._rejected(sentence, match)]
        return self._first_asserted(sentence, [(match.start(), self._letter(match[1] or match[2])) for match in found])

    def _named(self, sentence: str, denied: bool = False) -> list[Pick]:
        """Options that ``sentence`` asserts, apart from comparisons and denials; letters in brackets come alone.

        Args:
            denied: also those that it asserts something of only to deny it, as ``A`` in ``A is wrong``.
        """
        if bracketed := self._bracketed(sentence, denied):
            return bracketed
        names = [
            (match.start(), match.end(), self._words(self._name(match))) for match in self.names.finditer(sentence)
        ]
        labels = [(match.start(), match.end(1), self._letter(match[1])) for match in _LABELLED.finditer(sentence)]
        for found in (names, labels):
            kept = [
                (at, pick) for at, end, pick in found if denied or pick in self.closed or not rejected(sentence, end)
            ]
            if named := self._first_asserted(sentence, kept):
                return named
        return self._corrected(sentence)

    def _corrected(self, sentence: str) -> list[Pick]:
        pick = self._whole(after_denial(sentence))
        return [] if pick is None else [pick]

    def _first_asserted(self, sentence: str, found: list[tuple[int, Pick | None]]) -> list[Pick]:
        """Of picks by where they stand, those in the first asserted part of a sentence that has any."""
        for start, end in asserted(sentence) if found else ():
            # A name may begin where a denial does: "not true".
            if picks := [pick for at, pick in found if start <= at <= end and pick is not None]:
                return picks
        return []


def _key(text: str) -> str:
    return re.sub(r"[\s\"']+", " ", text).strip().lower()


def _bare(text: str) -> str:
    """An option or answer without its label, article, quotation marks and closing punctuation, in lower case."""
    text = plain(text).strip()
    text = _OPTION_LABEL.sub("", text, count=1)
    text = re.sub(r"^(?:the|an?)\s(?=\S)", "", text, count=1, flags=re.IGNORECASE)
    return _key(text.strip(" \t\n\"'.,!;:"))


def _spelled(name: str) -> str:
    """Pattern of an option in running text; a lone yes or no must be a clause of its own, or open the answer."""
    words = r"[\s\"']+".join(map(re.escape, name.split(" ")))
    if len(name) == 1 and name.isascii() and name.isalpha():
        return rf"(?<!\w)(?-i:{name.upper()})(?!\w|'|\s(?!is\b)[a-z])"  # "A cup" opens with an article
    if not name.isascii():
        return words
    if name in (*_YES, *_NO):
        opened = r"(?:(?<=[.!?:;,(\n])|(?<=[.!?:;,(\n]\s)|(?<=\bis\s))"
        return rf"(?:^{words}\b{_FALSE_NO}|{opened}{words}(?=\s?(?:[.,!;:)\n]|$)))"
    return rf"(?<!\w)(?<!\d\.){words}(?!\w|\.\d)"


def _listing(names: list[str]) -> re.Pattern[str]:
    """Pattern of all options in their order, with or without letters: a repetition of the question, not an answer."""
    if len(names) < 2:
        return re.compile(r"(?!)")
    items = []
    for index, name in enumerate(names):
        words = r"(?:the\s)?" + r"\s".join(map(re.escape, name.split(" ")))
        label = rf"\(?{chr(ord('A') + index)}[).:]" if index < 26 else "(?!)"
        items.append(rf"(?:{label}\s?(?:{words})?|(?<!\w){words})")
    gap = r"[\s,;/.:-]{0,4}(?:(?:or|and)\s)?"
    return re.compile(rf"(?<!\bnot\s)(?<!\bnot\s\()(?:{gap.join(items)})(?!\w)", re.IGNORECASE)
