"""A real embedded cluster in a process of its own, for tests: started, asked, killed and started again."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import requests

from fdl.model import dumps
from layers.objects.client import S3Client

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
FUNCTION_SCRIPT = (ROOT / "fdl" / "function.sh").read_text()
TWIN = ROOT / "tests" / "contract" / "twin"
COMMAND = (sys.executable, "-P", "-m", "infra.local")
PATIENCE_S = 60.0
SANDBOX = "DIOSCAR_SANDBOX"
"""Off unless a test is about it, or the environment says otherwise: tests look into what their scripts leave behind."""


def eventually(look: Callable[[], T | None], patience_s: float = PATIENCE_S, what: str = "it") -> T:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {patience_s} s")


class Cluster:
    """One data folder, and the process that serves it."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.command: Sequence[str] = COMMAND
        self.environ: dict[str, str] = {}

    def start(self) -> None:
        (self.data / "cluster.json").unlink(missing_ok=True)
        self.data.mkdir(parents=True, exist_ok=True)
        environ = {SANDBOX: "off", **os.environ, "PYTHONPATH": str(TWIN), **self.environ}
        with (self.data / "cluster.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--data", str(self.data), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0", *self.options],
                env=environ,
                stdout=log,
                stderr=log,
            )
        self.facts = eventually(self._read_facts, what="the cluster's start")
        self.http = requests.Session()
        self.http.auth = (self.facts["oscar_username"], self.facts["oscar_password"])
        self.s3 = S3Client(self.facts["s3"], self.facts["minio_access_key"], self.facts["minio_secret_key"])

    def kill(self) -> None:
        """As by a power cut: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As `dioscar down`."""
        return self._end(signal.SIGTERM)

    @property
    def log(self) -> str:
        return (self.data / "cluster.log").read_text()

    def url(self, path: str) -> str:
        return str(self.facts["api"]) + path

    def get(self, path: str) -> Any:
        response = self.http.get(self.url(path))
        response.raise_for_status()
        return response.json()

    def deploy(
        self,
        name: str,
        *,
        variables: Mapping[str, str] | None = None,
        script: str = FUNCTION_SCRIPT,
        annotations: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """Create (or replace) a service with the mailbox `name/in` and the output `name/out`."""
        document = {
            "name": name,
            "image": "ghcr.io/dioscar/test",
            "cpu": "1.0",
            "memory": "1Gi",
            "log_level": "CRITICAL",
            "script": script,
            "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
            "output": [{"storage_provider": "minio.default", "path": f"{name}/out"}],
            "environment": {"variables": dict(variables or {})},
            "annotations": dict(annotations or {}),
            **more,
        }
        exists = self.http.get(self.url(f"/system/services/{name}")).status_code == 200
        send = self.http.put if exists else self.http.post
        response = send(self.url("/system/services"), data=dumps(document))
        assert response.status_code in (201, 204), response.text

    def token(self, name: str) -> str:
        return str(self.get(f"/system/services/{name}")["token"])

    def invoke(self, way: str, name: str, body: bytes, token: str | None = None) -> requests.Response:
        """POST to `/run` or `/job` with the service's token."""
        bearer = {"Authorization": f"Bearer {token or self.token(name)}"}
        return requests.post(self.url(f"/{way}/{name}"), data=body, headers=bearer, timeout=PATIENCE_S)

    def run(self, name: str, data: bytes) -> requests.Response:
        return self.invoke("run", name, base64.b64encode(data))

    def put(self, bucket: str, key: str, data: bytes) -> None:
        path = self.data / "put.tmp"
        path.write_bytes(data)
        self.s3.put(bucket, key, path)

    def read(self, bucket: str, key: str) -> bytes:
        path = self.data / "get.tmp"
        self.s3.get(bucket, key, path)
        return path.read_bytes()

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        return {found.key: self.read(bucket, found.key) for found in self.s3.list(bucket, prefix)}

    def jobs(self, **where: str) -> list[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in {"limit": "1000", **where}.items())
        return list(self.get(f"/dioscar/v1/jobs?{query}")["jobs"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.get(f"/dioscar/v1/jobs/{job_id}"))

    def ended(self, service: str, count: int = 1, patience_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """The jobs of a service, once `count` of them have ended."""

        def look() -> list[dict[str, Any]] | None:
            done = [job for job in self.jobs(service=service) if job["state"] in ("Succeeded", "Dead", "Cancelled")]
            return done if len(done) >= count else None

        return eventually(look, patience_s, f"the end of {count} jobs of {service}")

    def job_log(self, job: Mapping[str, Any]) -> str:
        return self.http.get(self.url(f"/dioscar/v1/jobs/{job['id']}/log")).text

    def _read_facts(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with suppress(FileNotFoundError):
            return dict(json.loads((self.data / "cluster.json").read_text()))
        return None

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.s3.close()
        self.http.close()
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running_cluster(data: Path, *options: str) -> Iterator[Cluster]:
    """A cluster for the length of a `with`."""
    cluster = Cluster(data, *options)
    cluster.start()
    try:
        yield cluster
    finally:
        if cluster.process is not None and cluster.process.poll() is None:
            cluster.stop()
