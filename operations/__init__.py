"""The operator's commands, checks, backups and restores, and the server's background work.

Knows: the command line, the data folder as a whole. Must not know: requests, the rules of sync. It imports whatever it
needs, and nothing but ``syncapp`` imports it.
"""
