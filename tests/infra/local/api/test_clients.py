"""Every call of oscar-python, and every command of oscar-cli as it is replayed."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from oscar_python.client import Client

from tests.cluster import Cluster
from tests.infra.local.api.conftest import ECHO
from tests.infra.local.api.replayer import MIB, Cli


@pytest.mark.parametrize("version", [1, 2])
def test_oscar_cli_goes_all_the_way(cluster: Cluster, version: int):
    cli, name = Cli(cluster, version), f"cli-{version}"
    script = 'cat "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/$A"\n'
    assert cli.apply(name, script, {"A": "first"}) == 201
    assert cli.apply(name, script, {"A": "second"}) == 204
    listed = cli.send("GET", "/system/services").json()
    assert name in [service["name"] for service in listed]
    assert cli.invoke("run", name, b"hello").text == base64.b64encode(b"hello").decode()
    job = cli.invoke("job", name, b"hello")
    assert (job.status, job.text) == (201, "")
    cluster.ended(name)
    data = b"x" * (6 * MIB)
    cli.put_file(name, "in/large file é.bin", data)
    cluster.ended(name, 2)
    assert cli.list_files(name, "out/") == ["out/second"]
    assert cli.get_file(name, "out/second") == data
    assert sorted(cli.list_files(name, "in")) == ["in/large file é.bin"]
    jobs = cli.logs(name)
    assert [job["status"] for job in jobs.values()] == ["Succeeded", "Succeeded"]
    latest = max(jobs, key=lambda job: jobs[job]["creation_time"])
    assert cli.send("GET", f"/system/logs/{name}/{latest}?timestamps=true").status == 200
    assert cli.send("DELETE", f"/system/logs/{name}/{latest}").status == 204
    assert cli.send("DELETE", f"/system/logs/{name}?all=true").status == 204
    assert cli.logs(name) == {}
    assert name in [bucket["bucket_name"] for bucket in cli.send("GET", "/system/buckets").json()]
    assert cli.send("GET", f"/system/buckets/{name}?limit=10&page=").json()["returned_items"] == 2
    assert cli.send("GET", "/system/info").json()["architecture"]
    cli.delete_file(name, "out/second")
    assert cli.send("DELETE", f"/system/services/{name}").status == 204
    assert cli.send("GET", f"/system/services/{name}").status == 404


def test_oscar_python_speaks_of_services_and_jobs(cluster: Cluster, oscar: Client):
    name = "python-services"
    document: dict[str, Any] = {"name": name, "image": "x", "cpu": "0.2", "memory": "256Mi", "script": ECHO}
    document["log_level"] = "CRITICAL"
    assert oscar.create_service(document).status_code == 201
    with pytest.raises(ValueError, match="already present"):
        oscar.create_service(document)
    assert oscar.update_service(name, {**document, "script": "echo two"}).status_code == 204
    assert oscar.get_service(name).json()["script"] == "echo two"
    assert name in [service["name"] for service in oscar.list_services().json()]
    assert oscar.run_service(name, input="aGVsbG8=").text == "two\n"
    assert oscar.run_service(name, input="aGVsbG8=", async_call=True).status_code == 201
    cluster.ended(name)
    jobs = oscar.list_jobs(name).json()["jobs"]
    assert [job["status"] for job in jobs.values()] == ["Succeeded"]
    assert oscar.get_job_logs(name, next(iter(jobs))).text == "two\n"
    assert oscar.remove_job(name, next(iter(jobs))).status_code == 204
    assert oscar.remove_all_jobs(name).status_code == 204
    assert oscar.get_deployment_status(name).json()["state"] == "ready"
    assert oscar.get_deployment_logs(name).json()["entries"] == []
    assert oscar.get_federation(name).json() == {"topology": "none", "members": None}
    for change in (
        lambda members: oscar.add_federation_members(name, members),
        lambda members: oscar.update_federation_members(name, members, members),
        lambda members: oscar.remove_federation_members(name, members),
    ):
        assert change([]).json() == {"topology": "none", "members": None}
        with pytest.raises(requests.HTTPError, match="400"):
            change([{"type": "oscar", "cluster_id": "other"}])
    assert oscar.remove_service(name).status_code == 204
    with pytest.raises(requests.HTTPError, match="404"):
        oscar.get_service(name)


def test_oscar_python_speaks_of_the_cluster(cluster: Cluster, oscar: Client):
    assert oscar.health_check().text == "Ok"
    assert oscar.get_cluster_info().json()["kubernetes_version"] == "none (embedded)"
    assert oscar.get_cluster_config().json()["config"]["volume_enable"] is True
    status = oscar.get_cluster_status().json()
    metrics = status["cluster"]["metrics"]
    assert 0 <= metrics["cpu"]["total_free_cores"] <= status["cluster"]["nodes"][0]["cpu"]["capacity_cores"]
    assert 0 < metrics["memory"]["total_free_bytes"] <= status["cluster"]["nodes"][0]["memory"]["capacity_bytes"]
    assert status["oscar"]["jobs_count"] == sum(status["oscar"]["pods"]["states"].values())
    assert isinstance(oscar.get_system_logs(timestamps=True).json()["logs"], list)
    with pytest.raises(requests.HTTPError, match="400"):
        oscar.get_system_logs(previous=True)


def test_oscar_python_speaks_of_buckets(oscar: Client):
    name = "python-bucket"
    assert oscar.create_bucket(f"{name}/in", "restricted", ["somebody"]).status_code == 201
    shown = oscar.get_bucket(name).json()
    assert (shown["visibility"], shown["allowed_users"], shown["returned_items"]) == ("restricted", ["somebody"], 1)
    assert [entry["object_name"] for entry in shown["objects"]] == ["in/"]
    assert oscar.update_bucket(name, "public").status_code == 204
    listed = oscar.list_buckets()
    assert f'"bucket_name":"{name}","visibility":"public"' in listed.text
    upload = oscar.presign_bucket(name, "in/a b é.txt", "upload", 60, "text/plain", {"x-amz-meta-run": "7"}).json()
    put = requests.put(upload["url"], data=b"telescope", headers=upload["headers"], timeout=30)
    assert put.status_code == 200, put.text
    download = oscar.presign_bucket(name, "in/a b é.txt", "download", 60, "text/csv").json()
    got = requests.get(download["url"], timeout=30)
    assert (got.content, got.headers["content-type"], got.headers["x-amz-meta-run"]) == (b"telescope", "text/csv", "7")
    unsigned = requests.put(upload["url"], data=b"x", headers={"Content-Type": "text/html"}, timeout=30)
    assert unsigned.status_code == 403, "a header that was signed has another value"
    assert oscar.delete_bucket(name).status_code == 204
    with pytest.raises(requests.HTTPError, match="404"):
        oscar.delete_bucket(name)


def test_oscar_python_speaks_of_volumes(cluster: Cluster, oscar: Client):
    name = "python-volume"
    made = oscar.create_volume(name, "1Gi")
    assert (made.status_code, made.json()["status"]) == (201, {"phase": "ready"})
    with pytest.raises(requests.HTTPError, match="409"):
        oscar.create_volume(name, "1Gi")
    cluster.deploy("python-mounts", script="true", volume={"name": name, "mount_path": "/data"})
    volume = oscar.get_volume(name).json()
    assert volume["attachments"] == [{"service_name": "python-mounts", "mount_path": "/data"}]
    assert volume["status"] == {"phase": "in_use", "attachment_count": 1}
    assert volume in oscar.list_volumes().json()
    assert oscar.get_service("python-mounts").json()["volume_status"] == {
        "enabled": True,
        "name": name,
        "phase": "in_use",
    }
    with pytest.raises(requests.HTTPError, match="400"):
        oscar.delete_volume(name)
    oscar.remove_service("python-mounts")
    assert (cluster.data / "volumes" / "oscar-svc" / name).is_dir()
    assert oscar.delete_volume(name).status_code == 204
    assert not (cluster.data / "volumes" / "oscar-svc" / name).exists()


def test_oscar_python_speaks_of_metrics(cluster: Cluster, oscar: Client):
    name = "python-metrics"
    cluster.deploy(name, script="true")
    cluster.run(name, b"")
    cluster.run(name, b"")
    cluster.put(name, "in/a", b"x")
    cluster.ended(name)
    totals = oscar.get_metrics_summary().json()["totals"]
    assert totals["requests_count_total"] == totals["requests_count_sync"] + totals["requests_count_async"]
    items = {item["key"]: item for item in oscar.get_metrics_breakdown("service").json()["items"]}
    assert items[name]["requests_count_sync"] == 2
    assert items[name]["requests_count_async"] == 1
    assert items[name]["unique_users_count"] == 1
    found = {entry["metric"]: entry for entry in oscar.get_service_metrics(name).json()["metrics"]}
    assert found["requests-sync-per-service"]["value"] == 2
    assert found["requests-async-per-service"]["value"] == 1
    assert found["cpu-hours"]["value"] > 0
    assert found["cpu-hours"]["unit"] == "hours"
    assert [item["key"] for item in oscar.get_metrics_breakdown("user").json()["items"]] == ["oscar"]
    text = cluster.http.get(cluster.url("/system/metrics/breakdown?group_by=service&format=csv"))
    assert text.headers["content-type"].startswith("text/csv")
    assert f"{name},,3,2,1,0,1," in text.text.splitlines()


def test_oscar_python_speaks_of_quotas(cluster: Cluster, oscar: Client):
    with pytest.raises(requests.HTTPError, match="401"):
        oscar.get_own_quota()
    with pytest.raises(requests.HTTPError, match="503"):
        oscar.update_user_quota("python-user", "2", "4Gi")
    url = cluster.url("/system/quotas/user/python-user")
    changed = cluster.http.put(url, data=json.dumps({"volumes": {"disk": "9Gi"}, "minio": {"buckets": "2"}})).json()
    assert oscar.get_user_quota("python-user").json() == changed
    assert changed["volumes"]["disk"] == {"max": "9Gi", "used": "0"}
    assert changed["minio"]["buckets"] == {"max": 2, "used": 0}


def test_oscar_python_stores_and_lists(cluster: Cluster, oscar: Client, tmp_path: Path):
    name = "python-storage"
    cluster.deploy(name, script=ECHO)
    storage = oscar.create_storage_client(name)
    (tmp_path / "file.txt").write_text("telescope")
    storage.upload_file("minio.default", str(tmp_path / "file.txt"), f"{name}/in")
    cluster.ended(name)
    listed = storage.list_files_from_path("minio.default", f"{name}/out")
    assert [entry["Key"] for entry in listed["Contents"]] == ["out/echo.bin"]
    (tmp_path / "got").mkdir()
    storage.download_file("minio.default", str(tmp_path / "got"), f"{name}/out/echo.bin")
    assert next((tmp_path / "got").iterdir()).read_text() == "telescope"
