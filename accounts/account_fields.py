"""Reads the fields of an account from a request's body, and collects what is wrong with them.

Knows: what each field of an account may be. Must not know: endpoints, how accounts are stored, tokens.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from accounts.passwords import PASSWORD_BYTES
from protocol.errors import Detail, ValidationError
from storage import main_database

EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f-\x9f]{1,64}@[^@\s\x00-\x1f\x7f-\x9f]{1,190}")
NAME_CHARACTERS = 100
PROFILE_FIELDS = ("firstName", "lastName", "companyName", "phone")
OPTIONAL_FIELDS = ("companyName", "phone")
DEFAULT_COMPANY = "Individual Customer"


class FieldReader:
    """Reads the fields of one body, and remembers every error until ``check``."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self._errors: list[Detail] = []

    def add_error(self, path: str, error: str) -> str:
        """Note an error, and give an empty text in place of the value."""
        self._errors.append({"path": path, "error": error})
        return ""

    def check(self) -> None:
        """Raises: ValidationError if anything was wrong; its message is the first error."""
        if self._errors:
            first = self._errors[0]
            raise ValidationError(f"{first['path']} {first['error']}.", details=self._errors)

    def any_text(self, name: str) -> str:
        """Read a text that is only compared, not stored."""
        value = self._body.get(name)
        return value if isinstance(value, str) and value else self.add_error(name, "must be a text")

    def line(self, name: str) -> Any:
        """Read a text of one line to store, without the space around it; None for an optional field that is empty."""
        value = self._body.get(name)
        if name in OPTIONAL_FIELDS and value in (None, ""):
            return None
        if not isinstance(value, str) or not 1 <= len(value.strip()) <= NAME_CHARACTERS:
            return self.add_error(name, f"must be a text of 1 to {NAME_CHARACTERS} characters")
        if any(unicodedata.category(character) == "Cc" for character in value):
            return self.add_error(name, "must not have control characters")
        return value.strip()

    def email(self) -> str:
        """Read an e-mail address, in the form in which it is stored."""
        value = self._body.get("email")
        normal = main_database.normal_email(value) if isinstance(value, str) else ""
        return normal if EMAIL.fullmatch(normal) else self.add_error("email", "must be an e-mail address")

    def password(self, name: str) -> str:
        """Read a new password, as long as bcrypt allows."""
        value, (least, most) = self._body.get(name), PASSWORD_BYTES
        normal = main_database.normal_form(value) if isinstance(value, str) else ""
        if not least <= len(normal.encode()) <= most:
            return self.add_error(name, f"must have {least} to {most} bytes as UTF-8")
        return normal
