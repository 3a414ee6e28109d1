"""What a user of an issuer is told: no more than is the user's, and within limits."""

import json

import pytest
import requests

from tests.cluster import Cluster
from tests.infra.local.users.conftest import (  # noqa: F401 - fixtures
    COPY,
    Person,
    alice,
    bob,
    cluster,
    denied,
    issuer,
)

# ruff: noqa: F811


def names(answer: requests.Response) -> set[str]:
    return {bucket["bucket_name"] for bucket in answer.json()}


def limits(cluster: Cluster, person: Person, **quota: dict[str, str]) -> None:
    url = cluster.url(f"/system/quotas/user/{person.uid}")
    assert cluster.http.put(url, data=json.dumps(quota)).status_code == 200


def test_buckets_are_seen_by_those_they_are_shared_with(cluster: Cluster, alice: Person, bob: Person):
    for visibility, users in (("private", []), ("restricted", [bob.uid]), ("public", [])):
        body = {"bucket_name": f"alice-{visibility}", "visibility": visibility, "allowed_users": users}
        assert alice.ask("POST", "/system/buckets", data=json.dumps(body)).status_code == 201
    assert names(bob.get("/system/buckets")) == {"alice-restricted", "alice-public"}
    assert names(alice.get("/system/buckets")) >= {"alice-private", "alice-restricted", "alice-public"}
    refused = bob.get("/system/buckets/alice-private")
    assert (refused.status_code, refused.text) == (403, f"User '{bob.uid}' is not authorised")
    body = json.dumps({"object_key": "a", "operation": "upload"})
    refused = bob.ask("POST", "/system/buckets/alice-private/presign", data=body)
    assert refused.status_code == 403
    assert "is not authorised to generate presigned URLs" in refused.text
    url = bob.ask("POST", "/system/buckets/alice-restricted/presign", data=body).json()["url"]
    assert requests.put(url, data=b"x", timeout=60).status_code == 200
    for method, path, document in (
        ("DELETE", "/system/buckets/alice-public", None),
        ("PUT", "/system/buckets", {"bucket_name": "alice-public", "visibility": "private"}),
    ):
        assert bob.ask(method, path, data=json.dumps(document)).status_code == 403
    shared = {"bucket_name": "alice-restricted", "visibility": "restricted", "allowed_users": []}
    assert alice.ask("PUT", "/system/buckets", data=json.dumps(shared)).status_code == 204
    assert names(bob.get("/system/buckets")) == {"alice-public"}
    for visibility in ("private", "restricted", "public"):
        assert alice.ask("DELETE", f"/system/buckets/alice-{visibility}").status_code == 204


def test_volumes_are_each_users_own_and_have_limits(cluster: Cluster, alice: Person, bob: Person):
    def create(person: Person, name: str, size: str) -> requests.Response:
        return person.ask("POST", "/system/volumes", data=json.dumps({"name": name, "size": size}))

    assert create(alice, "mine", "1Gi").status_code == 201
    assert create(bob, "mine", "1Gi").status_code == 201, "another namespace"
    assert bob.get("/system/volumes/mine").json()["owner_user"] == bob.uid
    assert create(alice, "large", "6Gi").text == "volume.size must be from 200Mi to 5Gi"
    assert create(alice, "second", "5Gi").status_code == 201
    refused = create(alice, "third", "2Gi")
    assert (refused.status_code, refused.text) == (
        400,
        "not enough volume disk quota: requested 2Gi, available 1Gi",
    )
    limits(cluster, alice, volumes={"disk": "99Gi", "volumes": "2"})
    assert create(alice, "third", "2Gi").text == "not enough volume count quota: requested 1, available 0"
    shown = alice.get("/system/quotas/user").json()
    assert shown["volumes"]["disk"] == {"max": "99Gi", "used": "6Gi"}
    assert shown["volumes"]["volumes"] == {"max": "2", "used": "2"}
    volume = {"name": "mine", "mount_path": "/data"}
    alice.deploy("alice-volume", volume=volume)
    assert alice.ask("DELETE", "/system/volumes/mine").status_code == 400
    assert bob.ask("DELETE", "/system/volumes/mine").status_code == 204
    alice.ask("DELETE", "/system/services/alice-volume")
    for name in ("mine", "second"):
        assert alice.ask("DELETE", f"/system/volumes/{name}").status_code == 204


