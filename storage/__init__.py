"""One tenant's database, and the main one: statements, transactions, schema, and the files that hold them.

Knows: SQL, bound to one database by the caller. Must not know: Flask, sockets, requests, tokens. It imports ``models``
and what is below; what SQLite alone knows is in ``storage.sqlite``.
"""
