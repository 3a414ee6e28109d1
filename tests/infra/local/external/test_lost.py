"""What no webhook told, or told a cluster that was not there: the listing finds it, and finds it once."""

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests
from minio.credentials import StaticProvider
from minio.minioadmin import MinioAdmin

from tests.cluster import COMMAND, Cluster, eventually
from tests.infra.local.external.gateway import KEYS
from tests.infra.local.external.linked import ARN, TOKEN, Linked, linked
from tests.infra.local.s3.helpers import ACCESS, SECRET

COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'
OFTEN_S = 0.3


def listed_again(world: Linked, times: int = 2) -> None:
    """Wait for listings that begin after this."""
    for _ in range(times):
        before = world.health()["listed"]
        eventually(lambda before=before: world.health()["listed"] != before, what="another listing")  # type: ignore[misc]


def test_without_a_webhook_the_listing_finds_everything_once(tmp_path: Path):
    with linked(tmp_path, period_s=OFTEN_S, webhook=False) as world:
        world.s3.create_bucket(Bucket="early")
        world.put("early/in/before-the-service")
        world.cluster.deploy("early", script=COPY)
        world.cluster.deploy("unheard", script=COPY, annotations={"dioscar/concurrency": "1"})
        for index in range(20):
            world.put(f"unheard/in/{index:02d}", str(index).encode())
        world.put("unheard/in/again", b"first")
        world.cluster.ended("unheard", 21)
        world.put("unheard/in/again", b"second")
        world.s3.delete_object(Bucket="unheard", Key="in/00")
        world.cluster.ended("unheard", 22)
        world.cluster.ended("early")
        listed_again(world)
        assert len(world.cluster.jobs(service="unheard")) == 22
        assert world.read("unheard/out/again") == b"second"
        assert {job["state"] for job in world.cluster.jobs()} == {"Succeeded"}
        assert (world.health()["notified"], world.health()["found"]) == (False, 23)
        assert f"its objects are found by a listing every {OFTEN_S} s" in world.cluster.log
        assert world.cluster.log.count("found by a listing every") == len({"early", "unheard"})
        world.put("unheard/in/00", b"0")  # what was deleted and comes back is new, whatever it was before
        world.cluster.ended("unheard", 23)


def test_what_was_overwritten_unheard_is_read_as_it_is_now(tmp_path: Path):
    go = tmp_path / "go"
    with linked(tmp_path, webhook=False) as world:
        script = f"while [ ! -e {go} ]; do sleep 0.05; done; {COPY}"
        world.cluster.deploy("unread", script=script, annotations={"dioscar/concurrency": "1", "dioscar/retries": "0"})
        world.set_up()
        # the first three are staged while the first one runs; the last one's contents are asked for afterwards
        for name in ("1", "2", "3", "4"):
            world.put(f"unread/in/{name}", b"old")
            world.list_now()  # or the listing that a deployment brings
        assert len(world.cluster.jobs(service="unread")) == 4
        eventually(lambda: world.cluster.jobs(service="unread", state="Running"))
        world.put("unread/in/4", b"new!")
        go.touch()
        world.cluster.ended("unread", 5)
        newer, older = world.cluster.jobs(service="unread", key="in/4")
        assert (older["state"], newer["state"]) == ("Cancelled", "Succeeded")
        assert "overwritten meanwhile" in older["reason"]
        assert world.list_now() == 0
        assert world.read("unread/out/4") == b"new!"


