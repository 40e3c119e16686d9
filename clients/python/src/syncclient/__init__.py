"""An offline-first client of syncapp: a local SQLite replica with an outbox.

Knows: what an app imports. Must not know: anything else.
"""

from .client import Hooks, Progress, Status, SyncClient
from .errors import Busy, LoginNeeded, NotEqual, Offline, SyncError, Unauthorized, WrongAccount
from .records import Conflict, Refusal, Resolution
from .wire import Row

__version__ = "0.1.0"

__all__ = [
    "Busy",
    "Conflict",
    "Hooks",
    "LoginNeeded",
    "NotEqual",
    "Offline",
    "Progress",
    "Refusal",
    "Resolution",
    "Row",
    "Status",
    "SyncClient",
    "SyncError",
    "Unauthorized",
    "WrongAccount",
]
