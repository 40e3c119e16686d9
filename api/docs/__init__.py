"""Describes the API to programs: OpenAPI, AsyncAPI, and their schemas.

Knows: how each endpoint and event is described. Must not know: what an endpoint does. It imports ``api`` and what is below.
"""
