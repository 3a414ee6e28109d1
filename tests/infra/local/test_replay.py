"""Replays: the dead come back, what never ran runs, and nothing runs that was not asked for."""

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster import Cluster, eventually


def replay(cluster: Cluster, body: dict[str, Any]) -> requests.Response:
    return cluster.http.post(cluster.url("/dioscar/v1/replay"), json=body)


def replay_job(cluster: Cluster, job_id: str) -> requests.Response:
    return cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job_id}/replay"))


def breakable(cluster: Cluster, name: str, mended: Path) -> None:
    """A service that fails until the file `mended` is there."""
    script = f'[ -e {mended} ] || {{ echo broken; exit 1; }}; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'
    cluster.deploy(name, script=script, annotations={"dioscar/retries": "0"})


def test_a_dead_job_runs_again_on_the_version_of_its_event(cluster: Cluster, tmp_path: Path):
    breakable(cluster, "replay-dead", tmp_path / "ok")
    cluster.put("replay-dead", "in/a", b"first")
    dead = cluster.ended("replay-dead")[0]
    assert dead["state"] == "Dead"
    cluster.put("replay-dead", "elsewhere/in", b"")
    (tmp_path / "ok").touch()
    assert replay_job(cluster, dead["id"]).json() == {"replayed": 1}
    eventually(lambda: cluster.job(dead["id"])["state"] == "Succeeded")
    assert cluster.objects("replay-dead", "out/") == {"out/a": b"first"}
    states = [t["state"] for t in cluster.job(dead["id"])["transitions"]]
    assert states == ["Pending", "Running", "Failed", "Dead", "Pending", "Running", "Succeeded"]


def test_the_dead_of_a_service_come_back_together(cluster: Cluster, tmp_path: Path):
    breakable(cluster, "replay-many", tmp_path / "ok")
    for index in range(5):
        cluster.put("replay-many", f"in/{index}", b"x")
    cluster.ended("replay-many", 5)
    (tmp_path / "ok").touch()
    assert replay(cluster, {"jobs": {"service": "replay-many"}}).json() == {"replayed": 5}
    eventually(lambda: len(cluster.jobs(service="replay-many", state="Succeeded")) == 5)
    assert replay(cluster, {"jobs": {"service": "replay-many"}}).json() == {"replayed": 0}


def test_a_span_of_time_chooses_the_jobs(cluster: Cluster, tmp_path: Path):
    breakable(cluster, "replay-span", tmp_path / "ok")
    cluster.put("replay-span", "in/early", b"x")
    cluster.ended("replay-span")
    between = time.time()
    cluster.put("replay-span", "in/late", b"x")
    cluster.ended("replay-span", 2)
    (tmp_path / "ok").touch()
    assert replay(cluster, {"jobs": {"service": "replay-span", "since": between}}).json() == {"replayed": 1}
    eventually(lambda: cluster.objects("replay-span", "out/") == {"out/late": b"x"})


def test_objects_below_a_prefix_run_again(cluster: Cluster):
    cluster.deploy("replay-prefix", script="true")
    for key in ("in/x/1", "in/x/2", "in/y/1"):
        cluster.put("replay-prefix", key, b"x")
    cluster.ended("replay-prefix", 3)
    assert replay(cluster, {"objects": {"bucket": "replay-prefix", "prefix": "in/x/"}}).json() == {"replayed": 2}
    cluster.ended("replay-prefix", 5)


def test_objects_are_named_for_one_service_of_several(cluster: Cluster):
    cluster.deploy("replay-one", script="true")
    mailbox = [{"storage_provider": "minio.default", "path": "replay-one/in"}]
    cluster.deploy("replay-other", script="true", input=mailbox, output=[])
    for key in ("in/a", "in/a.b", "in/c"):
        cluster.put("replay-one", key, b"x")
    cluster.ended("replay-one", 3)
    cluster.ended("replay-other", 3)
    (newest,) = cluster.jobs(service="replay-other", key="in/a")
    keys = {"in/a": newest["id"], "in/c": "", "in/a.b": "replay-other-of-before", "in/nothing": "", "in/": ""}
    wanted = {"objects": {"bucket": "replay-one", "newest": keys, "service": "replay-other"}}
    assert replay(cluster, wanted).json() == {"replayed": 1}
    cluster.ended("replay-other", 4)
    assert replay(cluster, wanted).json() == {"replayed": 0}, "in/a has a newer job by now"
    assert len(cluster.jobs(service="replay-one")) == 3
    assert len(cluster.jobs(service="replay-other", key="in/a")) == 2


def test_uploads_from_before_the_service_are_found_and_run_once(cluster: Cluster):
    cluster.deploy("replay-early", script="true")
    assert cluster.http.delete(cluster.url("/system/services/replay-early")).status_code == 204
    cluster.deploy(
        "replay-maker", script="true", output=[{"storage_provider": "minio.default", "path": "replay-early/in"}]
    )
    cluster.put("replay-early", "in/a", b"x")
    cluster.put("replay-early", "in/b", b"x")
    cluster.deploy("replay-early", script="true")
    assert cluster.jobs(service="replay-early") == []
    asked = {"objects": {"bucket": "replay-early", "prefix": "in/", "missing": True}}
    assert replay(cluster, asked).json() == {"replayed": 2}
    cluster.ended("replay-early", 2)
    assert replay(cluster, asked).json() == {"replayed": 0}
    assert replay(cluster, {"missing": {}}).status_code == 200


def test_a_job_that_runs_is_not_replayed(cluster: Cluster):
    cluster.deploy("replay-running", script="sleep 30")
    job_id = cluster.invoke("job", "replay-running", b"").headers["X-Dioscar-Job"]
    response = replay_job(cluster, job_id)
    assert response.status_code == 409
    assert "has not ended; cancel it first" in response.json()["error"]["message"]
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job_id}/cancel"))


@pytest.mark.parametrize(
    "body, status, words",
    [
        ({}, 400, "the body must be"),
        ({"jobs": {"servise": "x"}}, 400, '"servise" is no key here'),
        ({"jobs": {"state": "Running"}}, 400, '"Running" is none that a job ends in'),
        ({"jobs": {"since": "yesterday"}}, 400, '"yesterday" is no time'),
        ({"objects": {}}, 400, "bucket: is missing"),
        ({"objects": {"bucket": "no-such-bucket"}}, 404, 'there is no bucket "no-such-bucket"'),
        ({"jobs": {}, "missing": {}}, 400, "the body must be"),
        ({"jobs": {"service": "no-such"}}, 404, 'there is no service "no-such"'),
        ({"objects": {"bucket": "b", "service": "no-such"}}, 404, 'there is no service "no-such"'),
        ({"objects": {"bucket": "b", "newest": ["in/a"]}}, 400, "newest: is no object of keys"),
        ({"objects": {"bucket": "b", "newest": {}, "prefix": "in/"}}, 400, "write one of them"),
        ({"objects": {"bucket": "b", "newest": {}}}, 400, "newest: is of one service"),
    ],
)
def test_a_wrong_request_is_one_sentence(cluster: Cluster, body: dict[str, Any], status: int, words: str):
    response = replay(cluster, body)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]


def test_an_unknown_job_is_404(cluster: Cluster):
    assert replay_job(cluster, "nothing").status_code == 404