def test_buckets_have_limits(cluster: Cluster, bob: Person):
    limits(cluster, bob, minio={"buckets": "1", "storage_per_bucket": "1Ki"})
    assert bob.ask("POST", "/system/buckets", data='{"bucket_name": "bob-one"}').status_code == 201
    refused = bob.ask("POST", "/system/buckets", data='{"bucket_name": "bob-two"}')
    assert refused.status_code == 403
    assert refused.text.startswith(f"MinIO bucket quota exceeded for user {bob.uid}: limit 1, current 1")
    assert bob.deploy("bob-service", 403).startswith("MinIO bucket quota exceeded")
    bob.s3.put_object(Bucket="bob-one", Key="a", Body=b"x" * 1000)
    assert denied(bob.s3.put_object, Bucket="bob-one", Key="b", Body=b"x" * 100) == "XMinioAdminBucketQuotaExceeded"
    bob.s3.put_object(Bucket="bob-one", Key="a", Body=b"x" * 100)
    shown = bob.get("/system/buckets/bob-one").json()
    assert (shown["storage_quota"], shown["storage_usage"]["used_bytes"]) == ({"max": "1Ki", "source": "bucket"}, 100)
    assert bob.get("/system/quotas/user").json()["minio"] == {
        "buckets": {"max": 1, "used": 1},
        "storage_per_bucket": {"max": "1Ki"},
        "storage_total": {"used": "100"},
    }
    limits(cluster, bob, minio={"buckets": "9", "storage_per_bucket": "0"})
    assert bob.ask("DELETE", "/system/buckets/bob-one").status_code == 204


def test_a_job_whose_output_does_not_fit_says_so(cluster: Cluster, bob: Person):
    bob.deploy("bob-full", script='head -c 5000 /dev/zero > "$TMP_OUTPUT_DIR/large"')
    limits(cluster, bob, minio={"storage_per_bucket": "1Ki"})
    bob.s3.put_object(Bucket="bob-full", Key="in/a", Body=b"x")
    (job,) = cluster.ended("bob-full")
    assert job["state"] == "Dead"
    assert 'bucket "bob-full" may hold 1Ki' in job["reason"]
    limits(cluster, bob, minio={"storage_per_bucket": "0"})


def test_metrics_and_logs_are_of_what_a_user_sees(cluster: Cluster, alice: Person, bob: Person):
    alice.deploy("alice-metrics")
    bob.deploy("bob-metrics")
    for person, service in ((alice, "alice-metrics"), (bob, "bob-metrics")):
        assert person.ask("POST", f"/run/{service}", data=b"aGk=").status_code == 200
    items = alice.get("/system/metrics/breakdown?group_by=service&include_users=true").json()["items"]
    found = {item["key"]: item for item in items}
    assert "bob-metrics" not in found
    assert (found["alice-metrics"]["requests_count_sync"], found["alice-metrics"]["users"]) == (1, [alice.uid])
    assert [item["key"] for item in alice.get("/system/metrics/breakdown?group_by=user").json()["items"]] == [alice.uid]
    assert alice.get("/system/metrics/bob-metrics").status_code == 403
    assert alice.get("/system/metrics/nobody").status_code == 404
    assert bob.uid in cluster.get("/system/metrics")["totals"]["users"]
    refused = alice.get("/system/logs")
    assert (refused.status_code, refused.text) == (403, "OIDC tokens are not allowed for system logs")
    logged = [(entry["path"], entry["user"]) for entry in cluster.get("/system/logs")["logs"]]
    assert ("/run/alice-metrics", alice.uid) in logged


@pytest.mark.parametrize(
    "method, path, status, text",
    [
        ("PUT", "/system/config", 401, '""'),
        ("GET", "/system/quotas/user/somebody", 403, "forbidden"),
        ("PUT", "/system/quotas/user/somebody", 403, "forbidden"),
    ],
)
def test_what_only_the_administrator_may(alice: Person, method: str, path: str, status: int, text: str):
    answer = alice.ask(method, path, data="{}")
    assert (answer.status_code, answer.text) == (status, text)


def test_status_shows_a_user_the_machine_and_no_more(cluster: Cluster, alice: Person):
    shown = alice.get("/system/status").json()
    assert shown["oscar"]["oidc"]["enabled"] is True
    assert shown["oscar"]["pods"] == {"total": 0, "states": {}}
    assert shown["minio"] == {"buckets_count": 0, "total_objects": 0}
    assert shown["cluster"]["nodes_count"] == 1
    assert cluster.get("/system/status")["minio"]["buckets_count"] > 0


def test_a_service_says_who_may_change_it(cluster: Cluster, alice: Person, bob: Person):
    alice.deploy("alice-public", visibility="public")
    assert bob.get("/system/services/alice-public").status_code == 200
    assert bob.get("/system/services/alice-public/deployment").json()["state"] == "ready"
    assert bob.deploy("alice-public", 403, change=True).endswith("doesn't have permision to modify this service")
    refused = bob.ask("DELETE", "/system/services/alice-public")
    assert (refused.status_code, refused.text) == (
        403,
        f"User {bob.uid} doesn't have permision to delete this service",
    )
    alice.deploy("alice-public", 204, change=True, visibility="private")
    hidden = bob.get("/system/services/alice-public")
    assert (hidden.status_code, hidden.text) == (403, f"User {bob.uid} doesn't have permision to get this service")
    assert bob.get("/system/services/alice-public/deployment").status_code == 403
    assert "alice-public" not in bob.services()
    assert names(bob.get("/system/buckets")).isdisjoint({"alice-public"})
