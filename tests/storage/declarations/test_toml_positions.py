"""Every key and value of any TOML text is found where it stands, by a walk that knows no more than the grammar."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.declarations.toml_positions import Place, Places

BARE = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
INSIDE = st.text(st.characters(blacklist_characters='"\\', blacklist_categories=("Cc", "Cs")), max_size=8)
KEYS = st.one_of(BARE, INSIDE.map(lambda text: f'"{text}"'), BARE.map(lambda text: f"'{text} ]=#'"))
GAPS = st.sampled_from(["", " ", "\t", "  "])
BREAKS = st.sampled_from(["", " ", "\n", " # a ] comment = {\n", "\n\n"])
SCALARS = st.one_of(
    st.sampled_from(["1", "-0.5e3", "true", "1979-05-27 07:32:00", "07:32:00", "inf", "''", "'# ] }'", '"a\\"],"']),
    st.sampled_from(['"""\n[a]\n""\\"x"""', '""""quoted""""', "'''a ' '' ]'''", "''''''"]),
    INSIDE.map(lambda text: f'"{text}"'),
)


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["scalar", "list", "table"])) if depth else "scalar"
    if kind == "list":
        items = [draw(BREAKS) + draw(values(depth - 1)) + draw(BREAKS) for _ in range(draw(st.integers(0, 3)))]
        return f"[{','.join(items)}{draw(BREAKS)}]"
    if kind == "table":
        keys = [f"k{number}" for number in range(draw(st.integers(0, 3)))]
        return "{" + ", ".join(f"{key}{draw(GAPS)}={draw(GAPS)}{draw(values(depth - 1))}" for key in keys) + "}"
    return draw(SCALARS)


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for number in range(draw(st.integers(0, 4))):
        key = draw(KEYS)
        name = draw(st.sampled_from([f"t{number}", f"t{number} . {key}", f"t{number}.{key}"]))
        if draw(st.booleans()):
            lines.append(f"{draw(GAPS)}[{draw(GAPS)}{name}{draw(GAPS)}]{draw(BREAKS)}")
            name = f"x{number}"
        lines.append(
            f"{draw(GAPS)}{name}{draw(GAPS)}={draw(GAPS)}{draw(values())}{draw(st.sampled_from(['', ' # c']))}"
        )
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from paths(one, (*path, key))


@given(documents())
def test_every_key_and_value_is_found_where_it_stands(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # What the strategy wrote in a way that TOML forbids.
    places, lines = Places(text), text.replace("\r\n", "\n").split("\n")
    for path in paths(document):
        line, column = places.of_key(path)
        rest = lines[line - 1][column - 1 :]
        if isinstance(path[-1], str):
            assert rest.removeprefix(rest[0] if rest[0] in "\"'" else "").startswith(path[-1]), (path, rest)
        line, column = places.of_value(path)
        assert lines[line - 1][column - 1 :].strip() != "", path


def test_places_of_a_small_text() -> None:
    places = Places('# one\n[job] # two\r\nindexes = ["a",\n  [ "b" ]]\n"x.y".z = { k = """\n"""}\n')
    assert places.of_key(("job",)) == Place(2, 2)
    assert places.of_key(("job", "indexes")) == Place(3, 1) and places.of_value(("job", "indexes")) == Place(3, 11)
    assert places.of_value(("job", "indexes", 1, 0)) == Place(4, 5)
    assert places.of_key(("job", "x.y", "z", "k")) == Place(5, 13)


@pytest.mark.parametrize("path", [("job", "columns"), ("job", "columns", "x", 3), ()])
def test_what_is_not_there_is_where_it_should_be(path: tuple[str | int, ...]) -> None:
    assert Places("\n  [job]\n").of_value(path) == (Place(2, 4) if path else Place(1, 1))


def test_entries_of_a_list_of_tables_are_told_apart() -> None:
    places = Places("[[a]]\nx = 1\n[[a]]\nx = 2\n")
    assert [places.of_value(("a", number, "x")) for number in (0, 1)] == [Place(2, 5), Place(4, 5)]
