"""Tables that an app declares in tables.toml: read, made into models, compared with what was accepted before.

Knows: the words of the file, and which change of a declaration stored rows could violate. Must not know: Flask, sockets,
requests. It imports ``storage`` and what is below.
"""
