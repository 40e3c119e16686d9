"""The clock of a server that `bench/lib/large.mjs` starts in a later time, so that its purge has work to do.

Python imports this by itself where this folder is on PYTHONPATH. Knows: nothing of the server, so that any version of it
can be measured.
"""

import os
import time

_AHEAD_SECONDS = int(os.environ.get("BENCH_AHEAD_SECONDS", "0"))
_seconds, _nanoseconds = time.time, time.time_ns
time.time = lambda: _seconds() + _AHEAD_SECONDS
time.time_ns = lambda: _nanoseconds() + _AHEAD_SECONDS * 10**9
