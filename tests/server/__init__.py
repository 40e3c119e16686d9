"""Tests of ``server``: scheduling, quotas, connections."""
