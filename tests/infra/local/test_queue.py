"""What a queue must not do: forget, loop, starve, or run what was cancelled."""

import base64
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from events.notifications import Notification, build
from tests.cluster import COMMAND, ROOT, Cluster, eventually, running_cluster
from tests.contract.callers import boto

ONCE = {"dioscar/retries": "0"}
COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'


def test_every_retry_is_woken_after_a_restart(tmp_path: Path):
    gate = tmp_path / "gate"
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("woken", script=f"[ -e {gate} ] || exit 1; {COPY}", annotations={"dioscar/retries": "6"})
        for key in ("in/a", "in/b", "in/c"):
            cluster.put("woken", key, b"x")
            time.sleep(0.4)
        eventually(lambda: len(cluster.jobs(service="woken", state="Retrying")) == 3)
        cluster.kill()
        gate.touch()
        cluster.start()
        assert {job["state"] for job in cluster.ended("woken", 3, 30)} == {"Succeeded"}


def test_a_cancelled_job_never_runs(cluster: Cluster, tmp_path: Path):
    cluster.deploy(
        "queue-cancel", script=f'cat "$INPUT_FILE_PATH" >> {tmp_path}/ran', annotations={"dioscar/concurrency": "1"}
    )
    token, ids = cluster.token("queue-cancel"), []
    for index in range(30):
        response = cluster.invoke("job", "queue-cancel", base64.b64encode(f"{index} ".encode()), token)
        ids.append(response.headers["X-Dioscar-Job"])
    answers = {i: cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{i}/cancel")).json()["cancelled"] for i in ids}
    cluster.ended("queue-cancel", 30)
    time.sleep(0.3)
    for job_id, cancelled in answers.items():
        assert (cluster.job(job_id)["state"] == "Cancelled") == cancelled


def test_a_service_made_anew_is_served_by_its_own_worker(cluster: Cluster):
    cluster.deploy("queue-anew", variables={"DIOSCAR_FUNCTION": "contract.train"})
    request = base64.b64encode(b'{"steps": 20, "pause_s": 0.05}')
    token = cluster.token("queue-anew")
    slow = threading.Thread(target=cluster.invoke, args=("run", "queue-anew", request, token))
    slow.start()
    time.sleep(0.5)
    cluster.http.delete(cluster.url("/system/services/queue-anew"))
    cluster.deploy("queue-anew", variables={"DIOSCAR_FUNCTION": "contract.copy"})
    slow.join()
    assert base64.b64decode(cluster.run("queue-anew", b"abc").content) == b"abc"


def test_a_backlog_of_one_service_does_not_starve_another(cluster: Cluster):
    for name in ("queue-long-a", "queue-long-b"):
        cluster.deploy(name, script="sleep 0.5", annotations={"dioscar/concurrency": "1"})
        for index in range(12):
            cluster.put(name, f"in/{index}", b"")
    cluster.deploy("queue-short", script="true")
    began = time.monotonic()
    cluster.put("queue-short", "in/a", b"")
    cluster.ended("queue-short")
    assert time.monotonic() - began < 2.5
    for name in ("queue-long-a", "queue-long-b"):
        cluster.http.delete(cluster.url(f"/system/services/{name}"))


def test_callers_who_leave_do_not_keep_others_waiting(cluster: Cluster):
    cluster.deploy("queue-left", script="sleep 60")
    cluster.deploy("queue-here", script="echo here")
    bearer = {"Authorization": f"Bearer {cluster.token('queue-left')}"}

    def leave() -> None:
        with pytest.raises(requests.Timeout):
            requests.post(cluster.url("/run/queue-left"), headers=bearer, timeout=1)

    threads = [threading.Thread(target=leave) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cluster.run("queue-here", b"").text == "here\n"
    cluster.deploy("queue-left", script="echo back")
    assert cluster.run("queue-left", b"").text == "back\n"


def test_a_job_for_a_service_that_is_gone_is_not_accepted(cluster: Cluster):
    cluster.deploy("queue-gone", script="true")
    token = cluster.token("queue-gone")
    job = cluster.invoke("job", "queue-gone", b"", token).headers["X-Dioscar-Job"]
    cluster.ended("queue-gone")
    cluster.http.delete(cluster.url("/system/services/queue-gone"))
    assert cluster.invoke("job", "queue-gone", b"", token).status_code == 401
    replayed = cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job}/replay"))
    assert replayed.status_code == 409
    assert replayed.json()["error"]["message"] == 'there is no service "queue-gone"; deploy it first'


def test_a_service_whose_bucket_is_gone_can_be_changed_and_removed(cluster: Cluster):
    cluster.deploy("queue-bucket", script="true")
    client = boto(cluster)
    client.delete_bucket(Bucket="queue-bucket")
    client.close()
    cluster.deploy("queue-bucket", script="echo again")
    cluster.put("queue-bucket", "in/a", b"x")
    cluster.ended("queue-bucket")
    client = boto(cluster)
    for found in list(cluster.s3.list("queue-bucket")):
        cluster.s3.delete("queue-bucket", found.key)
    client.delete_bucket(Bucket="queue-bucket")
    client.close()
    assert cluster.http.delete(cluster.url("/system/services/queue-bucket")).status_code == 204


def test_two_jobs_on_one_request_keep_checkpoints_apart(cluster: Cluster):
    cluster.deploy(
        "queue-twins", variables={"DIOSCAR_FUNCTION": "contract.train"}, annotations={"dioscar/retries": "0"}
    )
    request = base64.b64encode(b'{"steps": 20, "pause_s": 0.05}')
    token = cluster.token("queue-twins")
    for _ in range(2):
        cluster.invoke("job", "queue-twins", request, token)
        time.sleep(0.3)
    assert {job["state"] for job in cluster.ended("queue-twins", 2)} == {"Succeeded"}
    model = next(data for key, data in cluster.objects("queue-twins", "out/payload").items() if key.endswith(".model"))
    assert json.loads(model)["starts"] == 1
    kept = cluster.data / "checkpoints"
    eventually(lambda: not list(kept.glob("queue-twins/*")), what="the end of what was kept")


def test_what_ran_is_not_missing_though_its_log_is_deleted(cluster: Cluster):
    cluster.deploy("queue-memory", script="true")
    cluster.put("queue-memory", "in/a", b"x")
    cluster.ended("queue-memory")
    assert cluster.http.delete(cluster.url("/system/logs/queue-memory?all=true")).status_code == 204
    asked = {"objects": {"bucket": "queue-memory", "prefix": "in/", "missing": True}}
    assert cluster.http.post(cluster.url("/dioscar/v1/replay"), json=asked).json() == {"replayed": 0}


def test_a_notification_of_several_objects_is_a_job_for_each(cluster: Cluster):
    cluster.deploy("queue-records", script=COPY)
    for key in ("other/1", "other/2"):
        cluster.put("queue-records", key, key.encode())
    records = [build(Notification("queue-records", key))["Records"][0] for key in ("other/1", "other/2")]
    cluster.invoke("job", "queue-records", json.dumps({"Records": records}).encode())
    cluster.ended("queue-records", 2)
    assert cluster.objects("queue-records", "out/") == {"out/1": b"other/1", "out/2": b"other/2"}


def test_a_notification_is_no_business_of_run(cluster: Cluster):
    cluster.deploy("queue-run", script="true")
    body = json.dumps(build(Notification("queue-run", "in/a"))).encode()
    response = cluster.invoke("run", "queue-run", body)
    assert response.status_code == 400
    assert "POST it to /job/queue-run" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["s3"]["object"].update(key="\ud800"),
        lambda record: record["s3"]["object"].update(size="abc"),
        lambda record: record.update(requestParameters="x"),
        lambda record: record["s3"]["object"].update(userMetadata=["x"]),
    ],
)
def test_a_broken_notification_is_refused_in_a_sentence(cluster: Cluster, change: Callable[[dict[str, Any]], None]):
    cluster.deploy("queue-broken", script="true")
    document = build(Notification("queue-broken", "in/a"))
    change(document["Records"][0])
    response = cluster.invoke("job", "queue-broken", json.dumps(document).encode())
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("event: Records[0].")
    assert cluster.jobs(service="queue-broken") == []


