"""Backups: how copies are made, kept and verified, and how tenants are brought back from them.

Knows: data folders, places of backups, engines' copies. Must not know: the command line, requests, the rules of sync.
"""
