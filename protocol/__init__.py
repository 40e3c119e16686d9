"""The rules and formats of sync, without I/O: what is on the wire, what it means, and who wins a conflict.

Knows: JSON, times, cursors, the forms of pushes and pulls, merging, the errors that clients may get.
Must not know: I/O, the clock (the time is passed in), Flask, gevent, peewee, any stored row. It imports nothing of ours.
"""
