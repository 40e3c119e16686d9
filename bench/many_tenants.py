"""What many tenants cost: made in-process as the operator's command does, hashing left out.

Run with a checkout's Python in that checkout, with DATA_DIR set: ``python bench/many_tenants.py COUNT`` prints one line of
JSON. What it leaves in DATA_DIR is what a server is then started on.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path.cwd()))

import settings  # noqa: E402
from protocol.codec import format_time  # noqa: E402
from storage import main_database, positions  # noqa: E402
from storage.positions import now_ms  # noqa: E402
from storage.sqlite.engine import SQLiteEngine  # noqa: E402
from tenants import Tenants, parse_tenant_id  # noqa: E402


def rss_kib() -> int:
    """Read this process's resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def descriptors() -> int:
    """Count this process's open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


def main(count: int) -> None:
    """Make tenants, open each, and print what that took."""
    chosen = settings.load()
    engine = SQLiteEngine(chosen.data_dir, most_open=chosen.open_tenants, is_server=False)
    tenants = Tenants(engine)
    ids, took = [], []
    for number in range(count):
        customer = _customer(number)
        began = time.perf_counter()
        tenants.provision(customer)
        took.append((time.perf_counter() - began) * 1000)
        ids.append(parse_tenant_id(customer.id))
    memory, files = rss_kib(), descriptors()
    began = time.perf_counter()
    for tenant_id in ids:
        tenants.read(tenant_id, positions.place)
    opening = (time.perf_counter() - began) * 1000 / count
    took.sort()
    size = sum(path.stat().st_blocks * 512 for path in (chosen.data_dir / "tenants").iterdir())
    said = {
        "p50": took[count // 2],
        "p99": took[int(count * 0.99)],
        "openMs": opening,
        "open": len(engine.files),
        "openKib": (rss_kib() - memory) / len(engine.files),
        "openDescriptors": (descriptors() - files) / len(engine.files),
        "diskKib": size / 1024 / count,
    }
    print(json.dumps(said))
    engine.close()


def _customer(number: int) -> main_database.Customer:
    """Make a customer as registration does, with a hash that opens nothing."""
    customer: main_database.Customer = main_database.Customer(
        id=str(uuid.uuid4()),
        email=f"t{number}-{os.getpid()}@example.com",
        name="Bench Tenant",
        firstName="Bench",
        lastName="Tenant",
        companyName="Individual Customer",
        passwordHash="-",
        createdAt=format_time(now_ms()),
    )
    return customer


if __name__ == "__main__":
    main(int(sys.argv[1]))
