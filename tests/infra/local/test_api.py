"""OSCAR's API as its clients see it: codes, empty bodies, key order, compact JSON."""

import base64
import gc
import io
import json
import re
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from oscar_python.client import Client

from fdl.model import dumps
from tests.cluster import Cluster, eventually

ECHO = 'cat "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/echo.bin"\n'


@pytest.fixture
def oscar(cluster: Cluster) -> Iterator[Client]:
    facts = cluster.facts
    yield Client(
        {
            "cluster_id": "dioscar",
            "endpoint": facts["api"],
            "user": facts["oscar_username"],
            "password": facts["oscar_password"],
            "ssl": False,
        }
    )
    with warnings.catch_warnings():  # it never closes its connections
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def post(cluster: Cluster, document: Any) -> requests.Response:
    body = document if isinstance(document, str) else dumps(document)
    return cluster.http.post(cluster.url("/system/services"), data=body, headers={"Content-Type": "text/json"})


def test_health_needs_nobody(cluster: Cluster):
    response = requests.get(cluster.url("/health"), timeout=10)
    assert (response.status_code, response.text) == (200, "Ok")


@pytest.mark.parametrize("auth", [None, ("oscar", "wrong"), ("nobody", ""), ("é", "ü")])
def test_a_wrong_password_is_challenged(cluster: Cluster, auth: tuple[str, str] | None):
    encoded = auth and tuple(part.encode() for part in auth)
    response = requests.get(cluster.url("/system/services"), auth=encoded, timeout=10)  # type: ignore[arg-type]
    assert response.status_code == 401
    assert response.text == "the user name or the password is wrong; `dioscar config` shows both"
    assert response.headers["WWW-Authenticate"] == 'Basic realm="Authorization Required"'


def test_info_has_oscars_keys(cluster: Cluster):
    assert {"version", "git_commit", "architecture", "kubernetes_version"} <= set(cluster.get("/system/info"))


def test_config_is_compact_and_gives_the_keys_of_the_store(cluster: Cluster):
    response = cluster.http.get(cluster.url("/system/config/"))
    assert '"name":"oscar"' in response.text
    provider = response.json()["minio_provider"]
    assert list(provider) == ["endpoint", "verify", "access_key", "secret_key", "region"]
    assert provider["verify"] is False


def test_a_service_is_created_read_and_removed(cluster: Cluster):
    document = {"name": "api-crud", "image": "x", "script": "true\r\n"}
    created = post(cluster, document)
    assert (created.status_code, created.text) == (201, "")
    service = cluster.get("/system/services/api-crud")
    assert re.fullmatch("[0-9a-f]{64}", service["token"])
    assert service["owner"] == "cluster_admin"
    assert service["labels"]["oscar_service"] == "api-crud"
    assert service["script"] == "true\n"
    assert service["storage_providers"]["minio"]["default"]["secret_key"] == "hidden"
    assert service["volume_status"] == {"enabled": False}
    assert "api-crud" in [entry["name"] for entry in cluster.get("/system/services")]
    removed = cluster.http.delete(cluster.url("/system/services/api-crud"))
    assert (removed.status_code, removed.text) == (204, "")
    missing = cluster.http.get(cluster.url("/system/services/api-crud"))
    assert (missing.status_code, missing.text) == (404, "")
    assert cluster.http.delete(cluster.url("/system/services/api-crud")).status_code == 404


def test_a_second_create_is_refused_in_oscars_words(cluster: Cluster):
    document = {"name": "api-twice", "image": "x", "script": "true"}
    assert post(cluster, document).status_code == 201
    again = post(cluster, document)
    assert (again.status_code, again.text) == (400, "A service with the provided name already exists")


@pytest.mark.parametrize(
    "document, words",
    [
        ({"name": "x", "script": "true"}, "image"),
        ({"name": "api-bad", "image": "x", "script": "true", "cpu": 1}, "cpu"),
        ({"name": "Api_Bad", "image": "x", "script": "true"}, "Api_Bad"),
        ({"name": "api-bad", "image": "x", "script": "true", "memory": "4GB"}, "4Gi"),
        (
            {"name": "api-bad", "image": "x", "script": "true", "annotations": {"dioscar/retries": "x"}},
            "dioscar/retries",
        ),
        ("{", "no JSON"),
        ("[1]", ""),
    ],
)
def test_a_wrong_service_is_one_sentence(cluster: Cluster, document: Any, words: str):
    response = post(cluster, document)
    assert response.status_code == 400
    assert response.text.startswith("The service specification is not valid:")
    assert words in response.text
    assert "\n" not in response.text.strip()


