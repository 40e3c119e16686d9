"""The exceptions of an exchange with the server, with messages that say what to do.

Knows: how an answer of the server becomes one of them. Must not know: how anything is sent or stored. No error here loses
an edit: what was not answered is sent again.
"""

from __future__ import annotations

import math
from typing import Any


class SyncError(Exception):
    """An exchange that did not come to its end; nothing is lost, and it can be tried again.

    ``code`` is the server's own word, or one of ours: ``offline``, ``login_needed``, ``wrong_account``, ``not_equal``.
    """

    def __init__(self, message: str, code: str = "sync_error", status: int | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.status = message, code, status


class Offline(SyncError):
    """No answer came, or one that broke off or is none of a sync server's."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "offline")


class Stalled(Offline):
    """An answer began to come, and then the line fell silent: a smaller one may get through."""


class LoginNeeded(SyncError):
    """There is no session, or it has ended and can't be renewed: log in again. Reading and writing go on."""

    def __init__(self, message: str = "Log in: there is no session, or it has ended.") -> None:
        super().__init__(message, "login_needed")


class WrongAccount(SyncError):
    """This replica belongs to another account."""

    def __init__(self) -> None:
        super().__init__("This replica belongs to another account. Use another file for this one.", "wrong_account")


class NotEqual(SyncError):
    """The replica differs from the server's digest even after it was made anew."""

    def __init__(self, tables: list[str]) -> None:
        super().__init__(f"The replica differs from the server in {', '.join(tables)}.", "not_equal")


class Unauthorized(SyncError):
    """The access token is not, or no longer, good."""


class ResyncRequired(SyncError):
    """The cursor is of another database, or of before deletions that are no longer held."""


class NotTaken(SyncError):
    """The server will never take what this request holds: too large, or not to be read."""


class Busy(SyncError):
    """The server asks to come back later. ``retry_after_seconds`` says when."""

    def __init__(self, message: str, code: str, status: int, retry_after_seconds: float) -> None:
        super().__init__(message, code, status)
        self.retry_after_seconds = retry_after_seconds


_BUSY = {408, 425, 429, 502, 503, 504}
_OF_STATUS: dict[int, type[SyncError]] = {401: Unauthorized, 413: NotTaken}
_OF_CODE: dict[str, type[SyncError]] = {"resync_required": ResyncRequired, "invalid_json": NotTaken}


def error_of(status: int, body: Any, retry_after: str | None) -> SyncError:
    """Make the exception for an answer that is no success.

    What has no code is not our server's word but a proxy's, or that of a hotel's Wi-Fi. It is no verdict on any edit, and
    neither is a refusal that is about the request and not about what it holds, such as one of the device's name.
    """
    told = body if isinstance(body, dict) else {}
    code, message = str(told.get("code", f"http_{status}")), str(told.get("error", f"The server answered {status}."))
    details = _details(told)
    message = " ".join([message, *(f"{one['path']} {one['error']}" for one in details[:3])])
    if status in _BUSY or (status, code) == (409, "busy"):
        return Busy(message, code, status, _seconds(retry_after))
    kind = _OF_CODE.get(code) or _OF_STATUS.get(status, SyncError)
    if code == "validation_error" and _are_operations(details):
        kind = NotTaken
    return kind(message, code, status)


def _details(told: dict[str, Any]) -> list[dict[str, str]]:
    details = told.get("details")
    found = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return [{"path": str(one.get("path")), "error": str(one.get("error"))} for one in found]


def _are_operations(details: list[dict[str, str]]) -> bool:
    return bool(details) and all(detail["path"].startswith("operations[") for detail in details)


def _seconds(retry_after: str | None) -> float:
    try:
        seconds = float(retry_after or 1)
    except ValueError:  # A date: rare, and only proxies write it.
        return 5.0
    return min(max(0.0, seconds), _LONGEST_RETRY_SECONDS) if math.isfinite(seconds) else 5.0


_LONGEST_RETRY_SECONDS = 3600.0
