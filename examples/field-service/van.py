"""A device in a van: works without a network, and syncs when there is one."""

import os

from syncclient import SyncClient

client = SyncClient("van.db", os.environ.get("SYNCAPP_URL", "http://localhost:3000"))
address = {"street": "1 Hill Road", "city": "Pune"}
job = client.put("job", {"id": "job-1", "title": "Leaking roof", "due": "2026-07-01", "address": address})
client.put("visit", {"job_id": "job-1", "began_at": "2026-06-29T09:30:00+05:30"})
client.put("part", {"job_id": "job-1", "name": "Roof tile", "quantity": 12})
print("written offline:", job["title"], job["sync_status"])

client.login("tutorial@example.com", "password123")
client.sync()
job = client.get("job", "job-1")
print("after the sync:", job["title"], job["status"], job["sync_status"])
client.close()
