"""Tests of what the API says of itself."""
