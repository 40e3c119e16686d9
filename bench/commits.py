"""Starts the server and notes when each transaction of a tenant was committed, so that what comes after can be timed.

usage: ``python bench/commits.py FILE``: writes a line a commit, nanoseconds of the monotonic clock. Only for measuring.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import syncapp
from storage.postgres.database import PostgresDatabase

committing = PostgresDatabase._make_lasting


def noting(path: str) -> None:
    """Have each commit noted."""
    file = Path(path).open("w", buffering=1)  # noqa: SIM115 -- open as long as the process

    def make_lasting(self: Any, *args: Any) -> None:
        committing(self, *args)
        if self.tenant_id is not None:
            file.write(f"{time.monotonic_ns()}\n")

    PostgresDatabase._make_lasting = make_lasting  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    noting(sys.argv.pop(1))
    syncapp.main()
