"""The endpoints: accounts, push and pull, history, pages for people.

Knows: which address takes and answers what, and whom to call for it. Must not know: SQL, engines, files, JWT details. It
imports ``sockets`` and what is below.
"""
