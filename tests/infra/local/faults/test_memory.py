"""A cluster that gets no more memory: it says so, does not die of it, and goes on when there is some again."""

import base64
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.cluster import eventually
from tests.infra.local.faults.world import COPY, Broken, broken, is_clean

BODY = 20 << 20


@contextmanager
def without_memory(cluster: Broken, left: int) -> Iterator[None]:
    """Only so many bytes more than it has now."""
    assert cluster.process is not None
    pid = cluster.process.pid
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize:"))
    resource.prlimit(pid, resource.RLIMIT_AS, (now + left, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_cluster_without_memory_answers_and_lives(tmp_path: Path):
    with broken(tmp_path / "data", FAULT_SET="infra.local.finishing:CLUSTER_PAUSE_S=0.5") as cluster:
        cluster.deploy("svc", script=COPY)
        token = cluster.token("svc")
        body = base64.b64encode(bytes(BODY))
        acknowledged = {"/svc/in/before": b"b" * 300_000}
        assert cluster.ask("PUT", "/svc/in/before", acknowledged["/svc/in/before"]).status_code == 200
        with without_memory(cluster, 40 << 20):
            for way in ("run", "job"):
                answer = cluster.invoke(way, "svc", body, token)
                assert answer.status_code == 503
                assert answer.text == "the cluster has no memory left for this; try again later"
        with without_memory(cluster, 0):
            for number in range(20):  # now anything may happen to a request, but not to what was acknowledged
                data = os.urandom(1 << 18)
                if cluster.acknowledged("PUT", f"/svc/in/{number}", data):
                    acknowledged[f"/svc/in/{number}"] = data
        assert requests.get(cluster.url("/health"), timeout=30).text == "Ok"
        assert cluster.process is not None and cluster.process.poll() is None
        assert cluster.ask("PUT", "/svc/in/after", b"a" * BODY).status_code == 200
        acknowledged["/svc/in/after"] = b"a" * BODY
        for path, data in acknowledged.items():
            assert cluster.ask("GET", path).content == data
            made = path.replace("/in/", "/out/")
            eventually(lambda made=made, data=data: cluster.ask("GET", made).content == data, what=made)  # type: ignore[misc]
        assert cluster.invoke("run", "svc", body, token).status_code == 200
        assert {job["state"] for job in cluster.jobs(service="svc")} == {"Succeeded"}
        cluster.kill()  # files of uploads for which there was no memory: the next start removes them
        cluster.start()
        is_clean(cluster, [])
