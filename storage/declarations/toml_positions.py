"""Where keys and values stand in a TOML text, which the standard library's parser does not tell.

Knows: the grammar of TOML 1.0, as far as it takes to walk through a text that ``tomllib`` has read. Must not know: what the
keys mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import NamedTuple

Path = tuple[str | int, ...]
"""How one gets to a value: keys of tables, numbers of list entries."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'",
    re.DOTALL,
)


class Place(NamedTuple):
    """A line and a column of a text, counted from 1."""

    line: int
    column: int


class Places:
    """The places of a text's keys and values."""

    def __init__(self, text: str) -> None:
        """Walk through ``text``; it must be valid TOML."""
        walk = _Walk(text.replace("\r\n", "\n"))
        walk.document()
        self._text, self._keys, self._values = walk.text, walk.keys, walk.values

    def of_key(self, path: Path) -> Place:
        """Give where a key was first written; of a list's entry, the entry."""
        return self._place(path, self._keys, self._values)

    def of_value(self, path: Path) -> Place:
        """Give where a value begins; where it has no beginning of its own, its key."""
        return self._place(path, self._values, self._keys)

    def _place(self, path: Path, *offsets: Mapping[Path, int]) -> Place:
        """Look in one after the other, and for what is not there where it should be."""
        found = [known[path] for known in offsets if path in known]
        if not found and path:
            return self._place(path[:-1], *offsets)
        offset = found[0] if found else 0
        return Place(self._text.count("\n", 0, offset) + 1, offset - self._text.rfind("\n", 0, offset))


class _Walk:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}

    def document(self) -> None:
        """Walk through the whole text, and note where each key and value begins."""
        table: Path = ()
        lists: dict[Path, int] = {}
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] != "[":
                self._pair(table)
            else:
                brackets = 2 if self.text.startswith("[[", self.at) else 1
                self.at += brackets
                table = self._key(())
                self.at += brackets
                if brackets == 2:
                    lists[table] = lists.get(table, -1) + 1
                    table = (*table, lists[table])
            self._skip(_BLANK)

    def _pair(self, table: Path) -> None:
        path = self._key(table)
        self.at += 1  # The equals sign.
        self._skip(_SPACE)
        self._value(path)

    def _key(self, table: Path) -> Path:
        """Read a key, bare, quoted or dotted, and give the path that it leads to from ``table``."""
        while True:
            self._skip(_SPACE)
            begin = self.at
            is_quoted = self.text[begin] in "\"'"
            word = self._skip(_STRING if is_quoted else _BARE_KEY)
            table = (*table, str(tomllib.loads(f"x={word}")["x"]) if is_quoted else word)
            self.keys.setdefault(table, begin)
            self._skip(_SPACE)
            if self.text[self.at] != ".":
                return table
            self.at += 1

    def _value(self, path: Path) -> None:
        self.values[path] = self.at
        first = self.text[self.at]
        if first == "[":
            self._list(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_STRING if first in "\"'" else _SCALAR)

    def _list(self, path: Path) -> None:
        number = 0
        while self._goes_on("]"):
            self._value((*path, number))
            number += 1

    def _inline_table(self, path: Path) -> None:
        while self._goes_on("}"):
            self._pair(path)

    def _goes_on(self, end: str) -> bool:
        """Step over what opens or parts entries, and over the end if nothing more comes."""
        self._skip(_BLANK)
        if self.text[self.at] in "[{,":
            self.at += 1
            self._skip(_BLANK)
        if self.text[self.at] != end:
            return True
        self.at += 1
        return False

    def _skip(self, form: re.Pattern[str]) -> str:
        found = form.match(self.text, self.at)
        assert found is not None, "the text is no TOML"
        self.at = found.end()
        return found[0]
