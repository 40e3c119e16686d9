"""What lies below any endpoint: scheduling, quotas, connections, threads for the disk, the form of the log.

Knows: gevent, sockets, what a client may use. Must not know: endpoints, tenants' data, SQL. It imports ``protocol`` and
``settings``.
"""
