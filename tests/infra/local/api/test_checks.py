"""The twenty-seven things that tell OSCAR's clients apart from a server that only looks like one, by their numbers."""

import base64
import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

import pytest
import requests
from minio import Minio

from fdl.model import dumps
from tests.cluster import Cluster, eventually
from tests.contract.callers import boto
from tests.infra.local.api.conftest import ECHO, oscar_client
from tests.infra.local.api.replayer import MIB, Cli

Check = Callable[[Cluster], None]
CHECKS: dict[int, Check] = {}
FDL = """
functions:
  oscar:
  - dioscar:
      name: check-23
      cpu: '0.5'
      memory: 256Mi
      image: x
      log_level: CRITICAL
      script: script.sh
      input: [{storage_provider: minio.default, path: check-23/in}]
      output: [{storage_provider: minio.default, path: check-23/out}]
"""


def number(number: int) -> Callable[[Check], Check]:
    def known(check: Check) -> Check:
        CHECKS[number] = check
        return check

    return known


@pytest.mark.parametrize("number", range(1, 28))
def test_check(cluster: Cluster, number: int):
    CHECKS[number](cluster)


def send(cluster: Cluster, method: str, path: str, document: Any = None) -> requests.Response:
    """As the administrator, with the content type that OSCAR's own tests send."""
    body = None if document is None else dumps(document)
    return cluster.http.request(method, cluster.url(path), data=body, headers={"Content-Type": "text/json"})


def empty(response: requests.Response, status: int) -> bool:
    return (response.status_code, response.content) == (status, b"")


@number(1)
def health(cluster: Cluster) -> None:
    response = requests.get(cluster.url("/health"), timeout=30)
    assert (response.status_code, response.text) == (200, "Ok")


@number(2)
def challenge(cluster: Cluster) -> None:
    for auth in (None, (cluster.facts["oscar_username"], "wrong")):
        response = requests.get(cluster.url("/system/services"), auth=auth, timeout=30)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic")


@number(3)
def info(cluster: Cluster) -> None:
    assert {"version", "git_commit", "architecture", "kubernetes_version"} <= set(cluster.get("/system/info"))


@number(4)
def config(cluster: Cluster) -> None:
    for path in ("/system/config", "/system/config/"):
        response = send(cluster, "GET", path)
        assert '"name":"oscar"' in response.text
        provider = response.json()["minio_provider"]
        assert list(provider) == ["endpoint", "verify", "access_key", "secret_key", "region"]
        assert isinstance(provider["verify"], bool)


@number(5)
def create(cluster: Cluster) -> None:
    assert empty(send(cluster, "POST", "/system/services", {"name": "check-5", "image": "x", "script": "true"}), 201)
    service = cluster.get("/system/services/check-5")
    assert re.fullmatch("[0-9a-f]{64}", service["token"])
    default = service["storage_providers"]["minio"]["default"]
    assert (default["access_key"], default["secret_key"]) == ("hidden", "hidden")
    assert (service["owner"], service["labels"]["oscar_service"]) == ("cluster_admin", "check-5")


@number(6)
def create_twice(cluster: Cluster) -> None:
    document = {"name": "check-6", "image": "x", "script": "true"}
    send(cluster, "POST", "/system/services", document)
    again = send(cluster, "POST", "/system/services", document)
    assert again.status_code == 400
    assert "already exists" in again.text


@number(7)
def create_badly(cluster: Cluster) -> None:
    for more in ({}, {"image": "x", "cpu": 1}):
        response = send(cluster, "POST", "/system/services", {"name": "check-7", "script": "true", **more})
        assert response.status_code == 400
        assert response.text.startswith("The service specification is not valid:")


@number(8)
def spellings(cluster: Cluster) -> None:
    for position, (spelled, ports) in enumerate(
        (
            ({"Variables": {"A": "1"}}, {"nodePort": 0}),
            ({"variables": {"A": "1"}}, {"nodePort": []}),
            ({"Variables": {"A": "1"}, "variables": {"B": "2"}}, {"api_port": 0, "nodePort": []}),
        )
    ):
        name = f"check-8-{position}"
        cluster.deploy(name, script='echo "$A$B"', environment=spelled, expose=ports, unknown={"deep": [1]})
        assert cluster.run(name, b"").text.strip() == ("12" if "B" in str(spelled) else "1")