def test_uploads_while_the_cluster_is_down_or_dying_are_run_once(tmp_path: Path):
    with linked(tmp_path, period_s=OFTEN_S, start=False) as world:
        world.gateway.start(world.hook, TOKEN, queue=True)  # events may come late, after the listing
        cluster = world.cluster
        cluster.start()
        cluster.deploy("ext-last", script=COPY)
        variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> ext-last/in"}
        cluster.deploy("ext-killed", variables=variables)
        world.set_up()
        cluster.stop()
        for index in range(5):
            world.put(f"ext-killed/in/down-{index}")
        cluster.start()
        uploads = 40
        done = threading.Event()

        def upload() -> None:
            for index in range(uploads):
                world.put(f"ext-killed/in/{index:02d}", str(index).encode())
                time.sleep(0.03)
            done.set()

        uploader = threading.Thread(target=upload)
        uploader.start()
        kills = 0
        while not done.wait(0.4) or not kills:
            cluster.kill()
            kills += 1
            cluster.start()
        uploader.join()
        names = {f"in/{index:02d}" for index in range(uploads)} | {f"in/down-{index}" for index in range(5)}

        def all_done() -> bool:
            jobs = cluster.jobs(service="ext-killed")
            return {job["key"] for job in jobs if job["state"] == "Succeeded"} == names

        eventually(all_done, what="every upload's job")
        eventually(lambda: not world.gateway.queued(), what="the delivery of every event")
        listed_again(world)
        first = cluster.jobs(service="ext-killed")
        assert sorted(job["key"] for job in first) == sorted(names)  # one job each, whatever was killed
        eventually(
            lambda: (
                {job["key"] for job in cluster.jobs(service="ext-last", state="Succeeded")}
                == {f"{name}.copy" for name in names}
            ),
            what="every forward's job",
        )
        eventually(lambda: all(job["finished"] for job in cluster.jobs()), what="the end of all jobs")
        assert {job["state"] for job in cluster.jobs()} <= {"Succeeded", "Cancelled"}
        for index in range(uploads):
            assert world.read(f"ext-last/out/{index:02d}.copy") == str(index).encode()


def test_a_store_that_is_away_at_the_start_is_waited_for(tmp_path: Path):
    with linked(tmp_path, period_s=OFTEN_S, start=False) as world:
        gateway, cluster = world.gateway, world.cluster
        cluster.start()
        assert gateway.url in eventually(lambda: world.health()["trouble"])
        refused = cluster.http.post(cluster.url("/system/services"), data=document("patient"))
        assert (refused.status_code, gateway.url in refused.text) == (503, True)
        assert cluster.http.get(cluster.url("/system/services/patient")).status_code == 404
        gateway.start(world.hook, TOKEN)
        eventually(lambda: not world.health()["trouble"], what="the store's return")
        cluster.deploy("patient", script=COPY)
        world.put("patient/in/a", b"kept")
        cluster.ended("patient")
        gateway.stop()
        assert notify(world, "patient", "in/b") == 503
        gateway.start(world.hook, TOKEN)
        world.put("patient/in/b", b"later")
        assert {job["state"] for job in cluster.ended("patient", 2)} == {"Succeeded"}
        assert (world.read("patient/out/a"), world.read("patient/out/b")) == (b"kept", b"later")
        assert "Traceback" not in cluster.log
        assert 1 <= cluster.log.count("its objects wait, and it is asked again") <= 3


@pytest.mark.slow
def test_a_job_whose_outputs_cannot_be_stored_is_repeated_and_not_counted(tmp_path: Path):
    go = tmp_path / "go"
    with linked(tmp_path, period_s=OFTEN_S) as world:
        script = f"while [ ! -e {go} ]; do sleep 0.05; done; {COPY}"
        world.cluster.deploy("patient", script=script, annotations={"dioscar/retries": "0"})
        world.put("patient/in/a", b"kept")
        eventually(lambda: world.cluster.jobs(service="patient", state="Running"))
        world.gateway.stop()
        go.touch()
        (job,) = eventually(lambda: [job for job in world.cluster.jobs(service="patient") if job["reason"]])
        assert (job["state"], job["attempt"]) == ("Pending", 0)
        assert "the cluster could not stage or store it: patient/out/a: no answer from" in job["reason"]
        world.gateway.start(world.hook, TOKEN)
        assert [job["state"] for job in world.cluster.ended("patient")] == ["Succeeded"]
        assert world.read("patient/out/a") == b"kept"


