"""Tests of ``accounts``: signing in and staying in."""
