"""Starts of this process with one declaration of tables after another, and what is pushed and read between."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import models
from storage import main_database, schema
from storage.declarations import toml_file
from storage.declarations.table import model_of
from storage.sqlite import tenant_files
from tenants import Tenants
from tests.conftest import JSON
from tests.inside import push

Restart = Callable[..., Tenants]


def declare(text: str) -> None:
    """Declare tables in this process, as a start does."""
    models.declare([model_of(table) for table in toml_file.read(text)])
    schema.tenant_fingerprint.cache_clear()
    tenant_files._laid_out.cache_clear()


def provision(tenants: Tenants, tenant_id: str) -> Tenants:
    names = {"name": "A B", "companyName": "C", "firstName": "A", "lastName": "B", "passwordHash": "-"}
    email = f"{tenant_id}@example.com"
    tenants.provision(main_database.Customer(id=tenant_id, email=email, createdAt="2026-01-01T00:00:00.000Z", **names))
    return tenants


def put(tenants: Tenants, tenant_id: str, *data: JSON, table: str = "job") -> list[JSON]:
    applied = push(tenants, tenant_id, {"changes": {table: list(data)}})
    return [json.loads(row) for row in applied.rows if row]


def column(tenants: Tenants, tenant_id: str, sql: str) -> list[Any]:
    return [row[0] for row in tenants.read(tenant_id, lambda: list(models.connection().execute(sql)))]
