"""What every storage engine promises (``storage/engine.py``), tested through the contract alone, over each engine.

Must not know: files, any engine's driver or SQL. An engine is added to ``ENGINES`` in ``installations.py``; then all of it
runs over that too.
"""
