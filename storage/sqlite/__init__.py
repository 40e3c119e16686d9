"""The SQLite engine: one file a tenant. Connections, transactions, commits, files as wholes, the data folder.

Knows: SQLite and apsw, which nobody else imports, and where files lie. Must not know: requests, sockets, tokens, rules.
It imports the statements of ``storage`` and what is below.
"""
