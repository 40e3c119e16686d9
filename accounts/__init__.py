"""Who is asking: tokens, passwords, attempts to log in, the key that signs.

Knows: JWT, bcrypt. Must not know: endpoints, sync, Socket.IO. It imports ``tenants`` and what is below.
"""
