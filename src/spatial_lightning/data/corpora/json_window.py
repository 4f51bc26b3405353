"""A stretch of a JSON file of any size as text, moved forward value by value."""

from __future__ import annotations

import json
import re
from typing import BinaryIO

from spatial_lightning.data.corpora.rows import MAX_ROW_BYTES, json_problem

WINDOW = 4 * 2**20
FIRST = 64 * 2**10
"""Bytes of the first window: a single row is read without reading megabytes behind it."""
_BLANK = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[{}\[\]]', re.DOTALL)
_SCALAR_END = re.compile(r'[,{}\[\]"\n]')
_STEP = {"{": 1, "[": 1, "}": -1, "]": -1}


class Window:
    """A stretch of a JSON file as text, moved forward value by value.

    Bytes that are no UTF-8 stand as lone surrogates, which keeps offsets exact and spoils their own row only.

    Attributes:
        offset, line: of the present place in the file.
        lost: the end of a value could not be found, nothing behind it can be read.
    """

    def __init__(self, file: BinaryIO, offset: int, line: int) -> None:
        self.file, self.offset, self.line, self.lost = file, offset, line, False
        file.seek(offset)
        self._bytes, self._text, self._place, self._ascii = b"", "", 0, True
        self._decoder = json.JSONDecoder()
        self._size = FIRST
        self._fill()
        if offset == 0 and self._text.startswith("\ufeff"):
            self.advance(1)

    def _fill(self) -> bool:
        """Read on behind the present place; False at the end of the file."""
        rest = self._text[self._place :].encode("utf-8", "surrogateescape")
        new = self.file.read(max(self._size, len(rest)))
        self._size = WINDOW
        self._bytes = rest + new
        self._text, self._place = self._bytes.decode("utf-8", "surrogateescape"), 0
        self._ascii = self._text.isascii()
        return bool(new)

    def advance(self, characters: int) -> None:
        """Move on within the window."""
        end = self._place + characters
        if self._ascii:
            self.offset += characters
        else:
            self.offset += len(self._text[self._place : end].encode("utf-8", "surrogateescape"))
        self.line += self._text.count("\n", self._place, end)
        self._place = end

    def next(self) -> str:
        """Move to the next character that is not blank and return it; empty at the end of the file."""
        while True:
            match = _BLANK.match(self._text, self._place)
            assert match is not None
            self.advance(match.end() - self._place)
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._fill():
                return ""

    def key(self) -> str | None:
        """Move behind a key and its colon; None where there is none."""
        key, error = self.value()
        if error is not None or not isinstance(key, str) or self.next() != ":":
            return None
        self.advance(1)
        return key

    def value(self) -> tuple[object, tuple[str, str] | None]:
        """Parse the value here and move behind it, behind a damaged one as well; the value, or what is wrong and its kind."""
        begin = self._place
        try:
            value, end = self._decoder.raw_decode(self._text, begin)
        except (ValueError, RecursionError) as error:
            return self._damaged(error)
        if end == len(self._text) and not isinstance(value, dict | list | str) and self._fill():
            return self.value()  # a number may go on
        valid = self._ascii or _is_text(self._text[begin:end])
        self.advance(end - begin)
        return (value, None) if valid else (None, ("not valid UTF-8", "not valid UTF-8"))

    def _damaged(self, error: Exception) -> tuple[object, tuple[str, str] | None]:
        end = self._end()
        if end is None:
            if len(self._text) - self._place < MAX_ROW_BYTES and self._fill():
                return self.value()
            self.lost = True
            return None, ("the file ends within this row, or its end cannot be found", "truncated file")
        self.advance(max(1, end - self._place))
        if isinstance(error, json.JSONDecodeError):
            return None, (f"not valid JSON ({error.msg})", "not valid JSON")
        return None, json_problem(error)

    def skip_value(self) -> bool:
        """Move behind the value here without keeping it; False where the file ends or breaks before that."""
        if self.next() not in ("{", "["):
            return self.value()[1] is None
        depth = 0
        while True:
            end = self._place
            for token in _TOKEN.finditer(self._text, self._place):
                if _is_open(token):
                    break
                depth += _STEP.get(token.group(), 0)
                end = token.end()
                if depth == 0:
                    self.advance(end - self._place)
                    return True
            self.advance(end - self._place)
            if not self._fill():
                return False

    def _end(self) -> int | None:
        """Where the value here ends, by its brackets and strings; None where that is not in the window."""
        if self._text[self._place] not in '{["':
            found = _SCALAR_END.search(self._text, self._place + 1)
            return None if found is None else found.start()
        depth = 0
        for token in _TOKEN.finditer(self._text, self._place):
            if _is_open(token):
                return None
            depth += _STEP.get(token.group(), 0)
            if depth <= 0:
                return token.end()
        return None


def _is_open(token: re.Match[str]) -> bool:
    """Whether this is a string whose closing quote is not in the window."""
    return token.group(1) == ""


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
