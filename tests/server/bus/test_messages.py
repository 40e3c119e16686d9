"""Messages of the bus come out as they went in, as text that any broker carries."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import encode
from server.bus.messages import Header, header_of, message_of, packets_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, TEXT, st.lists(TEXT), st.lists(TEXT))
def test_message_is_read_as_it_was_written(tenant_id: str, epoch: str, ids: list[str], texts: list[str]) -> None:
    header = Header("me", "commit", tenant_id, epoch, 1, 2, tuple(ids))
    packets = [b"42" + encode(("event", text)) for text in texts]
    message = message_of(header, packets)
    assert (header_of(message), packets_of(message)) == (header, packets)
    assert "\0" not in message.decode(), "PostgreSQL could not carry it"


@pytest.mark.parametrize("message", [b"", b"x", b"{}", b'["me","unheard of"]', b'["me"]', b"\xff"])
def test_what_no_version_writes_is_an_error(message: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        header_of(message)


def test_more_fields_of_a_newer_version_are_ignored() -> None:
    assert header_of(b'["me","event","t","e",1,2,["a"],"more"]') == Header("me", "event", "t", "e", 1, 2, ("a",))
