"""Values come back from PostgreSQL as they were given, or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from storage.postgres.connecting import connect
from storage.postgres.connection import Connection
from storage.postgres.values import UnknownType, array
from tests.storage.engine.installations import PostgresInstallation


@pytest.fixture
def connection(installation: PostgresInstallation) -> Iterator[Connection]:
    connection = connect(installation.address)
    yield connection
    connection.close()


def one(connection: Connection, sql: str, *values: Any) -> Any:
    found = connection.execute(sql, values).fetchone()
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", 2**63 - 1),
        ("bigint", -(2**63)),
        ("smallint", 1),
        ("integer", -7),
        ("double precision", 0.1),
        ("double precision", -0.0),
        ("double precision", 5e-324),
        ("double precision", 1.7976931348623157e308),
        ("text", ""),
        ("text", "Ünï 😀 \\ \" ' {a,b} $1 ? \x01\x7f"),
        ("bytea", b""),
        ("bytea", bytes(range(256))),
        ("bytea", b"\\x41"),
        ("uuid", "7d444840-9dc0-41d1-b245-5ffdce74fad2"),
        ("text", None),
        ("bigint", None),
        ("boolean", True),
    ],
)
def test_value_comes_back_as_it_was_given(connection: Connection, kind: str, value: Any) -> None:
    found = one(connection, f"SELECT ?::{kind}", value)
    assert (type(found), repr(found)) == (type(value), repr(value))


def test_truth_is_stored_as_a_number(connection: Connection) -> None:
    assert [one(connection, "SELECT ?::smallint", value) for value in (True, False)] == [1, 0]


def test_bytes_of_every_kind_are_taken(connection: Connection) -> None:
    for value in (bytearray(b"a\0b"), memoryview(b"a\0b")):
        assert one(connection, "SELECT ?::bytea", value) == b"a\0b"


def test_list_of_texts_comes_back_as_it_was_given(connection: Connection) -> None:
    texts = ["", "a", 'quo"te', "back\\slash", "{curly}", "com,ma", "NULL", " space ", "line\nbreak", "é😀"]
    found = connection.execute("SELECT value FROM unnest(?::text[]) AS wanted(value)", (array(texts),))
    assert [value for (value,) in found] == texts
    assert list(connection.execute("SELECT value FROM unnest(?::text[]) AS wanted(value)", (array([]),))) == []


def test_text_with_u0000_is_refused_and_not_cut(connection: Connection) -> None:
    """Fault: the check left out: libpq stored what was before it."""
    with pytest.raises(ValueError, match="U\\+0000"):
        connection.execute("SELECT ?::text", ("a\0b",))
    with pytest.raises(ValueError, match="U\\+0000"):
        connection.execute("SELECT ?::text[]", (array(["a\0b"]),))
    assert one(connection, "SELECT 1") == 1


def test_type_that_is_none_of_ours_is_refused_both_ways(connection: Connection) -> None:
    with pytest.raises(TypeError, match="list"):
        connection.execute("SELECT ?", ([1],))
    for kind in ("numeric", "timestamptz"):
        with pytest.raises(UnknownType):
            one(connection, f"SELECT ?::{kind}", None)
    assert one(connection, "SELECT 1") == 1