@pytest.mark.parametrize("variable", ["DIOSCAR_OUTCOME", "DIOSCAR_PROGRESS"])
def test_a_script_that_scribbles_in_our_files_ends_once(cluster: Cluster, tmp_path: Path, variable: str):
    count = tmp_path / "count"
    script = f'printf x >> {count}; echo 5 > "${variable}"; sleep 0.3'
    cluster.deploy("queue-scribble", script=script, annotations=ONCE)
    cluster.put("queue-scribble", f"in/{variable}", b"")
    eventually(count.exists)
    assert cluster.http.get(cluster.url("/dioscar/v1/jobs")).status_code == 200
    eventually(lambda: all(job["state"] == "Succeeded" for job in cluster.jobs(service="queue-scribble")))
    assert count.read_text() == "x"


def test_a_function_that_exits_is_a_failure(cluster: Cluster, tmp_path: Path):
    variables = {"DIOSCAR_FUNCTION": "contract.fail"}
    cluster.deploy("queue-exit", variables=variables, annotations=ONCE)
    cluster.put("queue-exit", "in/a", b"exit")
    job = cluster.ended("queue-exit")[0]
    assert (job["state"], job["outputs"]) == ("Dead", [])
    assert job["reason"] == "SystemExit: the function left its process; return, or raise InputError"


def test_a_start_that_is_refused_changes_no_credentials(cluster: Cluster):
    before = (cluster.data / "credentials.json").read_text()
    command = [*COMMAND, "--data", str(cluster.data), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0"]
    environ = {**os.environ, "OSCAR_PASSWORD": "other"}
    assert subprocess.run(command, env=environ, capture_output=True, check=False, timeout=30).returncode == 1
    assert (cluster.data / "credentials.json").read_text() == before


@pytest.mark.parametrize("data", ["/proc/nowhere", "README.md"])
def test_a_data_folder_that_cannot_be_is_one_sentence(data: str):
    ended = subprocess.run(
        [*COMMAND, "--data", data], capture_output=True, text=True, check=False, timeout=30, cwd=ROOT
    )
    assert ended.returncode == 1
    assert "cannot be the data folder" in ended.stderr
    assert "Traceback" not in ended.stderr
