"""Whose jobs go where, and with whose keys."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.local import jobs
from infra.local.blobs import Blobs
from infra.local.cluster import _keys
from infra.local.database import Database
from infra.local.interlink import record
from infra.local.interlink.executor import Interlink
from infra.local.interlink.nodes import Node
from infra.local.objects import ObjectStore
from infra.local.settings import Credentials, StoreAddress
from tests.infra.local.interlink.test_pod import deployed

NODES = {"hpc": Node("hpc"), "site": Node("site", "unix:///run/site.sock")}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "dioscar.db")
    ObjectStore(database, Blobs(database, tmp_path / "blobs"))
    database.add_schema(jobs.SCHEMA)
    database.add_schema(record.SCHEMA)
    yield database
    database.close()


def interlink(database: Database, environ: dict[str, str]) -> Interlink:
    keys = lambda owner: ("a", "b")  # noqa: E731
    return Interlink(database.path.parent, database, NODES, StoreAddress("http://127.0.0.1:9000"), keys, environ)


@pytest.mark.parametrize(
    ("node", "owner", "sandbox", "away"),
    [
        ("hpc", "cluster_admin", "auto", True),
        ("hpc", "alice@example.org", "auto", False),
        ("hpc", "cluster_admin", "require", False),
        ("site", "alice@example.org", "require", True),
        ("gone", "cluster_admin", "auto", True),
        ("", "cluster_admin", "auto", False),
    ],
)
def test_only_what_may_run_unconfined_goes_to_this_machines_node(
    database: Database, node: str, owner: str, sandbox: str, away: bool
) -> None:
    service = replace(deployed(interlink_node_name=node), owner=owner)
    assert interlink(database, {"DIOSCAR_SANDBOX": sandbox}).offloads(service) is away


def test_pods_have_the_keys_of_their_services_owner() -> None:
    root = Credentials("oscar", "p", "minio", "root secret")
    accounts: dict[str, Any] = {"alice@example.org": SimpleNamespace(uid="alice@example.org", secret_key="hers")}
    users: Any = SimpleNamespace(accounts=accounts)
    assert _keys(root, None, "") == ("minio", "root secret")
    assert _keys(root, users, "alice@example.org") == ("alice@example.org", "hers")
    assert _keys(root, users, "bob@example.org") is None
    assert _keys(root, None, "alice@example.org") is None
