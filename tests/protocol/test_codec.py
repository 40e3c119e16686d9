"""JSON, times and cursors as they cross the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import Cursor, decode, edit_time, encode, format_time, parse_cursor, parse_time
from protocol.errors import InvalidJson, ValidationError

MILLISECONDS = st.integers(-62_135_596_800_000, 253_402_300_799_999)


@given(MILLISECONDS.filter(lambda ms: ms >= 0))
def test_time_written_is_read_back_exactly(milliseconds: int) -> None:
    assert parse_time(format_time(milliseconds), "t") == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01", 0),
        ("1970-01-01T02:00:00.001+02:00", 1),
        ("2025-06-29T23:45:26.002Z", 1_751_240_726_002),
        ("2025-06-29 23:45:26.002999", 1_751_240_726_002),
    ],
)
def test_time_without_a_zone_is_utc(text: str, milliseconds: int) -> None:
    assert parse_time(text, "t") == milliseconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2025-13-01", "0000-01-01", 5, None, "9999-12-31T23:59:59-99:99", "1" * 99]
)
def test_time_that_is_none_is_refused_with_its_path(text: object) -> None:
    with pytest.raises(ValidationError) as error:
        parse_time(text, "lastSync")
    assert error.value.details[0]["path"] == "lastSync"


def test_edit_time_of_an_unreadable_clock_is_unknown() -> None:
    assert edit_time("Sun Jun 29 2025") is None
    assert edit_time("1751240726002") == 1_751_240_726_002


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a": 1,\n "b": tru}', "line 2, column 7"),
        (b'{"a": 1', "line 1, column 8"),
        (b'{"a": NaN}', "line 1, column 7"),
        (b'[1, "\xff"]', "line 1, column 6"),
        (b"", "line 1, column 1"),
    ],
)
def test_bad_json_is_refused_with_line_and_column(body: bytes, place: str) -> None:
    with pytest.raises(InvalidJson, match=place):
        decode(body)


@pytest.mark.parametrize("levels", [65, 5_000, 500_000])
def test_json_nested_too_deep_is_refused(levels: int) -> None:
    with pytest.raises(InvalidJson, match="deeper than 64"):
        decode(b"[" * levels + b"]" * levels)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_is_read_back_exactly(value: object) -> None:
    assert repr(decode(encode(value))) == repr(value)


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_cursor_is_read_back(sequence: int, first_until: int) -> None:
    cursor = Cursor("0123456789ab", sequence, first_until if first_until > sequence else 0)
    assert parse_cursor(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "x", "0123456789ab", "0123456789ab--1", "0123456789ab-1-2-3", "0123456789AB-1", "٣" * 12, 5, {}]
)
def test_cursor_that_no_answer_gave_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        parse_cursor(text)
