"""What an operator runs, and what the server does by itself: commands, doctor, backup, restore, housekeeping.

Knows: the command line, the data folder as a whole. Must not know: requests, the rules of sync. It imports whatever it
needs, and nothing but ``syncapp`` imports it.
"""
