"""Exposed services for tests: the contract's example, behind a real cluster."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster import Cluster, eventually

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Exposed:
    """One exposed service."""

    cluster: Cluster
    name: str

    def url(self, path: str = "/") -> str:
        return self.cluster.url(f"/system/services/{self.name}/exposed{path}")

    def ask(self, path: str, method: str = "GET", **more: Any) -> requests.Response:
        return requests.request(method, self.url(path), timeout=PATIENCE_S, allow_redirects=False, **more)

    def status(self) -> dict[str, Any]:
        return dict(self.cluster.get(f"/system/services/{self.name}/deployment"))

    def reaches(self, state: str) -> dict[str, Any]:
        return eventually(
            lambda: status if (status := self.status())["state"] == state else None, PATIENCE_S, f"{self.name}: {state}"
        )

    def log(self) -> list[str]:
        entries = self.cluster.get(f"/system/services/{self.name}/deployment/logs?tailLines=1000")["entries"]
        return [entry["message"] for entry in entries]

    def act(self, action: str) -> requests.Response:
        return self.cluster.http.post(self.cluster.url(f"/system/services/{self.name}/{action}"))

    def remove(self) -> None:
        self.cluster.http.delete(self.cluster.url(f"/system/services/{self.name}"))


def expose(cluster: Cluster, name: str, *, variables: dict[str, str] | None = None, **more: Any) -> Exposed:
    """Deploy the example (or a `script`), exposed as `more` says."""
    script = {"script": more.pop("script")} if "script" in more else {}
    annotations = more.pop("annotations", {})
    cluster.deploy(
        name,
        variables={"DIOSCAR_FUNCTION": "contract.answer", **(variables or {})} if not script else variables,
        annotations=annotations,
        expose={"api_port": 8080, "min_scale": 1, **more},
        **script,
    )
    return Exposed(cluster, name)


@pytest.fixture(scope="session")
def answer(cluster: Cluster) -> Iterator[Exposed]:
    """The example, ready."""
    service = expose(cluster, "exposed-answer")
    service.reaches("ready")
    yield service
    service.remove()


@pytest.fixture
def no_defect(cluster: Cluster) -> Iterator[None]:
    """The cluster reports no defect of its own during the test; what other tests made it say does not count."""
    began = len(cluster.log)
    yield
    assert "Traceback" not in cluster.log[began:]


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
