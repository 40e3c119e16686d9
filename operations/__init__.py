"""What runs beside the requests: the background work of a server, its metrics, moves, migrations, and what operators do.

Knows: settings, engines, the data as a whole. Must not know: the command line, requests, the rules of sync.
"""