@number(9)
def update(cluster: Cluster) -> None:
    cluster.deploy("check-9", script="echo one")
    token = cluster.token("check-9")
    document = {"name": "check-9", "image": "x", "script": "echo two"}
    assert empty(send(cluster, "PUT", "/system/services", document), 204)
    assert cluster.token("check-9") == token
    assert cluster.run("check-9", b"").text == "two\n"
    assert empty(send(cluster, "PUT", "/system/services", {**document, "name": "check-none"}), 404)


@number(10)
def unknown(cluster: Cluster) -> None:
    for method in ("GET", "DELETE"):
        assert empty(send(cluster, method, "/system/services/check-none"), 404)


@number(11)
def run_without_token(cluster: Cluster) -> None:
    cluster.deploy("check-11", script="true")
    url = cluster.url("/run/check-11")
    assert cluster.http.post(url).status_code == 401
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        assert requests.post(url, headers=headers, timeout=30).status_code == 401


@number(12)
def one_file(cluster: Cluster) -> None:
    cluster.deploy("check-12", script=f"echo noise\n{ECHO}")
    data = bytes(range(256))
    assert cluster.run("check-12", data).content == base64.b64encode(data)


@number(13)
def several_files(cluster: Cluster) -> None:
    script = 'cd "$TMP_OUTPUT_DIR"; mkdir -p d/e; echo 1 > d/a; echo 2 > d/e/b'
    cluster.deploy("check-13", script=script)
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(cluster.run("check-13", b"").content)))
    assert {name: archive.read(name) for name in archive.namelist()} == {"d/a": b"1\n", "d/e/b": b"2\n"}
    assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    cluster.deploy("check-13", script="echo out; echo err >&2")
    assert cluster.run("check-13", b"").text == "out\nerr\n"


@number(14)
def json_body(cluster: Cluster) -> None:
    cluster.deploy("check-14", script=ECHO)
    answer = cluster.invoke("run", "check-14", '{"name": "é", "dm": [56.7]}'.encode())
    assert json.loads(base64.b64decode(answer.content)) == {"name": "é", "dm": [56.7]}
    assert cluster.invoke("run", "check-14", b"").status_code == 200


@number(15)
def job(cluster: Cluster) -> None:
    cluster.deploy("check-15", script="true")
    assert empty(cluster.invoke("job", "check-15", b"aGk="), 201)
    cluster.ended("check-15")
    ((name, shown),) = cluster.get("/system/logs/check-15")["jobs"].items()
    assert re.fullmatch("check-15-[0-9a-f-]{36}", name)
    assert list(shown) == ["status", "creation_time", "start_time", "finish_time"]
    assert shown["status"] == "Succeeded"
    times = [shown["creation_time"], shown["start_time"], shown["finish_time"]]
    assert times == sorted(times)
    assert all(datetime.strptime(one, "%Y-%m-%dT%H:%M:%SZ") for one in times)  # noqa: DTZ007 - it ends in Z


@number(16)
def logs(cluster: Cluster) -> None:
    cluster.deploy("check-16", script="echo one; echo two")
    for count in (1, 2):
        cluster.invoke("job", "check-16", b"aGk=")
        cluster.ended("check-16", count)
    name = next(iter(cluster.get("/system/logs/check-16")["jobs"]))
    path = f"/system/logs/check-16/{name}"
    assert send(cluster, "GET", path).text == "one\ntwo\n"
    stamped = send(cluster, "GET", f"{path}?timestamps=true").text
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z (one|two)\n){2}", stamped)
    assert empty(send(cluster, "DELETE", path), 204)
    assert name not in cluster.get("/system/logs/check-16")["jobs"]
    assert empty(send(cluster, "DELETE", "/system/logs/check-16?all=true"), 204)
    assert send(cluster, "GET", "/system/logs/check-16").text == '{"jobs":{}}'


@number(17)
def pages(cluster: Cluster) -> None:
    cluster.deploy("check-17", script="true", annotations={"dioscar/executor": "process"})
    token = cluster.token("check-17")
    made = {cluster.invoke("job", "check-17", b"", token).headers["X-Dioscar-Job"] for _ in range(71)}
    first = cluster.get("/system/logs/check-17")
    second = cluster.get(f"/system/logs/check-17?page={first['next_page']}")
    assert (len(first["jobs"]), len(second["jobs"]), "next_page" in second) == (70, 1, False)
    assert set(Cli(cluster, 1).logs("check-17")) == made
    send(cluster, "DELETE", "/system/services/check-17")


