"""The messages of the bus: a line of JSON that says what it is about, then a line for each packet to pass on.

Knows: how they are written and read. They are text, so that every broker can carry them. Must not know: brokers, what a
packet is to its receivers. A packet is JSON, whose encoder writes no line break.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Kind = Literal["commit", "event", "ended", "lost", "alive", "who"]
"""A commit and its notifications; other events of a tenant; sessions that ended; tenants of messages that were dropped; a
sign of life, with name and version; a question for one of each process."""


class Process(NamedTuple):
    """What a process says of itself."""

    name: str = ""
    version: str = ""


class Header(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """What a message is about. Of a commit: the position before and after it."""

    sender: str
    kind: Kind
    tenant_id: str = ""
    epoch: str = ""
    before: int = 0
    after: int = 0
    ids: tuple[str, ...] = ()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Header).decode


def message_of(header: Header, packets: Iterable[bytes] = ()) -> bytes:
    """Write a message."""
    return b"\n".join((_encode(header), *packets))


def alive(sender: str, process: Process) -> bytes:
    """Write a sign of life."""
    return message_of(Header(sender, "alive", ids=tuple(process)))


def process_of(header: Header) -> Process:
    """Read whose sign of life it is."""
    return Process(*header.ids[:2])


def header_of(message: bytes) -> Header:
    """Read what a message is about.

    Raises: msgspec.DecodeError for what no version of ours has written.
    """
    return _decode(message.partition(b"\n")[0])


def packets_of(message: bytes) -> list[bytes]:
    """Read the packets of a message."""
    return message.split(b"\n")[1:]
