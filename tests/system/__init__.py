"""Tests of the whole: crashes, faults, bad networks, fairness, isolation, existing apps, the guides."""