def notify(world: Linked, bucket: str, key: str) -> int:
    """Post an event as the store would; the answer's status."""
    told = {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
    body = {"Records": [{"eventSource": "minio:s3", **told}]}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return requests.post(world.hook, json=body, headers=headers, timeout=60).status_code


def document(name: str) -> str:
    return (
        f'{{"name": "{name}", "image": "x", "script": "true", '
        f'"input": [{{"storage_provider": "minio.default", "path": "{name}/in"}}]}}'
    )


def refused(data: Path, *options: str, **environ: str) -> str:
    """Why a cluster does not start."""
    environ = {"PATH": "/usr/bin:/bin", **environ}
    command = [*COMMAND, "--data", str(data), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0", *options]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_what_the_store_refuses_keeps_nobody_else_waiting(tmp_path: Path):
    """Keys that may no longer list one bucket, make any, or read one object of another bucket."""
    allow = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    unread = {"Effect": "Deny", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::allowed/in/0-secret"]}
    unlisted = {"Effect": "Deny", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::a-forbidden"]}
    unmade = {"Effect": "Deny", "Action": ["s3:CreateBucket"], "Resource": ["arn:aws:s3:::*"]}

    def permit(*statements: object) -> None:
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({"Version": "2012-10-17", "Statement": statements}))
        admin.policy_add("some", str(path))

    with linked(tmp_path, period_s=OFTEN_S, webhook=False, start=False) as world:
        world.gateway.start()
        address = world.gateway.url.removeprefix("http://")
        admin = MinioAdmin(endpoint=address, credentials=StaticProvider(ACCESS, SECRET), secure=False)
        permit(allow)
        admin.user_add("cluster", "the-secret-of-cluster")
        admin.policy_set("some", user="cluster")
        cluster = world.cluster
        cluster.environ |= {"MINIO_ACCESS_KEY": "cluster", "MINIO_SECRET_KEY": "the-secret-of-cluster"}
        cluster.start()
        cluster.deploy("a-forbidden", script=COPY)
        cluster.deploy("allowed", script=COPY)
        permit(allow, unread, unlisted, unmade)
        answer = cluster.http.post(cluster.url("/system/services"), data=document("unmade"))
        assert (answer.status_code, "bucket unmade" in answer.text) == (400, True)
        for name in ("0-secret", "1", "2"):
            world.put(f"allowed/in/{name}")
        assert sorted(job["key"] for job in cluster.ended("allowed", 2)) == ["in/1", "in/2"]
        assert "a-forbidden" in eventually(lambda: world.health()["trouble"])
        eventually(lambda: "it has no job until this is mended" in cluster.log)
        assert "allowed/in/0-secret" in cluster.log
        permit(allow)
        cluster.ended("allowed", 3)
        eventually(lambda: not world.health()["trouble"])
        assert cluster.log.count("it has no job until this is mended") == 1
        admin._http.clear()


def test_keys_that_the_store_does_not_know_are_said_at_the_start(tmp_path: Path):
    with linked(tmp_path, start=False) as world:
        world.gateway.start()
        url = world.gateway.url
        keys = {"MINIO_ACCESS_KEY": "somebody", "MINIO_SECRET_KEY": "something-else"}
        said = refused(tmp_path / "data", "--s3-external", url, **keys)
        assert f"{url} answers InvalidAccessKeyId" in said
        assert "set MINIO_ACCESS_KEY and MINIO_SECRET_KEY to keys that it knows" in said
        # the address may come from the environment as well
        said = refused(tmp_path / "data", DIOSCAR_S3_EXTERNAL=url, **keys)
        assert "InvalidAccessKeyId" in said


def test_a_data_folder_belongs_to_one_kind_of_store(tmp_path: Path, cluster: Cluster):
    with linked(tmp_path, start=False) as world:
        world.gateway.start()
        world.cluster.start()
        world.cluster.stop()
        assert "its objects are in another store" in refused(world.cluster.data)
    own = Cluster(tmp_path / "own")
    own.start()
    own.deploy("own")
    own.put("own", "in/a", b"x")
    own.stop()
    said = refused(own.data, "--s3-external", "http://127.0.0.1:9", **KEYS, DIOSCAR_EVENTS_ARN=ARN)
    assert "has objects of its own; name another data folder" in said
