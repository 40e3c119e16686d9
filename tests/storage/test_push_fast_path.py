"""The fast path of a push and the general path make the same of it: rows, log, digests, results, refusals.

Faults that this was seen to find: ``last_updated`` filled in by its default, flags left ``true``, ``is_deleted`` left
null, JSON a level too deep, a row that an earlier slice of the same push wrote taken for another device's; an edit's
base not looked at, JSON of the same value in other words taken for a change, a tombstone edited; and between the two ways
of one push: what was said or written forgotten, a row named again or made in it taken for one that stood before.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from peewee import Field, FloatField, IntegerField, TextField

import models
from models import connection, synced_tables
from protocol import push_parser, row_decoder
from protocol.codec import decode_push, parse_cursor
from protocol.errors import Problem
from protocol.messages import SERVER_FIELDS, Change, Table
from protocol.row_decoder import RowDecoder, TypedRow
from protocol.row_types import row_type_of
from protocol.seen_rows import NOBODY, Evidence
from storage import push_batch, push_writer
from storage.dialect import dialect
from storage.push_fast_path import FastPath
from tenants import Tenants
from tests import inside, postgres
from tests.conftest import JSON
from tests.fuzzing import times_as_many

NOW = 1_800_000_000_000
COMPACT = (",", ":")
DEEP: Any = 1
for _ in range(61):
    DEEP = [DEEP]

IDS: st.SearchStrategy[Any] = st.sampled_from(["a", "b", "c", "d", None, "", 7, 0, 1.5, "a b", "x" * 65, True, [], "é"])
TEXTS: st.SearchStrategy[Any] = st.sampled_from(["", "x", "Ä", None, 5, 2.5, True, [], "\u2028"])
FLAGS = st.sampled_from([0, 1, None, True, False, 1.0, 2, "1"])
OPEN = st.sampled_from([None, {}, {"a": [1, None]}, [1], "text", 5, DEEP, [DEEP], {"a": "Ä"}])
TIMES = st.sampled_from(["2025-06-29T23:45:26.002Z", "1999", "", None, 5, "2999-01-01T00:00:00Z", "1750000000000"])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": IDS,
        "Unique_id": st.sampled_from(["u1", "u2", "", None, "u" * 256, 9]),
        "name": TEXTS,
        "active": FLAGS,
        "is_deleted": FLAGS,
        "isDeleted": FLAGS,
        "phoneModel": OPEN,
        "last_updated": TIMES,
        "device_id": st.sampled_from(["d1", None, 3]),
        "version": st.sampled_from([1, 2, None, "x", [1], DEEP]),
        "createdAt": TIMES,
        "sync_status": TEXTS,
        "status": st.sampled_from(["pending", "completed", "other", None, 1]),
        "unknown": OPEN,
        "other": OPEN,
        'a "quote"': OPEN,
        "_seq": st.just(3),
        "_extra": OPEN,
    },
)
PLAIN = st.fixed_dictionaries(
    {"id": st.sampled_from([*"abcdefgh", None, 7])},
    optional={
        "Unique_id": st.sampled_from(["u1", "u2", "u3", "u4", ""]),
        "name": st.sampled_from(["", "x", "Ä", None]),
        "active": st.sampled_from([0, 1, None, True, False]),
        "is_deleted": st.sampled_from([0, False, None]),
        "phoneModel": st.sampled_from(
            [None, {}, {"a": [1, None], "b": 1.0}, {"b": 1, "a": [1, None]}, "text", 5, DEEP]
        ),
        "last_updated": st.sampled_from(["2025-06-29T23:45:26.002Z", "1999", "", None, "2999-01-01T00:00:00Z"]),
        "version": st.integers(1, 3),
        "updatedAt": st.none(),
        "unknown": OPEN,
        "other": st.sampled_from([1, None, {"a": {"b": 1}, "c": 2}, {"c": 2, "a": {"b": 1}}]),
    },
)
"""What the fast path takes, mostly."""
PLAIN_PUSH = st.fixed_dictionaries({"end_user": st.lists(PLAIN, min_size=1, max_size=12)})
LISTS = st.dictionaries(st.sampled_from(["end_user", "interactions"]), st.lists(ROW | PLAIN, max_size=8), min_size=1)
ONE = st.fixed_dictionaries(
    {
        "table": st.sampled_from(["end_user", "end_user", "interactions", "no"]),
        "operation": st.sampled_from(["create", "create", "create", "update", "delete", "upsert", None]),
        "data": ROW | PLAIN,
    },
    optional={
        "timestamp": st.sampled_from(["2025-06-29T23:45:26.002Z", "1999", "", None, 5, "1750000000000"]),
        "opId": st.sampled_from(["o1", "o2", None]),
        "baseVersion": st.sampled_from([0, 1, None, "x"]),
    },
)
PUSH = st.fixed_dictionaries({"changes": LISTS | PLAIN_PUSH}, optional={"atomic": st.booleans()}) | ONE


SAID_BESIDE = st.tuples(
    st.sampled_from([None, None, "d1", "d2"]),
    st.sampled_from([None, None, 0, 1, 2]),
    st.none() | st.tuples(st.sampled_from(["s1", "s2"]), st.integers(0, 2), st.sampled_from([None, "d1"])),
)
"""Which device pushes, and how many pushes ago it pulled; or its session, how many pushes ago it is known to have pulled,
and what its rows state as ``device_id``."""


def outcome(tenants: Tenants, tenant_id: str, pushes: list[Any], is_short: bool) -> Any:
    """Give all that pushes leave and are answered, each with its device and how many pushes ago that had pulled."""
    answers: list[Any] = []
    cursors: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        numbers = itertools.count()
        patch.setattr(push_batch, "new_ids", lambda *_: (f"new-{number}" for number in numbers))
        patch.setattr(push_writer, "_CHUNK_ROWS", 3)
        patch.setattr(push_writer, "_FAST_CHUNK_ROWS", 3)
        patch.setattr(row_decoder, "_LEARN_AFTER_ROWS", 1)
        patch.setattr(row_decoder, "_latest", {})
        if not is_short:
            patch.setattr(RowDecoder, "decode", lambda *_: None)
        for number, (push, (device_id, ago, seen)) in enumerate(pushes):
            base = {} if ago is None or ago > len(cursors) - 1 else {"baseCursor": cursors[-1 - ago]}
            try:
                body = decode_push(json.dumps(push | base, separators=COMPACT if number % 2 else None).encode())
                known = evidence(device_id, seen, cursors)
                applied = inside.push(tenants, tenant_id, body, NOW + number, device_id=device_id, evidence=known)
                cursors.append(applied.after.cursor)
                rows, touched = meant(applied.rows), meant(applied.touched)
                answers.append((rows, applied.results, applied.conflicts, touched, applied.row_device_ids))
            except Problem as problem:
                answers.append((problem.code, problem.details))
    return answers, tenants.read(tenant_id, stored)


def evidence(device_id: str | None, seen: tuple[str, int, str | None] | None, cursors: list[str]) -> Evidence:
    """Give what is known of a device that pulled some pushes ago, and was sent all since."""
    if seen is None or not cursors:
        return NOBODY
    session, ago, speaker = seen
    known, sent = (parse_cursor(cursors[max(0, len(cursors) - 1 - back)]) for back in (ago, 0))
    places, perhaps = (dict.fromkeys(synced_tables(), cursor.sequence) for cursor in (known, sent))
    return Evidence("it", None if device_id else session, known.epoch, places, perhaps, speaker)


def stored() -> dict[str, Any]:
    """Read every table that a push writes."""
    names = ["_changes", "_conflicts", "_digests", *synced_tables()]
    columns = {name: ", ".join(f'"{one}"' for one in dialect().schema.columns(name)) for name in names}
    found = {name: list(connection().execute(f'SELECT {columns[name]} FROM "{name}" ORDER BY 1')) for name in names}
    return {name: [[meant(value) for value in row] for row in rows] for name, rows in found.items()}


def meant(value: Any) -> Any:
    """Read JSON wherever it stands, since fields that no table knows may come in another order; so may names of fields."""
    if isinstance(value, dict):
        return {name: meant(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [meant(inner) for inner in value]
    if isinstance(value, bytes | str) and value[:1] in ("{", b"{"):
        return json.loads(value)
    return sorted(json.loads(value)) if isinstance(value, str) and value[:2] == '["' else value


def assert_same(tenants: Tenants, new_tenant: Callable[[], str], pushes: list[Any]) -> None:
    short, long = (outcome(tenants, new_tenant(), pushes, is_short) for is_short in (True, False))
    assert short == long


@pytest.mark.slow
@times_as_many(2)
@given(st.lists(st.tuples(PUSH, SAID_BESIDE), min_size=1, max_size=5))
def test_fast_path_and_general_path_store_the_same(
    tenants: Tenants, new_tenant: Callable[[], str], pushes: list[Any]
) -> None:
    assert_same(tenants, new_tenant, pushes)


def plain_push(*rows: JSON) -> Any:
    return {"changes": {"end_user": list(rows)}}, (None, None, None)


A, B = {"Unique_id": "u1", "name": "a"}, {"Unique_id": "u1", "name": "b"}


@pytest.mark.parametrize("pushes", [[[A], [B]], [[A, B]], [[{"id": "x", **A}, B]], [[A, {"id": "x", **B}]], [[A] * 9]])
def test_rows_named_by_their_unique_id_alone_are_found(
    tenants: Tenants, new_tenant: Callable[[], str], pushes: list[list[JSON]]
) -> None:
    """Faults: only ids looked up; a ``Unique_id`` twice in one slice not seen: a second row was made."""
    assert_same(tenants, new_tenant, [plain_push(*rows) for rows in pushes])


NAMED: JSON = {"Unique_id": "u1"}


@pytest.mark.parametrize(
    "edits",
    [
        [NAMED | {"note": "1", "version": 2}, NAMED | {"note": "2", "version": 3}, NAMED | {"id": 7, "note": "3"}],
        [NAMED | {"note": "1"}, {"id": "a", "note": "2"}, NAMED | {"note": "3"}],
        [{"id": "a", "note": "1"}, NAMED | {"note": "2"}, {"id": "a", "Unique_id": None}, NAMED | {"note": "3"}],
        [{"id": "r1", "Unique_id": "u1"}, NAMED | {"note": "1"}, {"id": "r1", "note": "2"}],
        [{"id": "r1", "Unique_id": "u1", "is_deleted": 1}, NAMED | {"note": "1"}, NAMED | {"is_deleted": 1}, NAMED],
        [{"id": "r1", "Unique_id": "u2"}, {"Unique_id": "u2", "note": "1"}, {"Unique_id": "u3", "note": "2"}],
        [
            {"id": "u1", "Unique_id": "u2"},
            NAMED | {"note": "1"},
            {"id": "u1", "note": "2"},
            {"Unique_id": "", "note": "3"},
        ],
    ],
)
@pytest.mark.parametrize("rows_beside", [0, 2])
@pytest.mark.parametrize("is_one_push", [True, False])
def test_edits_of_rows_named_by_their_unique_id(
    tenants: Tenants, new_tenant: Callable[[], str], edits: list[JSON], rows_beside: int, is_one_push: bool
) -> None:
    """Together in a slice and each in one of its own: two rows with one name, a name that a row had or has by now, an id
    that is another row's name, a row that is gone."""
    beside = [{"id": f"r{number}", "name": "n"} for number in range(9)]
    chunks = [[edit, *beside[2 * at : 2 * at + rows_beside]] for at, edit in enumerate(edits)]
    last = [plain_push(*itertools.chain(*chunks))] if is_one_push else [plain_push(*some) for some in chunks]
    assert_same(tenants, new_tenant, [plain_push({"id": "a", "name": "a", **NAMED}, *beside), *last])


