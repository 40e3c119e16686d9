"""Tests of the benchmark: what it makes of its samples."""