def test_an_update_keeps_the_token_and_runs_the_new_script(cluster: Cluster):
    cluster.deploy("api-update", script="echo one")
    token = cluster.token("api-update")
    assert cluster.run("api-update", b"").text.strip() == "one"
    cluster.deploy("api-update", script="echo two")
    assert cluster.token("api-update") == token
    assert cluster.run("api-update", b"").text.strip() == "two"


def test_an_update_of_nothing_is_404(cluster: Cluster):
    body = dumps({"name": "api-nowhere", "image": "x", "script": "true"})
    response = cluster.http.put(cluster.url("/system/services"), data=body)
    assert (response.status_code, response.text) == (404, "")


def test_secrets_reach_the_script_and_nobody_else(cluster: Cluster):
    environment = {"variables": {"A": "1"}, "secrets": {"PASSWORD_FILE": "s3cret"}}
    cluster.deploy("api-secret", script='echo "$A $PASSWORD_FILE"', environment=environment)
    assert cluster.run("api-secret", b"").text.strip() == "1 s3cret"
    assert cluster.get("/system/services/api-secret")["environment"]["secrets"] == {"PASSWORD_FILE": ""}


@pytest.mark.parametrize("way", ["run", "job"])
def test_only_the_services_token_invokes(cluster: Cluster, way: str):
    cluster.deploy("api-token", script=ECHO)
    for headers in (
        {},
        {"Authorization": "Bearer " + "0" * 64},
        {"Authorization": f"Basic {cluster.token('api-token')}"},
    ):
        response = requests.post(cluster.url(f"/{way}/api-token"), headers=headers, timeout=10)
        assert response.status_code == 401
        assert response.text.startswith('this is not the token of a service "api-token"; ')
    assert cluster.http.post(cluster.url(f"/{way}/api-token")).status_code == 401
    unknown = cluster.invoke(way, "api-nowhere", b"", token="0" * 64)
    assert unknown.text.startswith('this is not the token of a service "api-nowhere"; ')


def test_one_file_is_answered_as_base64(cluster: Cluster):
    cluster.deploy("api-echo", script=ECHO)
    assert base64.b64decode(cluster.run("api-echo", b"\x00\xff").content) == b"\x00\xff"


def test_several_files_are_answered_as_a_zip(cluster: Cluster):
    script = 'mkdir "$TMP_OUTPUT_DIR/d"; echo 1 > "$TMP_OUTPUT_DIR/a"; echo 2 > "$TMP_OUTPUT_DIR/d/b"'
    cluster.deploy("api-zip", script=script)
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(cluster.run("api-zip", b"").content)))
    assert archive.namelist() == ["a", "d/b"]


def test_no_file_is_answered_with_what_was_printed(cluster: Cluster):
    cluster.deploy("api-print", script="echo out; echo err >&2")
    assert cluster.run("api-print", b"").text == "out\nerr\n"


def test_a_json_body_is_the_input(cluster: Cluster):
    cluster.deploy("api-json", script=ECHO)
    answer = cluster.invoke("run", "api-json", b'{"dm": 56.7}')
    assert json.loads(base64.b64decode(answer.content)) == {"dm": 56.7}


@pytest.mark.parametrize("way", ["run", "job"])
def test_a_body_that_is_no_base64_is_one_sentence(cluster: Cluster, way: str):
    cluster.deploy("api-body", script=ECHO)
    response = cluster.invoke(way, "api-body", b"this is no base64!")
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message == "the body is neither JSON nor base64; encode the file with `base64 -w0 FILE`"


def test_a_failing_script_is_no_success(cluster: Cluster):
    cluster.deploy("api-fail", script="echo the reason; exit 7")
    response = cluster.run("api-fail", b"")
    assert response.status_code == 500
    assert response.json() == {
        "error": {"type": "ScriptError", "message": "the script ended with status 7: the reason"}
    }


