"""A cluster that lets in the users of an issuer on loopback, and those users."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from fdl.model import dumps
from tests.cluster import PATIENCE_S, Cluster
from tests.infra.local.users.issuer import GROUP, TestIssuer, running_issuer

COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'


class Person:
    """A user with a token, and with the S3 keys that the cluster gave."""

    def __init__(self, cluster: Cluster, issuer: TestIssuer, uid: str) -> None:
        self.uid = uid
        self._cluster = cluster
        self._issuer = issuer
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {self.token()}"
        self.keys = self.get("/system/config").json()["minio_provider"]
        self.s3 = boto(self.keys["endpoint"], self.keys["access_key"], self.keys["secret_key"])

    def token(self, **claims: Any) -> str:
        return self._issuer.token(self.uid, **claims)

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.http.request(method, self._cluster.url(path), timeout=PATIENCE_S, **more)

    def get(self, path: str) -> requests.Response:
        return self.ask("GET", path)

    def deploy(self, name: str, status: int = 201, *, change: bool = False, **more: Any) -> str:
        """Create (or change) a service with the mailbox `name/in` and the output `name/out`; returns the answer."""
        document = {
            "name": name,
            "image": "ghcr.io/dioscar/test",
            "cpu": "1.0",
            "memory": "1Gi",
            "log_level": "CRITICAL",
            "script": COPY,
            "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
            "output": [{"storage_provider": "minio.default", "path": f"{name}/out"}],
            "annotations": {"dioscar/retries": "0"},
            **more,
        }
        response = self.ask("PUT" if change else "POST", "/system/services", data=dumps(document))
        assert response.status_code == status, response.text
        return response.text

    def services(self) -> list[str]:
        return [service["name"] for service in self.get("/system/services").json()]

    def jobs(self, **where: str) -> list[dict[str, Any]]:
        return list(self.ask("GET", "/dioscar/v1/jobs", params=where).json()["jobs"])

    def close(self) -> None:
        self.http.close()
        self.s3.close()


def boto(endpoint: str, access_key: str, secret_key: str, version: str = "s3v4") -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(signature_version=version, s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )


def denied(call: Any, **arguments: Any) -> str:
    """The code with which S3 refuses a call."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


@pytest.fixture(scope="module")
def issuer() -> Iterator[TestIssuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(issuer: TestIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("users"))
    running.environ = {
        "OIDC_ENABLE": "true",
        "OIDC_ISSUERS": issuer.url,
        "OIDC_GROUPS": GROUP,
        "USERS_ADMIN": "overseer@example.org",
    }
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def alice(cluster: Cluster, issuer: TestIssuer) -> Iterator[Person]:
    person = Person(cluster, issuer, "alice@example.org")
    yield person
    person.close()


@pytest.fixture(scope="module")
def bob(cluster: Cluster, issuer: TestIssuer) -> Iterator[Person]:
    person = Person(cluster, issuer, "bob@example.org")
    yield person
    person.close()
