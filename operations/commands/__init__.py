"""The operator's commands: ``python syncapp.py COMMAND``.

Knows: the command line. Must not know: the rules of sync; each calls what the server calls.
"""
