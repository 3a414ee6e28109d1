"""Users with the programs that they have: oscar-python and our own command line, each with a token."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from oscar_python.client import Client

from fdl.model import dumps
from tests.cluster import PATIENCE_S, Cluster, eventually
from tests.infra.local.users.conftest import COPY, Person
from tests.infra.local.users.issuer import TestIssuer


def test_oscar_python_with_a_token(cluster: Cluster, alice: Person, bob: Person, tmp_path: Path) -> None:
    client = Client({"cluster_id": "here", "endpoint": cluster.facts["api"], "oidc_token": alice.token(), "ssl": False})
    (tmp_path / "script.sh").write_text(COPY)
    service = {
        "name": "alice-python",
        "image": "ghcr.io/dioscar/test",
        "cpu": "1.0",
        "memory": "256Mi",
        "log_level": "CRITICAL",
        "script": str(tmp_path / "script.sh"),
        "input": [{"storage_provider": "minio.default", "path": "alice-python/in"}],
        "output": [{"storage_provider": "minio.default", "path": "alice-python/out"}],
    }
    (tmp_path / "fdl.yaml").write_text(dumps({"functions": {"oscar": [{"here": service}]}}))
    client.create_service(str(tmp_path / "fdl.yaml"))
    assert "alice-python" in [one["name"] for one in client.list_services().json()]
    (tmp_path / "data.txt").write_text("by oscar-python")
    storage = client.create_storage_client("alice-python")
    storage.upload_file("minio.default", str(tmp_path / "data.txt"), "alice-python/in")
    eventually(lambda: storage.list_files_from_path("minio.default", "alice-python/out").get("Contents"))
    (tmp_path / "got").mkdir()
    storage.download_file("minio.default", str(tmp_path / "got"), "alice-python/out/data.txt")
    assert (tmp_path / "got" / "data.txt").read_text() == "by oscar-python"
    (job,) = client.list_jobs("alice-python").json()["jobs"]
    assert client.get_job_logs("alice-python", job).status_code == 200
    other = Client({"cluster_id": "here", "endpoint": cluster.facts["api"], "oidc_token": bob.token(), "ssl": False})
    assert "alice-python" not in [one["name"] for one in other.list_services().json()]
    with pytest.raises(Exception, match="403"):
        other.get_service("alice-python")
    client.remove_service("alice-python")


def test_our_command_line_with_a_token(
    cluster: Cluster, issuer: TestIssuer, alice: Person, bob: Person, tmp_path: Path
) -> None:
    def dioscar(person: Person, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OSCAR_", "MINIO_"))}
        environ = {**kept, "OSCAR_ENDPOINT": cluster.facts["api"], "OSCAR_OIDC_TOKEN": person.token()}
        command = [sys.executable, "-P", "-m", "infra.cli", *arguments]
        return subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    alice.deploy("alice-cli")
    (tmp_path / "a.txt").write_text("by hand")
    done = dioscar(alice, "put", "a.txt", "alice-cli/in")
    assert done.returncode == 0, done.stderr
    eventually(lambda: [job for job in alice.jobs(service="alice-cli") if job["state"] == "Succeeded"])
    done = dioscar(alice, "get", "alice-cli/out/a.txt", "--to", "got")
    assert done.returncode == 0, done.stderr
    assert "alice-cli" in dioscar(alice, "jobs").stdout
    refused = dioscar(bob, "put", "a.txt", "alice-cli/in")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "alice-cli" not in dioscar(bob, "jobs").stdout
