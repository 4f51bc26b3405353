"""Closed questions as benchmarks publish them: options in a list or under letters, the true one as a letter or a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final

from spatial_lightning.data.corpora.fields import is_empty, list_field, plain_field
from spatial_lightning.data.corpora.turns import require
from spatial_lightning.records import RecordError

_LETTER = re.compile(r"\(?([A-Z])[).:]{0,2}")
_HIDDEN = "hidden"
_LISTED = re.compile(r"^\(?([A-Z])[).:]\s*(\S.*?)\s*$", re.MULTILINE)


class HiddenAnswerError(RecordError):
    """A question whose true answer was not published: it can be asked, not scored.

    Attributes:
        kind: under which such rows are counted.
    """

    kind: Final = "answer not published"


def published_answer(row: Mapping[str, Any], name: str = "answer") -> Any:
    """The answer in a column.

    Raises:
        RecordError: there is no such column.
        HiddenAnswerError: the column says nothing, or ``hidden``, as in test splits.
    """
    if name not in row:
        require(row, name)
    if is_empty(row[name]) or str(row[name]).strip().lower() == _HIDDEN:
        raise HiddenAnswerError(f"{name} is {row[name]!r}: it is not published, so that the question cannot be scored")
    return row[name]


def lettered_options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Options under the columns ``A``, ``B`` and so on, as many as are filled; none of an open question.

    Raises:
        RecordError: one is left out between others, or there is only one.
    """
    letters = [letter for letter in ascii_uppercase if not is_empty(row.get(letter))]
    if letters != list(ascii_uppercase[: len(letters)]) or len(letters) == 1:
        raise RecordError(
            f"options are given under {', '.join(letters)}; allowed: two or more from A on, none left out"
        )
    return tuple(plain_field(row, letter) for letter in letters)


def listed_options(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Options in a list.

    Raises:
        RecordError: no list, fewer than two, or one that is neither text nor a number.
    """
    options = tuple(plain_field({name: option}, name) for option in list_field(row, name))
    if len(options) < 2:
        raise RecordError(f"{name} holds {list(options)}; a choice needs two options or more")
    return options


def options_in(question: str) -> tuple[str, ...]:
    """Options that the text of a question lists as lines ``A. ...``, ``B. ...``; none where it does not."""
    found = _LISTED.findall(question)
    complete = [letter for letter, _ in found] == list(ascii_uppercase[: len(found)])
    return tuple(option for _, option in found) if complete and len(found) > 1 else ()


def by_letter(given: Any, options: Sequence[str]) -> str:
    """The option that a letter names: ``B``, ``(B)``, ``B.``; the option itself is understood, too.

    Raises:
        RecordError: no letter, or one beyond the options.
    """
    said = str(given).strip()
    letter = _LETTER.fullmatch(said)
    if letter is None and said in options:
        return said
    index = ascii_uppercase.index(letter[1]) if letter else len(options)
    if index >= len(options):
        raise RecordError(f"answer is {said[:80]!r}; allowed: A to {ascii_uppercase[len(options) - 1]}")
    return options[index]


def by_number(given: Any, options: Sequence[str]) -> str:
    """The option that a number from 0 names.

    Raises:
        RecordError: no number, or one beyond the options.
    """
    said = str(given).strip()
    if not said.isascii() or not said.isdigit() or int(said) >= len(options):
        raise RecordError(f"answer is {said[:80]!r}; allowed: 0 to {len(options) - 1}")
    return options[int(said)]
