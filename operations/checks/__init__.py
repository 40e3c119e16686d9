"""Checks: of this machine before a start, of what is stored, of a deployment from outside.

Knows: what a start needs, what a proxy may break. Must not know: the command line, the rules of sync.
"""
