"""What is set stays set when the cluster is killed and comes back; what is counted is kept by and by."""

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from fdl.model import dumps
from infra.local import buckets, jobs, versions
from infra.local.calls import ASYNC, KEPT, SYNC, Calls
from infra.local.database import Database
from tests.cluster import Cluster, running_cluster


def test_settings_outlive_a_kill(tmp_path: Path):
    with running_cluster(tmp_path) as cluster:
        assert send(cluster, "PUT", "/system/config", {"allowed_image_repositories": ["ghcr.io/dioscar"]}) == 200
        assert send(cluster, "PUT", "/system/quotas/user/somebody", {"volumes": {"disk": "9Gi"}}) == 200
        assert send(cluster, "POST", "/system/volumes", {"name": "kept", "size": "1Gi"}) == 201
        assert send(cluster, "POST", "/system/buckets", {"bucket_name": "kept", "visibility": "public"}) == 201
        cluster.deploy("with-volume", script="true", volume={"size": "2Gi", "mount_path": "/data"})
        cluster.deploy(
            "retains", script="true", volume={"size": "2Gi", "mount_path": "/d", "lifecycle_policy": "retain"}
        )
        cluster.kill()
        cluster.start()
        assert cluster.get("/system/config")["allowed_image_repositories"] == ["ghcr.io/dioscar"]
        refused = cluster.http.post(
            cluster.url("/system/services"),
            data=dumps({"name": "other", "image": "registry.example.org/x", "script": "true"}),
        )
        assert refused.status_code == 500
        assert refused.text.startswith("Error creating the service: image registry.example.org/x is not allowed")
        assert cluster.get("/system/quotas/user/somebody")["volumes"]["disk"]["max"] == "9Gi"
        assert [volume["name"] for volume in cluster.get("/system/volumes")] == ["kept", "retains", "with-volume"]
        assert cluster.get("/system/buckets/kept")["visibility"] == "public"
        changed = {"name": "with-volume", "image": "ghcr.io/dioscar/x", "script": "true"}
        assert (
            send(cluster, "PUT", "/system/services", {**changed, "volume": {"name": "kept", "mount_path": "/d"}}) == 400
        )
        same = {"name": "with-volume", "size": "2Gi", "mount_path": "/data", "lifecycle_policy": "delete"}
        assert send(cluster, "PUT", "/system/services", {**changed, "volume": same}) == 204
        again = {**changed, "name": "again", "volume": {"name": "kept", "size": "1Gi", "mount_path": "/d"}}
        assert send(cluster, "POST", "/system/services", again) == 409
        for name in ("with-volume", "retains"):
            assert cluster.http.delete(cluster.url(f"/system/services/{name}")).status_code == 204
        assert [volume["name"] for volume in cluster.get("/system/volumes")] == ["kept", "retains"]
        assert (tmp_path / "volumes" / "oscar-svc" / "retains").is_dir()


def send(cluster: Cluster, method: str, path: str, document: object) -> int:
    return cluster.http.request(method, cluster.url(path), data=json.dumps(document)).status_code


def test_pages_of_calls_show_each_once(tmp_path: Path):
    with closing(Database(tmp_path / "dioscar.db")) as database:
        calls = Calls(database)
        for number in range(KEPT + 500):
            calls.record("a", SYNC, f"/run/{number}", 200, time.time(), "127.0.0.1", "oscar")
        found: list[str] = []
        before: int | None = None
        while True:
            page, before = calls.recent(before=before, limit=999)
            found = [*(call.path for call in page), *found]
            if before is None:
                break
        assert found == [f"/run/{number}" for number in range(500, KEPT + 500)]


@pytest.mark.anyio
async def test_counts_outlive_their_process(tmp_path: Path):
    now = time.time()
    for _ in range(2):
        with closing(Database(tmp_path / "dioscar.db")) as database:
            for schema in (buckets.SCHEMA, versions.SCHEMA, jobs.SCHEMA):
                database.add_schema(schema)
            calls = Calls(database)
            calls.start()
            calls.record("a", SYNC, "/run/a", 200, now - 3, "127.0.0.1", "alice")
            calls.record("a", ASYNC, "/job/a", 201, now, "127.0.0.1", "oscar")
            calls.record("a", SYNC, "/run/a", 500, now, "127.0.0.1", "alice")
            await calls.stop()
    with closing(Database(tmp_path / "dioscar.db")) as database:
        found = {(one.kind, one.user): one for one in await Calls(database).used(now - 60, now + 60)}
        assert found[SYNC, "alice"].requests == 2, "one that failed is not counted"
        assert found[SYNC, "alice"].seconds >= 6
        assert found[ASYNC, "oscar"].requests == 2
        assert await Calls(database).used(now - 7200, now - 3600) == []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
