"""Tests of ``operations``: commands, doctor, backup, restore."""