OPEN_AND_UNKNOWN = {"phoneModel": {"a": [1], "b": "x"}, "unknown": {"c": 1, "d": None}}


@pytest.mark.parametrize(
    "edits",
    [
        [{"note": "1"}, {"note": "2"}, {"note": "2"}],
        [{"note": "1", "version": 1}, {"note": "2", "version": 1}, {"name": "3", "version": 2}],
        [{"phoneModel": {"b": "x", "a": [1]}}, {"phoneModel": {"a": [1.0], "b": "x"}}, {"phoneModel": None}],
        [{"unknown": {"d": None, "c": 1}}, {"unknown": 1}, {"other": 2}, {"unknown": None, "other": None}],
        [{"is_deleted": 1}, {"note": "1"}, {"is_deleted": 0}],
        [
            {"Unique_id": "u2"},
            {"id": None, "Unique_id": "u2", "note": "1"},
            {"id": None, "Unique_id": "u1", "note": "2"},
        ],
        [{"last_updated": "2026-01-01"}, {"last_updated": None, "note": "1"}, {"device_id": "", "note": "2"}],
    ],
)
@pytest.mark.parametrize("is_one_push", [True, False])
def test_edits_of_one_row_after_each_other(
    tenants: Tenants, new_tenant: Callable[[], str], edits: list[JSON], is_one_push: bool
) -> None:
    """Each in a slice or a push of its own, the others in it being rows that stand beside it."""
    beside = [{"id": f"r{number}", "name": "n"} for number in range(9)]
    row = {"id": "a", "Unique_id": "u1", "name": "a", **OPEN_AND_UNKNOWN}
    chunks = [[{"id": "a"} | edit, *beside[2 * at : 2 * at + 2]] for at, edit in enumerate(edits)]
    last = [plain_push(*itertools.chain(*chunks))] if is_one_push else [plain_push(*some) for some in chunks]
    assert_same(tenants, new_tenant, [plain_push(row, *beside), *last])


