"""The bus between the processes of one installation: what one commits, the listeners of all are notified of.

Knows: how messages get from process to process, and in which order those of a tenant are passed on. Must not know: sockets,
Socket.IO, storage, Flask.
"""
