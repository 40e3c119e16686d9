"""WebSocket connections as Socket.IO uses them: frames, events, and sending one packet to many.

Knows: RFC 6455, how Engine.IO and Socket.IO serve a connection. Must not know: who listens, what is sent, SQL. It imports
``server.http``, ``server``, ``protocol`` and ``settings``.
"""
