"""Tests of ``api``: what each endpoint takes and answers."""
