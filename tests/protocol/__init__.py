"""Tests of ``protocol``: rules and formats."""
