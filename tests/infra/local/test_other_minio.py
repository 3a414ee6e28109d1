"""Outputs in a MinIO that is not the cluster's own: nothing of it is made, listened to, counted or removed here."""

from typing import Any

from fdl.model import dumps, service_from_json
from infra.cli.reconcile import keeps_records
from tests.cluster import Cluster

FAR = {"minio": {"far": {"endpoint": "http://127.0.0.1:1", "access_key": "a", "secret_key": "b"}}}


def document(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": "x",
        "script": "true",
        "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
        "output": [
            {"storage_provider": "minio.far", "path": f"{name}-far/out"},
            {"storage_provider": "MinIO", "path": f"{name}-own/out"},
        ],
        "storage_providers": FAR,
        **more,
    }


def buckets(cluster: Cluster) -> set[str]:
    return {bucket["bucket_name"] for bucket in cluster.get("/system/buckets") or []}


def test_only_the_default_minio_is_the_cluster_s_own() -> None:
    service = service_from_json(document("writes"))
    assert [entry.is_own for entry in service.output] == [False, True]
    assert [entry.bucket for entry in service.own_outputs] == ["writes-own"]
    assert service.own_buckets == {"writes", "writes-own"}


def test_a_service_has_no_bucket_here_for_what_it_writes_elsewhere(cluster: Cluster) -> None:
    cluster.deploy(**document("writes-far"))
    assert buckets(cluster) & {"writes-far", "writes-far-own", "writes-far-far"} == {"writes-far", "writes-far-own"}
    made = cluster.http.post(cluster.url("/system/buckets"), data=dumps({"bucket_name": "writes-far-far"}))
    assert made.status_code == 201
    assert cluster.http.delete(cluster.url("/system/services/writes-far")).status_code == 204
    assert buckets(cluster) & {"writes-far", "writes-far-own", "writes-far-far"} == {"writes-far-far"}


def test_another_minio_is_no_mailbox(cluster: Cluster) -> None:
    entry = {"storage_provider": "minio.far", "path": "listens-far/in"}
    refused = cluster.http.post(
        cluster.url("/system/services"), data=dumps(document("listens-far", input=[entry], output=[]))
    )
    assert refused.status_code == 400
    assert "input[0].storage_provider: the provided MinIO server minio.far is not the configured in OSCAR" in (
        refused.text
    )
    assert "listens-far" not in buckets(cluster)


def test_no_record_of_a_run_is_looked_for_where_it_is_not() -> None:
    variables = {"variables": {"DIOSCAR_FUNCTION": "contract.copy"}}
    far = {"storage_provider": "minio.far", "path": "writes/out"}
    assert keeps_records(service_from_json(document("writes", environment=variables)))
    assert not keeps_records(service_from_json(document("writes", environment=variables, output=[far])))
