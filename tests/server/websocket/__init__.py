"""Tests of ``server.websocket``: frames, events, sending to many."""
