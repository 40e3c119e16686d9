"""What the benchmark makes of its samples; the tests are `report.test.mjs`, which Node runs.

Seen to fail with: a ratio of two medians; a goal of the peer's that counts beside an older version; the first file's
figure instead of the last's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import needs


@needs("node")
def test_figures_become_ratios_goals_and_tables() -> None:
    command = ["node", "--test", str(Path(__file__).parent / "report.test.mjs")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
