"""The version of this server.

Knows: it. Must not know: anything else.
"""

VERSION = "0.2.0"
