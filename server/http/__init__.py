"""HTTP on a connection: from received bytes to the application, and the response back.

Knows: RFC 9112, gevent's pywsgi, WSGI. Must not know: what any endpoint does, WebSocket frames, SQL. It imports
``server``, ``protocol`` and ``settings``.
"""
