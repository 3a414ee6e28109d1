"""The stores of a service beside the cluster's own, and whose services may have the cluster ask which."""

import asyncio
from pathlib import Path

import pytest

from events.notifications import Notification
from fdl.model import service_from_json
from infra.local import providers
from infra.local.providers import StoreFailed
from infra.local.services import Deployed
from infra.local.users.identity import ADMIN
from layers.runtime import InputError

FOUND = Notification("", "in/a.txt", provider="webdav.dcache")


def deployed(host: str, owner: str) -> Deployed:
    """A service whose input is on that host."""
    store = {"hostname": host, "login": "a", "password": "b"}
    document = {"name": "far", "image": "x", "script": "true", "storage_providers": {"webdav": {"dcache": store}}}
    return Deployed(service_from_json(document), "0" * 64, owner, 1)


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:1", "[::1]:1", "10.1.2.3", "169.254.169.254", "0.0.0.0"])
def test_a_users_service_has_nothing_of_the_clusters_own_network_asked(host: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is inside the cluster's own network, where a user's service has no store"):
        asyncio.run(providers.fetch(deployed(host, "user-1"), FOUND, tmp_path / "a.txt"))


def test_the_administrators_may_have_any_host_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"GET https://127\.0\.0\.1:1/in/a\.txt: .*refused"):
        asyncio.run(providers.fetch(deployed("127.0.0.1:1", ADMIN), FOUND, tmp_path / "a.txt"))
    assert not (tmp_path / "a.txt").exists()


def test_a_host_that_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"no-such-host\.invalid: there is no such host"):
        asyncio.run(providers.fetch(deployed("no-such-host.invalid", "user-1"), FOUND, tmp_path / "a.txt"))


def test_a_store_that_is_not_described_is_one_sentence(tmp_path: Path) -> None:
    found = Notification("b", "in/a.txt", provider="minio.cluster-a")
    with pytest.raises(InputError, match=r"minio\.cluster-a here; describe it in storage_providers\.minio\.cluster-a"):
        asyncio.run(providers.fetch(deployed("localhost", ADMIN), found, tmp_path / "a.txt"))