@number(18)
def upload(cluster: Cluster) -> None:
    script = 'basename "$INPUT_FILE_PATH"; echo "$STORAGE_OBJECT_KEY"; echo "$EVENT"'
    cluster.deploy("check-18", script=script)
    s3 = boto(cluster)
    s3.put_object(Bucket="check-18", Key="in/a b é.txt", Body=b"x")
    s3.close()
    (found,) = cluster.ended("check-18")
    name, key, event = cluster.job_log(found).splitlines()
    assert (name, key) == ("a b é.txt", "in/a b é.txt")
    (record,) = json.loads(event)["Records"]
    assert record["eventSource"] == "minio:s3"
    assert unquote_plus(record["s3"]["object"]["key"]) == "in/a b é.txt" != record["s3"]["object"]["key"]


@number(19)
def uploads_of_other_clients(cluster: Cluster) -> None:
    cluster.deploy("check-19", script="true")
    facts = cluster.facts
    endpoint = facts["s3"].removeprefix("http://")
    client = Minio(endpoint, facts["minio_access_key"], facts["minio_secret_key"], secure=False, region="us-east-1")
    path = cluster.data / "check-19"
    path.write_bytes(b"x" * (6 * MIB))
    client.fput_object(bucket_name="check-19", object_name="in/minio", file_path=str(path))
    s3 = boto(cluster)
    s3.upload_file(str(path), "check-19", "outside")
    s3.upload_file(str(path), "check-19", "in/boto3")
    s3.close()
    client._http.clear()
    ended = cluster.ended("check-19", 2)
    assert sorted(job["key"] for job in ended) == ["in/boto3", "in/minio"]


@number(20)
def output_filters(cluster: Cluster) -> None:
    store = "minio.default"
    script = 'cd "$TMP_OUTPUT_DIR"; mkdir d; touch a.png d/b.png c.txt'
    output = [
        {"storage_provider": store, "path": "check-20/pictures", "suffix": ["png"]},
        {"storage_provider": store, "path": "check-20/texts", "suffix": ["txt"], "prefix": ["c"]},
        {"storage_provider": store, "path": "check-20/all"},
    ]
    cluster.deploy("check-20", script=script, output=output)
    cluster.put("check-20", "in/x", b"x")
    cluster.ended("check-20")
    made = {key for key in cluster.objects("check-20") if not key.startswith("in/")}
    everything = {f"all/{name}" for name in ("a.png", "d/b.png", "c.txt")}
    assert made == {"pictures/a.png", "pictures/d/b.png", "texts/c.txt", *everything}


@number(21)
def not_staged(cluster: Cluster) -> None:
    script = 'echo "${INPUT_FILE_PATH-unset} $STORAGE_OBJECT_KEY"'
    cluster.deploy("check-21", script=script, file_stage_in=True)
    cluster.put("check-21", "in/x", b"x")
    (found,) = cluster.ended("check-21")
    assert cluster.job_log(found).strip() == "unset in/x"


@number(22)
def failing_script(cluster: Cluster) -> None:
    """Here a failure is a failure: the deviation that docs/api.md names."""
    cluster.deploy("check-22", script="exit 7", annotations={"dioscar/retries": "0"})
    cluster.invoke("job", "check-22", b"")
    (found,) = cluster.ended("check-22")
    assert (found["state"], found["exit_code"]) == ("Dead", 7)
    assert [one["status"] for one in cluster.get("/system/logs/check-22")["jobs"].values()] == ["Failed"]


@number(23)
def oscar_python(cluster: Cluster) -> None:
    """From create to remove, by an FDL file; each of its calls is in test_clients.py."""
    folder = cluster.data / "check-23"
    (folder / "got").mkdir(parents=True)
    (folder / "script.sh").write_text(ECHO)
    (folder / "fdl.yaml").write_text(FDL)
    (folder / "file.txt").write_text("telescope")
    with oscar_client(cluster) as oscar:
        oscar.create_service(str(folder / "fdl.yaml"))
        storage = oscar.create_storage_client("check-23")
        storage.upload_file("minio.default", str(folder / "file.txt"), "check-23/in")
        cluster.ended("check-23")
        ((name, shown),) = oscar.list_jobs("check-23").json()["jobs"].items()
        assert shown["status"] == "Succeeded"
        assert oscar.get_job_logs("check-23", name).status_code == 200
        listed = storage.list_files_from_path("minio.default", "check-23/out")["Contents"]
        assert [entry["Key"] for entry in listed] == ["out/echo.bin"]
        storage.download_file("minio.default", str(folder / "got"), "check-23/out/echo.bin")
        assert next((folder / "got").iterdir()).read_text() == "telescope"
        answer = oscar.run_service("check-23", input="hello", output=str(folder / "answer.bin"))
        assert answer.status_code == 200
        assert (folder / "answer.bin").read_bytes() == b"hello"
        oscar.remove_service("check-23")
    assert empty(send(cluster, "GET", "/system/services/check-23"), 404)


