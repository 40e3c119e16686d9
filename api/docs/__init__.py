"""What the API says of itself: OpenAPI, AsyncAPI, and the schemas in them.

Knows: how each endpoint and event is described. Must not know: what an endpoint does. It imports ``api`` and what is below.
"""
