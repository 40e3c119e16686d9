"""Starts of this process with one declaration of tables after another, and what is pushed and read between."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import models
from storage import schema
from storage.declarations import toml_file
from storage.declarations.table import model_of
from storage.sqlite import tenant_files
from tenants import Tenants
from tests.conftest import JSON
from tests.customers import customer
from tests.inside import push

Restart = Callable[..., Tenants]


def declare(text: str) -> None:
    """Declare tables in this process, as a start does."""
    models.declare([model_of(table) for table in toml_file.read(text)])
    schema.tenant_fingerprint.cache_clear()
    tenant_files._laid_out.cache_clear()


def provision(tenants: Tenants, tenant_id: str) -> Tenants:
    tenants.provision(customer(f"{tenant_id}@example.com", tenant_id))
    return tenants


def put(tenants: Tenants, tenant_id: str, *data: JSON, table: str = "job") -> list[JSON]:
    applied = push(tenants, tenant_id, {"changes": {table: list(data)}})
    return [json.loads(row) for row in applied.rows if row]


def column(tenants: Tenants, tenant_id: str, sql: str) -> list[Any]:
    return [row[0] for row in tenants.read(tenant_id, lambda: list(models.connection().execute(sql)))]
