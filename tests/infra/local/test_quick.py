"""Jobs that end at once: what they print is kept without a file, and everything else is as for the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, eventually, running_cluster

FUNCTION = """
import os, sys, time
from pathlib import Path

def run(source, destination, settings):
    order = source.read_text()
    print("heard", order)
    if order == "much":
        print("x" * 20000)
    if order == "fail":
        raise RuntimeError("it went wrong")
    if order == "die":
        os.abort()
    if order == "wait":
        sys.stdout.flush()
        time.sleep(4)
    (destination / "done").write_text(order)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("quick")
    twin = folder / "mine" / "functions" / "sketch"
    twin.mkdir(parents=True)
    (twin / "talk.py").write_text(FUNCTION)
    with running_cluster(folder / "data") as cluster:
        variables = {"DIOSCAR_FUNCTION": "sketch.talk", "PYTHONPATH": str(folder / "mine")}
        cluster.deploy("talk", variables=variables, annotations={"dioscar/retries": "0"})
        yield cluster


def serve(cluster: Cluster, order: str) -> dict[str, Any]:
    """The job that did what the order says, after one that was quick."""
    for name in ("quick", "quick", order):
        before = len(cluster.jobs(service="talk"))
        cluster.put("talk", f"in/{name}", name.encode())
        job = eventually(lambda before=before: _newest(cluster, before), what=name)
    return job


def _newest(cluster: Cluster, before: int) -> dict[str, Any] | None:
    found = cluster.jobs(service="talk")
    return found[0] if len(found) > before and found[0]["finished"] else None


def log_file(cluster: Cluster, job: dict[str, Any]) -> Path:
    return cluster.data / "logs" / "talk" / f"{job['id']}.log"


def oscar_log(cluster: Cluster, job: dict[str, Any]) -> str:
    return str(cluster.http.get(cluster.url(f"/system/logs/talk/{job['id']}")).text)


def test_a_quick_job_has_its_log_without_a_file(cluster: Cluster):
    def without() -> dict[str, Any] | None:
        job = serve(cluster, "quick")
        return None if log_file(cluster, job).exists() else job  # on a busy machine the one before was not quick

    job = eventually(without, what="a job without a file")
    assert cluster.job_log(job).startswith("heard quick\n")
    assert oscar_log(cluster, job) == cluster.job_log(job)


def test_its_start_is_recorded_with_its_end(cluster: Cluster):
    job = cluster.job(serve(cluster, "quick")["id"])
    assert [step["state"] for step in job["transitions"]] == ["Pending", "Running", "Succeeded"]
    assert [step["attempt"] for step in job["transitions"]] == [0, 1, 1]
    assert job["attempt"] == 1
    assert job["created"] <= job["started"] <= job["finished"]


def test_much_that_it_prints_goes_to_a_file(cluster: Cluster):
    job = serve(cluster, "much")
    assert log_file(cluster, job).stat().st_size > 20000
    assert cluster.job_log(job).count("x" * 20000) == 1


def test_what_a_failed_one_printed_is_in_its_log(cluster: Cluster):
    job = serve(cluster, "fail")
    assert job["state"] == "Dead"
    assert job["attempt"] == 1
    text = cluster.job_log(job)
    assert text.startswith("heard fail\n")
    assert "Traceback" in text
    assert text.endswith("RuntimeError: it went wrong\n")


def test_what_one_printed_that_died_is_in_its_log(cluster: Cluster):
    job = serve(cluster, "die")
    assert job["state"] == "Dead"
    assert "SIGABRT" in job["reason"]


def test_one_that_turns_out_to_be_slow_is_seen_while_it_runs(cluster: Cluster):
    serve(cluster, "quick")
    cluster.put("talk", "in/wait", b"wait")
    (job,) = eventually(lambda: cluster.jobs(service="talk", state="Running"), what="a running job")
    assert eventually(lambda: cluster.job_log(job), what="its log") == "heard wait\n"
    eventually(lambda: cluster.job(job["id"])["state"] == "Succeeded", what="its end")
    assert cluster.job_log(job).startswith("heard wait\n")


def test_a_failed_call_tells_the_cluster_what_it_printed(cluster: Cluster):
    response = cluster.run("talk", b"fail")
    assert response.status_code == 500
    assert response.json() == {"error": {"type": "RuntimeError", "message": "it went wrong"}}
    assert "heard fail" in cluster.log
    assert 'raise RuntimeError("it went wrong")' in cluster.log


def test_a_script_that_was_quick_as_a_call_has_its_log_as_a_job(cluster: Cluster):
    cluster.deploy("script", script="echo heard", annotations={"dioscar/retries": "0"})
    assert cluster.run("script", b"x").status_code == 200
    cluster.put("script", "in/a", b"x")
    (job,) = cluster.ended("script")
    assert job["state"] == "Succeeded"
    assert cluster.job_log(job) == "heard\n"
