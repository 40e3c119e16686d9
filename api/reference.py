"""Reads docs/api.md, so that ``/docs`` can show what each call is for, with examples.

Knows: the layout of that document; tests compare its examples with the server's answers. Must not know: routes, Flask,
schemas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).resolve().parent.parent / "docs" / "api.md"

_CALL = re.compile(r"^### `([A-Z]+ /.*?)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"(?:Body:\n```json\n([^`]*)```\n)?Answer (\d{3}):\n```json\n([^`]*)```")
_ABOUT_ENDS = re.compile(r"\n\n(?=\w+(?: \d+)?:\n```)|\n(?=\|)")
_LEADS_IN = re.compile(r"(?<=[.;])[^.;]*:$")
"""The end of a paragraph that introduces what the document shows next."""
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Example:
    """A request's body, as JSON or nothing, and its answer."""

    body: str
    status: int
    answer: str


@dataclass(frozen=True, slots=True)
class Described:
    """One call: paragraphs about it, in which only backticks are markup, and its examples."""

    about: Sequence[str]
    examples: Sequence[Example]


@cache
def calls() -> dict[str, Described]:
    """Read what the reference says about each call, by ``POST /api/…``; nothing if it is not there or can't be read."""
    try:
        text = PATH.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    return {call: _described(section) for call, section in _CALL.findall(text)}


def _described(section: str) -> Described:
    about = _ABOUT_ENDS.split(section.strip("\n"), maxsplit=1)[0].replace("*Token.* ", "").replace("*Token.*", "")
    paragraphs = [_LEADS_IN.sub("", " ".join(_LINK.sub(r"\1", part).split())) for part in about.split("\n\n")]
    examples = [Example(body, int(status), answer) for body, status, answer in _EXAMPLE.findall(section)]
    return Described([part for part in paragraphs if part and "```" not in part], examples)