@number(24)
def buckets(cluster: Cluster) -> None:
    document = {"bucket_name": "check-24", "visibility": "private", "allowed_users": []}
    assert empty(send(cluster, "POST", "/system/buckets", document), 201)
    assert '"bucket_name":"check-24","visibility":"private"' in send(cluster, "GET", "/system/buckets").text
    urls = {
        operation: send(
            cluster, "POST", "/system/buckets/check-24/presign", {"object_key": "a", "operation": operation}
        ).json()["url"]
        for operation in ("upload", "download")
    }
    assert requests.put(urls["upload"], data=b"bytes", timeout=30).status_code == 200
    assert requests.get(urls["download"], timeout=30).content == b"bytes"
    assert empty(send(cluster, "DELETE", "/system/buckets/check-24"), 204)
    assert send(cluster, "DELETE", "/system/buckets/check-24").status_code == 404


@number(25)
def delete(cluster: Cluster) -> None:
    """Its buckets go too, but for those that hold objects: the deviation that docs/api.md names."""
    cluster.deploy("check-25", script="true", output=[{"storage_provider": "minio.default", "path": "check-25-out/o"}])
    cluster.put("check-25", "in/x", b"x")
    cluster.ended("check-25")
    assert empty(send(cluster, "DELETE", "/system/services/check-25"), 204)
    assert "check-25" not in [service["name"] for service in cluster.get("/system/services")]
    left = [bucket["bucket_name"] for bucket in cluster.get("/system/buckets")]
    assert "check-25" in left
    assert "check-25-out" not in left


@number(26)
def other_shapes(cluster: Cluster) -> None:
    """Shapes and refusals, row by row, are in routes.py."""
    assert list(cluster.get("/system/metrics")) == ["start", "end", "totals", "sources"]
    assert list(cluster.get("/system/quotas/user/check")) == ["user_id", "volumes", "minio"]
    cluster.deploy("check-26", script="true", kserve={"type": "inference", "storage_uri": "s3://models/m"})
    assert cluster.get("/system/federation/check-26") == {"topology": "none", "members": None}
    assert cluster.get("/system/services/check-26")["kserve"]["storage_uri"] == "s3://models/m"
    assert send(cluster, "POST", "/system/volumes", {"name": "check-26", "size": "1Gi"}).status_code == 201
    assert empty(send(cluster, "DELETE", "/system/volumes/check-26"), 204)


@number(27)
def oscar_cli(cluster: Cluster) -> None:
    """Replayed, not run: both versions, `run` beside the work of a job."""
    for version in (1, 2):
        cli, name = Cli(cluster, version), f"check-27-{version}"
        assert cli.apply(name, ECHO) == 201
        assert base64.b64decode(cli.invoke("run", name, b"now").text) == b"now"
        cli.put_file(name, "in/a", b"later")
        eventually(lambda cli=cli, name=name: cli.list_files(name, "out/") == ["out/echo.bin"])  # type: ignore[misc]
        assert cli.get_file(name, "out/echo.bin") == b"later"
        assert len(cli.logs(name)) == 1
        assert cli.send("DELETE", f"/system/services/{name}").status == 204


def test_the_log_of_calls_tells_who_called_what(cluster: Cluster):
    cluster.deploy("check-calls", script="true")
    began = time.time()
    cluster.run("check-calls", b"")
    cluster.invoke("job", "check-calls", b"", "0" * 64)
    found = [entry for entry in cluster.get("/system/logs")["logs"] if entry["path"].endswith("/check-calls")]
    assert [(entry["method"], entry["path"], entry["status"], entry["user"]) for entry in found] == [
        ("POST", "/run/check-calls", 200, "oscar"),
        ("POST", "/job/check-calls", 401, "oscar"),
    ]
    assert list(found[0]) == ["timestamp", "status", "latency", "client_ip", "method", "path", "user", "raw"]
    assert abs(datetime.fromisoformat(found[0]["timestamp"]).timestamp() - began) < 60
    assert found[0]["raw"].startswith("[GIN-EXECUTIONS-LOGGER] ")