SAME: JSON = {"note": "theirs", "last_updated": "2026-01-03"}


@pytest.mark.parametrize(
    "edits",
    [
        [{"note": "mine", "version": 3}, {"note": "mine again", "name": "x", "version": 2}],
        [{"note": "mine", "version": 3}, {"note": "old", "version": 2}],
        [SAME, {"name": "x", "version": 3}, {"note": "old", "version": 2}],
        [SAME | {"status": 5}, {"note": "mine", "version": 3}, {"note": "old", "version": 2}],
        [{"id": "c"}, {"id": "c", "note": "1", "version": 2}, {"id": "c", "note": "2", "version": 1}],
    ],
)
def test_later_edit_of_older_base_meets_what_the_same_push_did_before(
    tenants: Tenants, new_tenant: Callable[[], str], edits: list[JSON]
) -> None:
    """Another device changed the note meanwhile, later by its clock; each edit is in a slice of its own."""
    beside = [{"id": f"r{number}", "name": "n"} for number in range(9)]
    row = {"id": "a", "note": "old", "last_updated": "2026-01-01"}
    theirs = {"id": "a", "status": "5", "version": 2} | SAME
    chunks = [
        [{"id": "a", "last_updated": "2026-01-02"} | edit, *beside[2 * at : 2 * at + 2]]
        for at, edit in enumerate(edits)
    ]
    if "id" in edits[0]:
        chunks[0] = [chunks[0][0], {"id": "new 1", "Unique_id": "1"}, {"id": "new 2", "Unique_id": "2"}]
    assert_same(
        tenants, new_tenant, [plain_push(row, *beside), plain_push(theirs), plain_push(*itertools.chain(*chunks))]
    )


