"""The PostgreSQL engine: one set of tables, in which each row has its tenant and code sees those of one tenant alone.

Knows: how rows of tenants are kept apart, connections, transactions. Must not know: requests, sockets, the rules of sync.
Only this folder imports psycopg.
"""
