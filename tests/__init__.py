"""Tests, in the folders of what they test; ``conftest`` has the server, the tenants and the devices they work with."""
