"""A cluster whose objects are in MinIO's own code base, which tells it of them by webhook."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, eventually
from tests.infra.local.external.gateway import KEYS, Gateway
from tests.infra.local.s3.helpers import boto
from tests.ports import free_port

TOKEN = "the-token-of-events"
ARN = "arn:minio:sqs::PRIMARY:webhook"
SELDOM_S = 3600.0


@dataclass
class Linked:
    """The store, the cluster, and a client of the store."""

    gateway: Gateway
    cluster: Cluster
    s3: Any

    @property
    def hook(self) -> str:
        """Where the store is to post its events to."""
        return self.cluster.environ["HOOK"]

    def put(self, key: str, body: bytes = b"x", bucket: str = "") -> None:
        bucket, _, rest = key.partition("/")
        self.s3.put_object(Bucket=bucket, Key=rest, Body=body)

    def read(self, key: str) -> bytes:
        bucket, _, rest = key.partition("/")
        with closing(self.s3.get_object(Bucket=bucket, Key=rest)["Body"]) as body:
            return bytes(body.read())

    def health(self) -> dict[str, Any]:
        return dict(self.cluster.get("/dioscar/v1/store"))

    def list_now(self) -> int:
        """Have the mailboxes listed; how many jobs that made."""
        answer = self.cluster.http.post(self.cluster.url("/dioscar/v1/replay"), json={"missing": {}})
        return int(answer.json()["replayed"])

    def set_up(self) -> None:
        """Wait until the store tells the cluster of everything in the mailboxes."""
        eventually(lambda: self.health()["listed"] is not None, what="the first listing")


@contextmanager
def linked(folder: Path, *, period_s: float = SELDOM_S, webhook: bool = True, start: bool = True) -> Iterator[Linked]:
    store_port, api_port = free_port(), free_port()
    gateway = Gateway(folder / "store", store_port)
    cluster = Cluster(folder / "data", "--api", f"127.0.0.1:{api_port}", "--s3-external", gateway.url)
    cluster.environ = {
        **KEYS,
        "DIOSCAR_EVENTS_TOKEN": TOKEN,
        "DIOSCAR_EVENTS_ARN": ARN,
        "DIOSCAR_RECONCILE_SECONDS": str(period_s),
        "HOOK": f"http://127.0.0.1:{api_port}/dioscar/v1/events",
    }
    s3 = boto(gateway.url, s3={"addressing_style": "path"}, signature_version="s3v4")
    world = Linked(gateway, cluster, s3)
    try:
        if start:
            gateway.start(world.hook if webhook else "", TOKEN)
            cluster.start()
        yield world
    finally:
        if cluster.process is not None and cluster.process.poll() is None:
            cluster.stop()
        s3.close()
        gateway.stop()
