"""Rules and formats: what travels, what it means, and what becomes of a change.

Knows: JSON, times, cursors, the forms of pushes and pulls, who wins a conflict, the errors that clients meet.
Must not know: I/O, the clock (the time is passed in), Flask, gevent, peewee, any stored row. It imports nothing of ours.
"""
