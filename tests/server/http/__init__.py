"""Tests of ``server.http``, most of them on a real socket."""