def test_a_job_is_made_with_an_empty_answer_and_its_id_in_a_header(cluster: Cluster):
    cluster.deploy("api-job", script="echo working; cp $INPUT_FILE_PATH $TMP_OUTPUT_DIR/x")
    response = cluster.invoke("job", "api-job", base64.b64encode(b"abc"))
    assert (response.status_code, response.text) == (201, "")
    job_id = response.headers["X-Dioscar-Job"]
    assert re.fullmatch("api-job-[0-9a-f-]{36}", job_id)
    cluster.ended("api-job")
    listed = cluster.get("/system/logs/api-job")["jobs"]
    assert listed[job_id]["status"] == "Succeeded"
    assert listed[job_id]["creation_time"] <= listed[job_id]["start_time"] <= listed[job_id]["finish_time"]
    assert cluster.http.get(cluster.url(f"/system/logs/api-job/{job_id}")).text == "working\n"
    stamped = cluster.http.get(cluster.url(f"/system/logs/api-job/{job_id}?timestamps=true")).text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z working\n", stamped)
    assert cluster.read("api-job", "out/x") == b"abc"


def test_logs_of_what_is_not_there_are_404(cluster: Cluster):
    cluster.deploy("api-logs", script="true")
    assert cluster.get("/system/logs/api-logs") == {"jobs": {}}
    for path in ("/system/logs/api-logs/x", "/system/logs/api-nowhere", "/dioscar/v1/jobs/x"):
        assert cluster.http.get(cluster.url(path)).status_code == 404


def test_pages_of_logs_show_each_job_once(cluster: Cluster):
    cluster.deploy("api-pages", script="true")
    token = cluster.token("api-pages")
    for _ in range(75):
        assert cluster.invoke("job", "api-pages", b"", token).status_code == 201
    cluster.ended("api-pages", 75)
    first = cluster.get("/system/logs/api-pages")
    second = cluster.get(f"/system/logs/api-pages?page={first['next_page']}")
    assert "next_page" not in second
    assert len(first["jobs"]) == 70
    assert len({**first["jobs"], **second["jobs"]}) == 75
    assert cluster.http.delete(cluster.url("/system/logs/api-pages")).status_code == 204
    assert cluster.get("/system/logs/api-pages") == {"jobs": {}}


def test_a_log_can_be_followed_while_the_job_runs(cluster: Cluster):
    cluster.deploy("api-follow", script="echo first; sleep 1; echo second", annotations={"dioscar/executor": "process"})
    job_id = cluster.invoke("job", "api-follow", b"").headers["X-Dioscar-Job"]
    url = cluster.url(f"/dioscar/v1/jobs/{job_id}/log?follow=1")
    began = time.monotonic()
    with cluster.http.get(url, stream=True) as response:
        lines = [(line, time.monotonic() - began) for line in response.iter_lines()]
    assert [line for line, _ in lines] == [b"first", b"second"]
    assert lines[1][1] - lines[0][1] > 0.5


def test_oscars_own_client_goes_all_the_way(cluster: Cluster, oscar: Client, tmp_path: Path):
    (tmp_path / "script.sh").write_text(ECHO)
    (tmp_path / "one.yaml").write_text(
        """
functions:
  oscar:
  - dioscar:
      name: api-python
      cpu: '0.5'
      memory: 256Mi
      image: x
      log_level: CRITICAL
      script: script.sh
      input: [{storage_provider: minio.default, path: api-python/in}]
      output: [{storage_provider: minio.default, path: api-python/out}]
"""
    )
    oscar.create_service(str(tmp_path / "one.yaml"))
    assert "api-python" in [service["name"] for service in oscar.list_services().json()]
    storage = oscar.create_storage_client("api-python")
    (tmp_path / "file.txt").write_text("telescope")
    storage.upload_file("minio.default", str(tmp_path / "file.txt"), "api-python/in")
    cluster.ended("api-python")
    jobs = oscar.list_jobs("api-python").json()["jobs"]
    assert [job["status"] for job in jobs.values()] == ["Succeeded"]
    assert oscar.get_job_logs("api-python", next(iter(jobs))).status_code == 200
    assert "out/echo.bin" in [
        f["Key"] for f in storage.list_files_from_path("minio.default", "api-python/out")["Contents"]
    ]
    (tmp_path / "got").mkdir()
    storage.download_file("minio.default", str(tmp_path / "got"), "api-python/out/echo.bin")
    assert next((tmp_path / "got").iterdir()).read_text() == "telescope"
    assert base64.b64decode(oscar.run_service("api-python", input="aGVsbG8=").text) in (b"hello", b"aGVsbG8=")
    oscar.remove_service("api-python")
    assert cluster.http.get(cluster.url("/system/services/api-python")).status_code == 404


