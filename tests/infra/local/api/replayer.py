"""What oscar-cli sends, replayed from the sources of 1.12 and 2: Go's HTTP client, and aws-sdk-go of version 1 for S3.

Version 1 writes `nodePort` as a number and `Variables`, version 2 a list and `variables`; both send the bodies of `run`
and `job` in chunks, base64 and without a content type, and list objects by the first version of ListObjects.
"""

import base64
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from fdl.model import dumps
from tests.cluster import Cluster

MIB = 1 << 20
EXPOSE = {
    1: {"min_scale": 0, "max_scale": 0, "api_port": 0, "cpu_threshold": 0, "nodePort": 0},
    2: {"min_scale": 0, "max_scale": 0, "api_port": [], "cpu_threshold": 0, "nodePort": []},
}
VARIABLES = {1: "Variables", 2: "variables"}


@dataclass(frozen=True)
class Answer:
    """A status and a body."""

    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Cli:
    """One oscar-cli of a major version, with the administrator's password."""

    def __init__(self, cluster: Cluster, version: int) -> None:
        self._facts = cluster.facts
        self.version = version
        encoded = base64.b64encode(f"{self._facts['oscar_username']}:{self._facts['oscar_password']}".encode())
        self._basic = f"Basic {encoded.decode()}"

    def apply(self, name: str, script: str, variables: dict[str, str] | None = None) -> int:
        """GET config, GET the service, then POST or PUT; the status of the last."""
        assert self.send("GET", "/system/config").status == 200
        exists = self.send("GET", f"/system/services/{name}").status == 200
        document = {
            "cluster_id": "dioscar",
            "name": name,
            "image": "ghcr.io/dioscar/test",
            "memory": "256Mi",
            "cpu": "0.2",
            "log_level": "CRITICAL",
            "script": script,
            "expose": EXPOSE[self.version],
            "environment": {VARIABLES[self.version]: variables or {}},
            "input": [{"storage_provider": "minio.default", "path": f"{name}/in"}],
            "output": [{"storage_provider": "minio.default", "path": f"{name}/out"}],
            "clusters": {
                "dioscar": {
                    "endpoint": self._facts["api"],
                    "auth_user": self._facts["oscar_username"],
                    "auth_password": self._facts["oscar_password"],
                    "ssl_verify": False,
                }
            },
            "storage_providers": {},
        }
        return self.send("PUT" if exists else "POST", "/system/services", dumps(document).encode()).status

    def invoke(self, way: str, name: str, data: bytes) -> Answer:
        """`service run` or `service job`: the token from the service, the body in base64, in chunks."""
        token = self.send("GET", f"/system/services/{name}").json()["token"]
        encoded = base64.b64encode(data)
        pieces = (encoded[start : start + 1000] for start in range(0, len(encoded), 1000))
        return self.send("POST", f"/{way}/{name}", pieces, authorization=f"Bearer {token}")

    def logs(self, name: str) -> dict[str, Any]:
        """`service logs list`: page after page, until there is none."""
        found: dict[str, Any] = {}
        page = ""
        while True:
            answer = self.send("GET", f"/system/logs/{name}?page={quote(page)}").json()
            found |= answer["jobs"]
            page = answer.get("next_page", "")
            if not page:
                return found

    def put_file(self, name: str, key: str, data: bytes) -> None:
        """`service put-file`: in parts of 5 MiB where it is larger."""
        import io

        with closing(self._s3(name)) as s3:
            s3.upload_fileobj(io.BytesIO(data), name, key, Config=TransferConfig(5 * MIB, multipart_chunksize=5 * MIB))

    def get_file(self, name: str, key: str) -> bytes:
        """`service get-file`: HEAD, then ranges."""
        import io

        target = io.BytesIO()
        with closing(self._s3(name)) as s3:
            s3.download_fileobj(name, key, target)
        return target.getvalue()

    def list_files(self, name: str, prefix: str) -> list[str]:
        """`service list-files`: ListObjects, the first version."""
        with closing(self._s3(name)) as s3:
            return [entry["Key"] for entry in s3.list_objects(Bucket=name, Prefix=prefix).get("Contents", [])]

    def delete_file(self, name: str, key: str) -> None:
        """`service delete-file`."""
        with closing(self._s3(name)) as s3:
            s3.delete_object(Bucket=name, Key=key)

    def send(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, authorization: str = ""
    ) -> Answer:
        """One request as Go's client makes it."""
        connection = http.client.HTTPConnection(urlsplit(self._facts["api"]).netloc, timeout=60)
        headers = {
            "User-Agent": "Go-http-client/1.1",
            "Accept-Encoding": "gzip",
            "Authorization": authorization or self._basic,
        }
        with closing(connection):
            connection.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes | None))
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())

    def _s3(self, name: str) -> Any:
        """The service says which provider, the configuration where it is and with which keys."""
        service = self.send("GET", f"/system/services/{name}").json()
        assert service["storage_providers"]["minio"]["default"]["secret_key"] == "hidden"
        provider = self.send("GET", "/system/config").json()["minio_provider"]
        assert {name: type(value) for name, value in provider.items()} == {
            "endpoint": str,
            "verify": bool,
            "access_key": str,
            "secret_key": str,
            "region": str,
        }
        return boto3.client(
            "s3",
            endpoint_url=provider["endpoint"],
            verify=provider["verify"],
            aws_access_key_id=provider["access_key"],
            aws_secret_access_key=provider["secret_key"],
            region_name=provider["region"],
            config=Config(s3={"addressing_style": "path"}),
        )
