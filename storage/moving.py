"""What a database notes when it moves to another installation: from then on nothing is written here.

Knows: the statements on these notes, bound by the caller to a tenant or to the directory. Must not know: engines, what is
copied. An engine refuses with ``Moved`` each write to a database whose note names an installation, and looks in the
transaction of the write itself; ``Engine.rewrite`` alone goes past that. A copy has the note until all of it is there: so
of two databases with the rows of one tenant one at the most takes writes.
"""

from __future__ import annotations

import secrets

from models import connection

TENANT = "SELECT moved_to FROM _meta"
DIRECTORY = "SELECT moved_to FROM installation"


def destination(noted: str) -> str | None:
    """Tell to which installation this database moved; ``noted`` is the statement on its note."""
    found = connection().execute(noted).fetchone()
    return None if found is None else found[0]


def note_tenant(name: str | None) -> None:
    """Note that this tenant moved to an installation; None: that it is written here."""
    connection().execute("UPDATE _meta SET moved_to = ?", (name,))


def note_directory(name: str | None) -> None:
    """Note that this directory moved to an installation; None: that it is written here."""
    connection().execute("UPDATE installation SET moved_to = ?", (name,))


def name_of_installation() -> str:
    """Give the name of this installation, which it has from the first time that it is asked for."""
    made = "INSERT INTO installation (id, name) VALUES (1, ?) ON CONFLICT (id) DO NOTHING"
    connection().execute(made, (secrets.token_hex(8),))
    (name,) = connection().execute("SELECT name FROM installation").fetchone()
    return str(name)