def test_what_old_and_new_oscar_cli_send_is_accepted(cluster: Cluster):
    """`oscar-cli` 1.12 sends a number where 2 sends a list, both cases of `variables`, and its cluster's password."""
    for version, expose in enumerate(({"nodePort": 0, "api_port": 0}, {"nodePort": [], "api_port": []})):
        name = f"api-cli{version}"
        document = {
            "name": name,
            "cluster_id": "dioscar",
            "image": "x",
            "cpu": "0.2",
            "script": 'echo "$A$B"',
            "expose": expose,
            "environment": {"Variables": {"A": "1"}, "variables": {"B": "2"}},
            "clusters": {
                "dioscar": {"endpoint": "http://x", "auth_user": "u", "auth_password": "p", "ssl_verify": False}
            },
            "unknown": 1,
        }
        assert post(cluster, document).status_code == 201
        body = iter([base64.b64encode(b"x")])  # sent in chunks, without a content type
        bearer = {"Authorization": f"Bearer {cluster.token(name)}"}
        assert requests.post(cluster.url(f"/run/{name}"), data=body, headers=bearer, timeout=30).text == "12\n"


def test_removing_a_service_keeps_buckets_that_hold_data(cluster: Cluster):
    cluster.deploy("api-keep", script="true")
    cluster.put("api-keep", "out/result", b"precious")
    assert cluster.http.delete(cluster.url("/system/services/api-keep")).status_code == 204
    assert cluster.read("api-keep", "out/result") == b"precious"


def test_two_services_may_share_a_bucket(cluster: Cluster):
    """OSCAR's documented way to chain: the producer's output is the consumer's input."""
    cluster.deploy("api-first", script=ECHO, output=[{"storage_provider": "minio.default", "path": "api-second/in"}])
    cluster.deploy("api-second", script=ECHO)
    cluster.put("api-first", "in/a.txt", b"abc")
    cluster.ended("api-second")
    assert cluster.read("api-second", "out/echo.bin") == b"abc"
    first, second = cluster.jobs(service="api-first")[0], cluster.jobs(service="api-second")[0]
    assert cluster.job(first["id"])["triggered"] == [second["id"]]


def test_status_counts(cluster: Cluster):
    status = cluster.get("/dioscar/v1/status")
    assert status["services"] >= 1
    assert status["uptime_s"] > 0
    assert set(status["jobs"]) <= {"Pending", "Running", "Retrying", "Succeeded", "Failed", "Dead", "Cancelled"}


def test_prometheus_is_told_of_jobs_and_calls(cluster: Cluster):
    cluster.deploy("api-metrics", script="[ -s $INPUT_FILE_PATH ]", annotations={"dioscar/retries": "0"})
    cluster.put("api-metrics", "in/good", b"x")
    cluster.put("api-metrics", "in/bad", b"")
    cluster.ended("api-metrics", 2)
    cluster.run("api-metrics", b"x")
    text = cluster.http.get(cluster.url("/metrics")).text
    assert 'dioscar_attempts_total{service="api-metrics",state="Succeeded"} 1.0' in text
    assert 'dioscar_attempts_total{service="api-metrics",state="Dead"} 1.0' in text
    assert 'dioscar_calls_total{code="0",service="api-metrics"} 1.0' in text
    assert 'dioscar_run_seconds_count{service="api-metrics"} 2.0' in text
    assert requests.get(cluster.url("/metrics"), timeout=10).status_code == 401
    cluster.http.delete(cluster.url("/system/services/api-metrics"))
    assert 'service="api-metrics"' not in cluster.http.get(cluster.url("/metrics")).text


def test_a_cancelled_job_stops_and_leaves_nothing(cluster: Cluster):
    cluster.deploy("api-cancel", script="sleep 60; touch $TMP_OUTPUT_DIR/x")
    job_id = cluster.invoke("job", "api-cancel", b"").headers["X-Dioscar-Job"]
    eventually(lambda: cluster.job(job_id)["state"] == "Running")
    assert cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job_id}/cancel")).json() == {"cancelled": True}
    assert cluster.job(job_id)["state"] == "Cancelled"
    assert cluster.objects("api-cancel", "out/") == {}
