"""Tests of clients: JavaScript, Dart, and the table of the kit."""
