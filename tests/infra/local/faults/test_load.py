"""SIGKILL under load: eight clients put objects while the cluster dies again and again; all is processed, once."""

import random
import threading
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from layers.objects import sigv4
from tests.cluster import COMMAND, eventually
from tests.infra.local.faults.world import TWIN, Broken, broken, is_clean

CLIENTS = 8


class Clients:
    """Each puts one object after the other, every key once, and notes which were acknowledged."""

    def __init__(self, cluster: Broken) -> None:
        self.cluster = cluster
        self.acknowledged: dict[str, bytes] = {}
        self.unknown: dict[str, bytes] = {}
        self.serving = threading.Event()
        self.done = threading.Event()
        self.serving.set()
        self.threads = [threading.Thread(target=self._put, args=(number,)) for number in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _put(self, client: int) -> None:
        number = 0
        session = requests.Session()
        while not self.done.is_set():
            if not self.serving.wait(1):
                continue
            number += 1
            key = f"in/{client}/{number:05d}"
            data = f"{client} {number} ".encode().ljust(1024, b"x")
            host = str(self.cluster.facts["s3"]).removeprefix("http://")
            headers = sigv4.sign(
                "PUT",
                f"/loaded/{key}",
                "",
                {"host": host},
                payload=sha256(data).hexdigest(),
                credentials=sigv4.Credentials(
                    self.cluster.facts["minio_access_key"], self.cluster.facts["minio_secret_key"]
                ),
                region="us-east-1",
                now=datetime.now(UTC),
            )
            try:
                answer = session.put(f"http://{host}/loaded/{key}", data=data, headers=headers, timeout=30)
            except requests.RequestException:
                self.unknown[key] = data
                session.close()
                continue
            assert answer.status_code == 200, answer.text
            self.acknowledged[key] = data
        session.close()

    def stop(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("kills, enough", [(4, 1500), pytest.param(25, 15_000, marks=pytest.mark.slow)])
def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path, kills: int, enough: int):
    moments = random.Random(20261122)
    with broken(tmp_path / "data") as cluster:
        cluster.command = COMMAND
        variables = {"DIOSCAR_FUNCTION": "faults.count", "PYTHONPATH": str(TWIN)}
        cluster.deploy("loaded", variables=variables)
        clients = Clients(cluster)
        try:
            died = 0
            while died < kills or len(clients.acknowledged) < enough:
                before = len(clients.acknowledged)
                eventually(lambda before=before: len(clients.acknowledged) > before + 50, what="more uploads")  # type: ignore[misc]
                threading.Event().wait(moments.uniform(0.0, 0.5))
                if died < kills:
                    clients.serving.clear()
                    cluster.kill()
                    died += 1
                    cluster.start()
                    clients.serving.set()
        finally:
            clients.stop()
        cluster.idle()
        jobs = cluster.rows("SELECT key, state FROM jobs")
        outputs = cluster.rows("SELECT key, sha256, size FROM objects WHERE key LIKE 'out/%.copy'")
        assert len({key for key, _ in jobs}) == len(jobs), "an upload of which there are two jobs"
        assert {state for _, state in jobs} == {"Succeeded"}
        put = {**clients.unknown, **clients.acknowledged}
        stored = {str(key) for key, _ in jobs}
        assert set(clients.acknowledged) <= stored <= set(put)
        wanted = {(f"out/{key[3:]}.copy", sha256(put[key]).hexdigest(), 1024) for key in stored}
        assert set(outputs) == wanted
        # every version that there ever was: an input, its output and its record, each once
        assert cluster.rows("SELECT seq FROM sqlite_sequence WHERE name = 'objects'") == [(3 * len(stored),)]
        assert died == kills and len(clients.acknowledged) >= enough
        is_clean(cluster, [])
        print(f"{len(clients.acknowledged)} acknowledged, {len(clients.unknown)} unknown, {died} kills")