@pytest.mark.parametrize("versions", [(1, 3), (3, 1), (6, 3), (1, 9)])
def test_versions_that_a_device_counts_are_remembered_between_the_two_ways(
    tenants: Tenants, new_tenant: Callable[[], str], versions: tuple[int, int]
) -> None:
    """Fault: that a device said 1 of a row, which says nothing, was forgotten, and the 3 behind it proved a conflict."""
    beside = [{"id": f"r{number}", "name": "n"} for number in range(9)]
    history = [plain_push({"id": "a", "note": str(number), "name": str(number)}) for number in range(5)]
    seen = None, None, ("s1", 0, None)
    fields = zip(("note", "name"), versions, strict=True)
    edits = [{"id": "a", name: "mine", "version": version} for name, version in fields]
    chunks = [[edit, *beside[2 * at : 2 * at + 2]] for at, edit in enumerate(edits)]
    last = {"changes": {"end_user": list(itertools.chain(*chunks))}}, seen
    assert_same(tenants, new_tenant, [plain_push(*beside), *history, last])


@pytest.mark.parametrize("value", [b'"\\q"', b"01", b'{"a":tru}', b'["\xff"]', b'"\\ud800"', b"1e999", b"-", b"[1,]"])
@pytest.mark.parametrize("field", ["phoneModel", "unknown"])
def test_edit_with_a_value_that_can_not_be_read_is_answered_the_same(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch, field: str, value: bytes
) -> None:
    """What an edit says of JSON is read where it differs from the existing row."""
    monkeypatch.setattr(row_decoder, "_LEARN_AFTER_ROWS", 1)
    monkeypatch.setattr(row_decoder, "_latest", {})
    tenant_id = new_tenant()
    for _ in range(2):
        inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", field: {"b": 1}}]}}, NOW)
    body = b'{"changes":{"end_user":[{"id":"a","%s":%s}]}}' % (field.encode(), value)

    def answer() -> Any:
        try:
            return inside.push(tenants, tenant_id, decode_push(body), NOW).results
        except Problem as problem:
            return problem.code, problem.details

    fast = answer()
    monkeypatch.setattr(RowDecoder, "decode", lambda *_: None)
    assert fast == answer()


