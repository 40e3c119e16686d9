"""The identifiers that clients choose: of rows, devices and operations.

Knows: which texts are identifiers. Must not know: what an identifier means, stored rows, Flask.
"""

from __future__ import annotations

import re

from protocol.errors import invalid

MAX_ID_CHARACTERS = 64
MAX_UNIQUE_ID_CHARACTERS = 255
IDENTIFIER = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_ID_CHARACTERS}}}", re.ASCII)
IDENTIFIER_ERROR = f"must be 1 to {MAX_ID_CHARACTERS} characters from A-Z a-z 0-9 _ . : -"


def parse_device_id(device_id: object, path: str) -> str | None:
    """Read the ID by which a client names its device; None if it gives none.

    Raises: ValidationError.
    """
    if device_id is None or (isinstance(device_id, str) and IDENTIFIER.fullmatch(device_id)):
        return device_id
    raise invalid(path, IDENTIFIER_ERROR)
