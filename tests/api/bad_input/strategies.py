"""Requests that Hypothesis makes up: nearly right, or any JSON."""

from __future__ import annotations

from hypothesis import strategies as st

from models import synced_tables
from tests.api.bad_input.hostile import BAD_TIMES, EXTREME_TIMES, HOSTILE_TEXTS, REGISTRATION, SYNC, TAKING_BODIES

TEXT = st.text(st.characters(), max_size=12) | st.sampled_from([*HOSTILE_TEXTS, "end_user", "interactions", "create"])
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**62, 2**70)
SCALAR = st.none() | st.booleans() | NUMBER | TEXT
ANY_JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
COLUMNS = [*synced_tables()["end_user"].rules.columns, "id", "version", "isDeleted", "updatedAt", "_extra"]
ROW = st.dictionaries(st.sampled_from(COLUMNS) | TEXT, ANY_JSON, max_size=6) | ANY_JSON
TABLE = st.sampled_from(["end_user", "interactions"]) | ANY_JSON
TIME = st.datetimes().map(str) | st.sampled_from([*EXTREME_TIMES, *(str(time) for time in BAD_TIMES)]) | ANY_JSON
OPERATION = st.fixed_dictionaries(
    {"table": TABLE, "operation": st.sampled_from(["create", "update", "delete"]) | ANY_JSON, "data": ROW},
    optional={"timestamp": TIME, "baseVersion": ANY_JSON, "opId": ANY_JSON},
)
CHANGES = st.dictionaries(
    st.sampled_from(["end_user", "interactions"]) | TEXT, st.lists(ROW, max_size=4) | ANY_JSON, max_size=3
)
ABOUT_PUSH = {"atomic": st.booleans() | ANY_JSON, "baseCursor": ANY_JSON}
PUSH = (
    OPERATION
    | st.fixed_dictionaries({"changes": CHANGES}, optional=ABOUT_PUSH)
    | st.fixed_dictionaries({"operations": st.lists(OPERATION | ANY_JSON, max_size=4)}, optional=ABOUT_PUSH)
)
PULL = st.fixed_dictionaries(
    {},
    optional={
        "table": TABLE,
        "entityTypes": st.lists(TABLE, max_size=3) | ANY_JSON,
        "lastSync": TIME,
        "lastSyncTimestamp": TIME,
        "cursor": st.none() | st.from_regex(r"[0-9a-f]{12}-[0-9]{1,18}(-[0-9]{1,18})?", fullmatch=True) | ANY_JSON,
        "limit": st.integers(0, 20) | ANY_JSON,
        "digest": ANY_JSON,
    },
)
ACCOUNT = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*REGISTRATION, "phone", "companyName", "refreshToken", "newPassword"], ANY_JSON)
)
REQUEST = (
    st.tuples(st.just(f"{SYNC}/push"), PUSH | ANY_JSON)
    | st.tuples(st.just(f"{SYNC}/pull"), PULL | ANY_JSON)
    | st.tuples(st.just(f"{SYNC}/pull-pending"), PULL | ANY_JSON)
    | st.tuples(st.sampled_from([path for _, path in TAKING_BODIES[:3]]), ACCOUNT | ANY_JSON)
)
