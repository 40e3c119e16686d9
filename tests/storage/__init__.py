"""Tests of ``storage``: what a push writes, what a pull reads, what devices are known to have."""
