"""Which option of a closed question the free text of a model picks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spatial_lightning.evaluation import statements
from spatial_lightning.evaluation.contrasts import after_denial, asserted, rejected
from spatial_lightning.evaluation.option_names import (
    NO,
    YES,
    bare,
    index_of_names,
    is_closed,
    listing,
    spelled,
    telling_words,
)
from spatial_lightning.evaluation.quantities import parse_quantity
from spatial_lightning.evaluation.text import SMALL_NUMBERS, clip, conclusions, final_answer, plain
from spatial_lightning.evaluation.wrappings import boxed_as_answer, unwrapped

_LONGEST_WHOLE = 120  # characters of an answer that may be an opening and an option alone
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
    text = final_answer(unwrapped(plain(boxed_as_answer(clip(answer))))).strip()
    return _Reader(options).read(text) if options else None


def _first_sentence(text: str) -> str:
    found = statements.SENTENCE.search(text)
    return found[0] if found else ""


class _Reader:
    """The options of one question, ready to be looked for in plain text."""

    def __init__(self, options: Sequence[str], index: Mapping[str, int] | None = None) -> None:
        self.options, self.count = options, len(options)
        names = [bare(option) for option in options]
        self.numeric = all(name.isdigit() for name in names)
        self.index = index_of_names(names) if index is None else index
        self.telling = telling_words(names) if index is None else {}
        closed = is_closed(self.index)
        # One group a name: which one matched is then known without comparing cases a second time.
        self.spelled = sorted(self.index, key=len, reverse=True)
        self.names = re.compile(
            "|".join(f"({spelled(name, closed)})" for name in self.spelled) or r"(?!)", re.IGNORECASE
        )
        # "It is true, is not it": what follows a yes or no does not deny it.
        self.closed = {self._words(name) for name in self.index if closed and name in (*YES, *NO)}
        self.worded = [re.compile(rf"\s?{spelled(name, closed)}" if name else "", re.IGNORECASE) for name in names]
        self.listing = listing(names)

    def read(self, text: str) -> Pick | None:
        """The option that ``text`` picks; None where that cannot be decided."""
        if self.numeric:
            text = re.sub(r"[A-Za-z]+", lambda word: str(SMALL_NUMBERS.get(word[0].lower(), word[0])), text)
        if (whole := self._whole(text)) is not None:
            return whole
        if (corrected := self._self_corrected(text)) is not None:
            return corrected
        text = self.listing.sub("\n", text).strip(" \n?")
        for start, end in conclusions(text, statements.ANSWER):
            if (pick := self._stated(text[start:end])) is not None:
                return pick
        if (pick := self._declared(text) or self._leading(text)) is not None:
            return pick
        for start, end in conclusions(text, statements.THOUGHT):
            if (pick := self._opening_letter(text[start:end], statements.THOUGHT_LETTER)) is not None:
                return pick
        for start, end in conclusions(text, statements.CONCLUSION):
            if (pick := self._concluded(text[start:end])) is not None:
                return pick
        sentences = statements.SENTENCE.findall(statements.REPLY.sub("", text))
        if statements.BRACKETED.search(text):
            return self._last_bracketed(sentences)
        pick = self._best_sentence(sentences)
        return pick if pick or self.names.search(text) else self._quantity(text) or self._told(text)

    def _name(self, match: re.Match[str]) -> str:
        return self.spelled[(match.lastindex or 1) - 1]

    def _words(self, name: str) -> Pick:
        return Pick(self.index[name], TEXT)

    def _letter(self, letter: str | None) -> Pick | None:
        index = ord(letter.upper()) - ord("A") if letter and letter.isascii() else -1
        return Pick(index, LETTER) if 0 <= index < self.count else None

    def _whole(self, text: str) -> Pick | None:
        said = bare(text)
        if said in self.index:
            return self._words(said)
        if self.numeric and said in ("none", "there are none") and "0" in self.index:
            return self._words("0")
        letter = said.strip(" ().:")
        if len(letter) == 1:
            return self._letter(letter)
        opening = statements.OPENING.match(text) if len(text) <= _LONGEST_WHOLE else None
        return self._whole(text[opening.end() :]) if opening else None

    def _self_corrected(self, text: str) -> Pick | None:
        """What a short last correction says: ``Left? No, right.``; after a yes-no question ``No`` is the answer."""
        for found in statements.CORRECTION.finditer(text, max(0, len(text) - 2 * statements.LONGEST_CORRECTION)):
            if len(text) - found.end() <= statements.LONGEST_CORRECTION and not (found["no"] and self.closed):
                rest = text[found.end() :].strip()
                if rest and (pick := self.read(rest)) is not None:
                    return pick
        return None

    def _declared(self, text: str) -> Pick | None:
        """The one letter that is called correct."""
        picks = {
            self._letter(found[1])
            for found in statements.DECLARED.finditer(text)
            if not (found[2] and "right" in self.index)
            and not statements.NOT_DECLARED.search(text, max(0, found.start() - 20), found.start())
        }
        return picks.pop() if len(picks) == 1 else None

    def _quantity(self, text: str) -> Pick | None:
        """The option that is the same length, angle or time in other words, where all options are such."""
        if not any(character.isdigit() for option in self.options for character in option):
            return None
        said, values = parse_quantity(text), [parse_quantity(option) for option in self.options]
        if said is None or None in values:
            return None
        same = [
            index
            for index, value in enumerate(values)
            if value and value.kind == said.kind and math.isclose(value.value, said.value, rel_tol=1e-6)
        ]
        return Pick(same[0], TEXT) if len(same) == 1 else None

    def _told(self, text: str) -> Pick | None:
        """The one option whose telling words are said, e.g. ``left`` of ``A mug to the left of a table``."""
        if not self.telling:
            return None
        reader = _Reader(self.options, self.telling)
        text = re.sub(r"\bon\s(?=the\s(?:left|right)\b)", "to ", text, flags=re.IGNORECASE)
        picks = {pick for sentence in statements.SENTENCE.findall(text) for pick in reader._named(sentence)}
        return picks.pop() if len(picks) == 1 else None

    def _stated(self, text: str) -> Pick | None:
        """What the words after ``answer is`` pick: a letter on its own, else the first sentence that names options."""
        return self._opening_letter(text, statements.STATED) or self._first_named(text)

    def _concluded(self, text: str) -> Pick | None:
        """What the words after ``therefore`` pick; a lone capital letter is enough there."""
        return self._opening_letter(text, statements.CONCLUDED) or self._first_named(text)

    def _opening_letter(self, text: str, form: re.Pattern[str]) -> Pick | None:
        """The letter that ``text`` opens with, or with what it corrects that to: ``not A but B``."""
        for start, end in asserted(text):
            match = form.match(text, start)
            if match and not rejected(text, match.end(1)) and (pick := self._letter(match[1])) is not None:
                return None if self._left_open(text, match.end(1), pick) else self._reworded(text, match.end(1), pick)
            if text[start:end].strip():
                return None
        return None

    def _leading(self, text: str) -> Pick | None:
        match = statements.LEADING.match(text)
        reason = None if match else statements.REASON.match(text)
        if reason and reason[2] and self.names.search(_first_sentence(text)):
            reason = None  # "B is left of A" says where B is
        found = match or reason
        if found and not (self._rejected(text, found) or rejected(text, found.end(found.lastindex or 0))):
            at = found.end(found.lastindex or 0)
            pick = self._letter(found[found.lastindex or 0])
            return None if pick is None or self._left_open(text, at, pick) else self._reworded(text, at, pick)
        match = self.names.match(text)
        name = self._name(match) if match else ""
        return self._words(name) if name in (*YES, *NO) else None

    def _left_open(self, text: str, end: int, pick: Pick) -> bool:
        """Whether a letter up to ``end``, with or without its option's words, is one of several: ``(A) or (B)``."""
        closing = re.compile(r"[).:]?").match(text, end)
        words = self.worded[pick.index].match(text, closing.end()) if closing else None
        return bool(
            statements.ALTERNATIVE.match(text, end) or (words and statements.ALTERNATIVE.match(text, words.end()))
        )

    def _reworded(self, text: str, end: int, pick: Pick) -> Pick:
        """The option whose words alone follow a letter up to ``end``; where the two disagree the words count."""
        gap = statements.WORDS_FOLLOW.match(text, end)
        words = self.names.match(text, gap.end()) if gap else None
        if words is None or len(self._name(words)) == 1 or not statements.CLAUSE_END.match(text, words.end()):
            return pick
        return pick if self._words(self._name(words)).index == pick.index else self._words(self._name(words))

    def _first_named(self, text: str) -> Pick | None:
        for sentence in statements.SENTENCE.findall(text):
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
        found = [
            match for match in statements.BRACKETED.finditer(sentence) if denied or not self._rejected(sentence, match)
        ]
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
        labels = [
            (match.start(), match.end(1), self._letter(match[1])) for match in statements.LABELLED.finditer(sentence)
        ]
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
