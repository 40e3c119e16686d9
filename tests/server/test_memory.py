"""Free memory goes back to the operating system."""

from __future__ import annotations

import subprocess
import sys

import pytest

FREE_MUCH = """
import ctypes, re
from pathlib import Path
from server.memory import give_back

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
held = [libc.malloc(1000) for _ in range(50_000)]
last = libc.malloc(1000)  # Above all others, so that free() alone can't shrink the heap.
for one in held:
    libc.free(one)

def resident_kib():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = resident_kib()
give_back()
print(before - resident_kib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_that_was_freed_goes_back() -> None:
    """Fault: what SQLite had freed stayed with the process for as long as that lived."""
    told = subprocess.run([sys.executable, "-c", FREE_MUCH], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 30_000
