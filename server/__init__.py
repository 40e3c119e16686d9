"""What lies below any endpoint: scheduling, quotas, connections, threads for the disk, the format of the log.

Knows: gevent, sockets, quotas. Must not know: endpoints, tenants' data, SQL. It imports ``protocol`` and
``settings``.
"""
