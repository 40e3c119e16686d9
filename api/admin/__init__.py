"""The operator's console under ``/admin``.

Knows: its pages and what they ask for. Must not know: clients' endpoints, SQL, engines; what it does, the commands do too.
"""