@pytest.mark.parametrize("is_short", [True, False])
def test_device_of_a_row_that_is_refused_as_too_large_is_not_noted(
    tenants: Tenants, new_tenant: Callable[[], str], is_short: bool
) -> None:
    """Fault: a session of one device, whose row of another was refused, taken for one that both share."""
    large = {"note": "x" * inside.LIMITS.row_bytes, "device_id": "two"}
    new = [{"id": "a", "device_id": "one"}, {"id": "b"} | large]
    edits = [{"id": "a", "name": "x", "device_id": "three"}, {"id": "a"} | large]
    pushes = [plain_push(*new), plain_push(*edits[:1]), plain_push(*edits[1:])]
    pushes = [(body | {"atomic": False}, beside) for body, beside in pushes]
    answers, _ = outcome(tenants, new_tenant(), pushes, is_short)
    assert [answer[-1] for answer in answers] == [{"one"}, {"three"}, set()]


@pytest.mark.parametrize("name", ["_seq", "_extra", "_unknown0", "extra", "id ", "Ä"])
def test_field_of_any_name_is_kept(tenants: Tenants, new_tenant: Callable[[], str], name: str) -> None:
    """Fault: a field with the name of one of our own columns written beside the unknown ones."""
    rows = [{"id": f"r{number}", name: number} for number in range(9)]
    assert_same(tenants, new_tenant, [plain_push(*rows), plain_push(*[row | {name: "other"} for row in rows])])


def typed_rows(rows: list[JSON], table: str = "end_user") -> list[bool]:
    """Tell which rows of a push would take the fast path if they are new."""
    body = decode_push(json.dumps({"changes": {table: rows}}).encode())
    return [
        isinstance(one, TypedRow) for one in push_parser.parse_push(body, inside.tables(), inside.LIMITS, NOW).changes
    ]


def test_rows_as_apps_send_them_take_the_fast_path() -> None:
    plain = {"id": "a", "Unique_id": "u", "name": "Asha", "active": True, "phoneModel": {"a": 1}, "is_deleted": 0}
    pulled = plain | {"version": 3, "sync_status": "pending", "createdAt": "x", "updatedAt": None, "server_synced": 0}
    local: list[JSON] = [{"id": 5, "name": "local key"}, {"Unique_id": "u"}, {"id": "a b", "Unique_id": "u"}]
    assert typed_rows([plain, pulled, *local]) == [True] * 5


def test_rows_with_anything_to_say_of_them_take_the_general_path() -> None:
    odd: list[JSON] = [{"unknown": 1}, {"name": 5}, {"active": 2}, {"id": "a b"}, {"id": True}, {"is_deleted": 1}]
    assert typed_rows(odd) == [False] * len(odd)


def ways(tenants: Tenants, tenant_id: str, *rows: JSON, evidence: Evidence = NOBODY) -> tuple[int, int]:
    """Push rows, and count those that took the fast path and the general one."""
    counts = [0, 0]

    def counted(way: int, take: Callable[..., Any]) -> Callable[..., Any]:
        def counting(self: Any, some: list[Any], *about: Any) -> Any:
            taken = take(self, some, *about)
            counts[way] += len(some) if taken is not False else 0
            return taken

        return counting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastPath, "takes", counted(0, FastPath.takes))
        patch.setattr(push_writer._GeneralPath, "take", counted(1, push_writer._GeneralPath.take))
        body = decode_push(json.dumps({"changes": {"end_user": rows}}).encode())
        inside.push(tenants, tenant_id, body, NOW, evidence=evidence)
    return counts[0], counts[1]


