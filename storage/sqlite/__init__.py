"""The SQLite engine: connections, transactions, group commit, files as wholes, its errors.

Knows: SQLite and apsw, which nobody else imports. Must not know: whose file it is, requests, tables of ours.
It imports ``models`` and what is below.
"""
