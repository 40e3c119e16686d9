"""Tests of declared tables."""