def test_edits_take_the_fast_path(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id = new_tenant()
    rows = [{"id": f"r{number}", "name": "n"} for number in range(64)]
    assert ways(tenants, tenant_id, *rows) == (64, 0)
    assert ways(tenants, tenant_id, *[row | {"name": "m"} for row in rows]) == (64, 0)


@pytest.mark.parametrize("fields", [{}, {"version": 2}])
def test_edits_of_rows_that_only_their_unique_id_names_take_the_fast_path(
    tenants: Tenants, new_tenant: Callable[[], str], fields: JSON
) -> None:
    """As apps send them that leave ids to the server, and some count versions; without a base, but all was seen."""
    tenant_id = new_tenant()
    rows: list[JSON] = [{"Unique_id": f"u{number}", "name": "n"} for number in range(64)]
    assert ways(tenants, tenant_id, *rows) == (64, 0)
    seen = inside.seen_all(tenants, tenant_id)
    assert ways(tenants, tenant_id, *[row | fields | {"name": "m"} for row in rows], evidence=seen) == (64, 0)


def test_rows_with_fields_that_no_table_knows_take_the_fast_path_once_enough_were_seen(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    tenant_id = new_tenant()
    names = [f"field {uuid.uuid4()}" for _ in range(2)]
    rows = [{"id": f"r{number}", names[0]: number, names[1]: {"a": []}} for number in range(64)]
    assert ways(tenants, tenant_id, *rows[:48]) == (32, 16)
    assert ways(tenants, tenant_id, *rows[48:]) == (16, 0)
    assert ways(tenants, tenant_id, *[row | {names[0]: -1} for row in rows]) == (64, 0)
    assert ways(tenants, tenant_id, *[{"id": row["id"], "note": "n"} for row in rows]) == (64, 0)


def test_rows_of_both_kinds_in_every_chunk_are_tried_on_the_fast_path_a_few_times_only(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    tenant_id = new_tenant()
    rows = [{"id": f"r{number}", "name": "n"} for number in range(160)]
    inside.push(tenants, tenant_id, {"changes": {"end_user": rows[::2]}}, NOW)
    tried: list[Any] = []
    normalise = row_decoder._normalise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_decoder, "_normalise", lambda *about: tried.append(about) or normalise(*about))  # type: ignore[func-returns-value]
        assert ways(tenants, tenant_id, *rows) == (0, 160)
    assert len(tried) == (176 if postgres.IS_UNDER_TEST else 64)  # There all rows are looked up in advance.


def test_types_take_all_kinds_of_columns_and_their_defaults() -> None:
    """Also numbers at the bounds of what is stored, and JSON that every row begins with."""
    made: dict[str, Field] = {
        "Unique_id": TextField(null=True),
        "count": IntegerField(null=True, default=7),
        "size": FloatField(null=True, default=0.5),
        "tags": models.JsonField(null=True, default=["a"]),
        "grade": IntegerField(null=True, choices=[(1, "good"), (3, "bad")]),
        "kind": TextField(null=True, choices=[("a", "A"), ("b", "B")]),
        "day": models.DateText(null=True),
        "title": TextField(null=True),
    }
    columns = {name: models.column_of(field) for name, field in made.items()}
    everywhere = {name: inside.tables()["end_user"].columns[name] for name in ("last_updated", "is_deleted")}
    table = Table("visit", columns | everywhere, required=("title",))

    def fields(**row: Any) -> Any:
        found = RowDecoder(table, lambda _: Change("", table)).decode(Raw(json.dumps(row).encode()))
        return found and {name: plain(getattr(found, name)) for name in columns if name != "Unique_id"}

    def plain(value: Any) -> Any:
        return json.loads(bytes(value)) if isinstance(value, Raw) else value

    first = {"count": 7, "size": 0.5, "tags": ["a"], "grade": None, "kind": None, "day": None, "title": "t"}
    other = {"count": 2**63 - 1, "size": 3.0, "tags": {}, "kind": "b", "day": "2026-02-28"}
    assert fields(title="t") == first
    assert fields(title="t", **other) == first | other
    odd: list[JSON] = [{"count": 2**63}, {"count": True}, {"size": 1e308}, {"size": "1"}, {"grade": 1}, {"kind": "c"}]
    odd += [{"day": "2026-02-30"}, {"day": 5}, {"title": None}]
    assert [fields(**{"title": "t"} | row) for row in odd] == [None] * len(odd) and fields() is None


def test_every_column_that_has_a_check_has_a_type_or_takes_the_general_path() -> None:
    for table in inside.tables().values():
        assert set(row_type_of(table).columns) == {"_seq", *table.columns, *SERVER_FIELDS}
