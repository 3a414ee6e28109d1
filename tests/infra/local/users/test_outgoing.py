"""Whom the server asks: nobody whom a user has chosen on the cluster's own network, by none of the ways that there are.

A user has a token, S3 keys, and services with their tokens. What a service's own processes may reach is another matter
(`tests/infra/local/isolation`): here it is the server that would be asking.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from minio import Minio
from minio.error import S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from events.notifications import Notification, build
from fdl.model import service_from_json
from infra.local import providers
from infra.local.services import Deployed
from layers.runtime import InputError
from tests.cluster import PATIENCE_S, Cluster, eventually
from tests.infra.local.receiver import receiving
from tests.infra.local.users.conftest import Person, denied
from tests.infra.local.users.issuer import GROUP, TestIssuer
from tests.infra.local.users.test_services import ended

CREATED = ["s3:ObjectCreated:*"]


class Inner:
    """A server inside, which nobody is to reach; it notes who connects and what they say."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self.said.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ninside")
                except OSError:
                    self.said.append(b"")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def inner() -> Iterator[Inner]:
    server = Inner()
    yield server
    server.close()


@pytest.fixture(scope="module")
def cluster(issuer: TestIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Users, and a webhook that is the operator's."""
    with receiving() as receiver:
        running = Cluster(tmp_path_factory.mktemp("outgoing"))
        running.environ = {
            "OIDC_ENABLE": "true",
            "OIDC_ISSUERS": issuer.url,
            "OIDC_GROUPS": GROUP,
            "MINIO_NOTIFY_WEBHOOK_ENABLE_PRIMARY": "on",
            "MINIO_NOTIFY_WEBHOOK_ENDPOINT_PRIMARY": f"http://127.0.0.1:{receiver.port}/hook",
        }
        running.start()
        yield running
        running.stop()
        assert receiver.events == [], "no user has it told of anything"


@pytest.mark.parametrize("kind", ["Queue", "Topic", "LambdaFunction"])
def test_a_bucket_notifies_nobody_whom_its_user_names(alice: Person, inner: Inner, kind: str) -> None:
    if "hers" not in {bucket["bucket_name"] for bucket in alice.get("/system/buckets").json() or []}:
        assert alice.ask("POST", "/system/buckets", json={"bucket_name": "hers"}).status_code == 201
    url = f"http://{inner.address}/"
    arns = [
        url,
        f"arn:minio:sqs:us-east-1:{url}:webhook",
        f"arn:minio:sqs:us-east-1:{inner.address}:webhook",
        "arn:minio:sqs:us-east-1:NOBODY:webhook",
        "arn:minio:sqs:us-east-1:PRIMARY:webhook",
        "arn:minio:sqs::PRIMARY:webhook",
        "arn:minio:sqs:us-east-1::webhook",
        "arn:aws:sns:us-east-1:123456789012:topic",
        "arn:aws:lambda:us-east-1:123456789012:function:f",
    ]
    field = {"Queue": "QueueArn", "Topic": "TopicArn", "LambdaFunction": "LambdaFunctionArn"}[kind]
    for arn in arns:
        wanted = {f"{kind}Configurations": [{field: arn, "Events": CREATED}]}
        refused = denied(
            alice.s3.put_bucket_notification_configuration,
            Bucket="hers",
            NotificationConfiguration=wanted,
            SkipDestinationValidation=True,
        )
        assert refused == "InvalidArgument", arn
    assert set(alice.s3.get_bucket_notification_configuration(Bucket="hers")) == {"ResponseMetadata"}
    alice.s3.put_object(Bucket="hers", Key="a", Body=b"x")
    assert inner.said == []


def test_the_administrator_names_configured_webhooks_only_too(cluster: Cluster, inner: Inner) -> None:
    cluster.deploy("admins", script="true")
    client = Minio(
        cluster.facts["s3"].removeprefix("http://"),
        cluster.facts["minio_access_key"],
        cluster.facts["minio_secret_key"],
        secure=False,
    )
    for arn in (f"http://{inner.address}/", f"arn:minio:sqs::{inner.address}:webhook"):
        config = NotificationConfig(queue_config_list=[QueueConfig(queue=arn, events=CREATED)])
        with pytest.raises(S3Error) as refused:
            client.set_bucket_notification(bucket_name="admins", config=config)
        assert refused.value.code == "InvalidArgument"
        assert refused.value.message == (
            "A specified destination ARN does not exist or is not well-formed. Verify the destination ARN."
        )


def stores(address: str) -> dict[str, Any]:
    """Every kind of store, at an address inside."""
    port = address.rpartition(":")[2]
    keys = {"access_key": "a", "secret_key": "b"}
    return {
        "minio": {
            "far": {"endpoint": f"http://{address}", **keys},
            "named": {"endpoint": f"http://localhost:{port}", **keys},
            "mapped": {"endpoint": f"http://[::ffff:127.0.0.1]:{port}", **keys},
            "number": {"endpoint": f"http://2130706433:{port}", **keys},
            "short": {"endpoint": f"http://127.1:{port}", **keys},
            "zero": {"endpoint": f"http://0:{port}", **keys},
            "user": {"endpoint": f"http://1.1.1.1@{address}", **keys},
        },
        "s3": {"region": {"region": f"x@{address}/#", **keys}, "host": {"region": f"x.{address}", **keys}},
        "webdav": {
            "dcache": {"hostname": address, "login": "a", "password": "b"},
            "user": {"hostname": f"1.1.1.1@{address}", "login": "a", "password": "b"},
            "slash": {"hostname": f"{address}\\@1.1.1.1", "login": "a", "password": "b"},
            "hash": {"hostname": f"{address}#@1.1.1.1", "login": "a", "password": "b"},
        },
        "onedata": {"one": {"oneprovider_host": address, "token": "t", "space": "space"}},
    }


def named(address: str) -> list[str]:
    return [f"{kind}.{name}" for kind, known in stores(address).items() for name in known]


def test_outputs_go_to_no_store_inside(cluster: Cluster, alice: Person, inner: Inner) -> None:
    """Each service names one store that stands inside; its job ends with a sentence, and nobody has been asked."""
    tried = named(inner.address)
    for number, store in enumerate(tried):
        alice.deploy(
            f"sends-{number}",
            output=[{"storage_provider": store, "path": "bucket/out"}],
            storage_providers=stores(inner.address),
        )
        alice.s3.put_object(Bucket=f"sends-{number}", Key="in/a", Body=b"secret")
    for number, store in enumerate(tried):
        (job,) = ended(alice, f"sends-{number}")
        refused = "inside the cluster's own network" in job["reason"] or "is no region of Amazon's" in job["reason"]
        assert (job["state"], refused) == ("Dead", True), (store, job["reason"])
    assert inner.said == []


def test_events_fetch_from_no_store_inside(cluster: Cluster, alice: Person, inner: Inner) -> None:
    """What a user posts to `/job` may look like any event: only the service's own document says where a store is."""
    here = {"webdav.dcache": "in", "onedata.one": "space/in"}
    inputs = [{"storage_provider": "webdav.dcache", "path": here["webdav.dcache"]}]
    alice.deploy("fetches", input=inputs, output=[], storage_providers=stores(inner.address))
    token = alice.get("/system/services/fetches").json()["token"]
    minio = build(Notification("bucket", "in/a", endpoint=f"http://{inner.address}"))
    minio["Records"][0]["source"] = {"host": inner.address, "port": str(inner.port)}
    onedata = {"Key": "space/in/a", "Records": [{"eventSource": "OneTrigger", "eventTime": "2020-01-01T00:00:00Z"}]}
    onedata["Records"][0].update(objectKey="a", objectId="1", folder="in", space_id="space")  # type: ignore[attr-defined]
    aws = json.loads(json.dumps(minio).replace("minio:s3", "aws:s3"))
    events: list[Any] = [
        minio,
        aws,
        {"event": {"mask": ["IN_CREATE"], "name": "a.txt"}, "subscription": f"https://{inner.address}/"},
        {"event": {"mask": ["IN_CREATE"], "name": f"//{inner.address}/a"}, "subscription": f"https://{inner.address}/"},
        *({"storage_provider": store, "event": json.dumps(minio)} for store in named(inner.address)),
        {"storage_provider": f"http://{inner.address}", "event": json.dumps(minio)},
        onedata,
    ]
    accepted = 0
    for event in events:
        for bearer in (token, alice.token()):
            answer = cluster.invoke("job", "fetches", json.dumps(event).encode(), bearer)
            assert answer.status_code in (201, 400), answer.text
            accepted += answer.status_code == 201
            assert cluster.invoke("run", "fetches", json.dumps(event).encode(), bearer).status_code == 400
    assert accepted > len(events)
    assert {job["state"] for job in ended(alice, "fetches", accepted)} == {"Dead"}
    assert inner.said == []


def test_what_a_document_names_is_asked_for_nothing(cluster: Cluster, alice: Person, inner: Inner) -> None:
    url = f"http://{inner.address}/x"
    alice.deploy(
        "names",
        image=url,
        clusters={"other": {"endpoint": url, "auth_user": "a", "auth_password": "b", "ssl_verify": False}},
        kserve={"type": "inference", "storage_uri": url},
        federation={"group_id": "g", "topology": "star", "members": []},
        mount={"storage_provider": "minio.far", "path": "/in"},
        image_prefetch=True,
        environment={"variables": {"HTTP_PROXY": url, "HTTPS_PROXY": url, "AWS_ENDPOINT_URL": url}},
        storage_providers={"minio": {"far": {"endpoint": url, "access_key": "a", "secret_key": "b"}}},
    )
    members = {"members": [{"type": "endpoint", "url": url}], "update": True, "clusters": {}}
    for method in ("POST", "PUT", "GET", "DELETE"):
        assert alice.ask(method, "/system/federation/names", json=members).status_code in (200, 400)
    presigned = alice.ask(
        "POST",
        "/system/buckets/names/presign",
        json={"object_key": "in/a", "operation": "upload", "extra_headers": {"Host": inner.address}},
    )
    assert presigned.status_code in (200, 400)
    assert presigned.status_code == 400 or presigned.json()["url"].startswith(cluster.facts["s3"])
    assert alice.ask("PUT", "/system/config", json={"allowed_image_repositories": [url]}).status_code == 401
    for source in (url, f"//{inner.address}/names/in/a", f"{inner.address}/x"):
        assert denied(alice.s3.copy_object, Bucket="names", Key="b", CopySource=source)
    alice.s3.put_object(Bucket="names", Key="in/a", Body=b"x")
    assert ended(alice, "names")[0]["state"] == "Succeeded"
    assert inner.said == []


def test_a_token_sends_nobody_for_its_keys(cluster: Cluster, issuer: TestIssuer, inner: Inner) -> None:
    url = f"http://{inner.address}/keys"
    for token, said in (
        (issuer.token("eve", iss=f"http://{inner.address}"), 401),
        (issuer.token("eve", headers={"jku": url, "x5u": url}, kid="first"), 200),
    ):
        answer = requests.get(
            cluster.url("/system/services"), headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S
        )
        assert answer.status_code == said
    assert inner.said == []


LEADS_AWAY = """exec python3 - <<'END'
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path.endswith("/well") else 307)
        self.send_header("Location", os.environ["LOCATION"])
        self.send_header("Content-Length", "0")
        self.end_headers()

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
END
"""


def test_an_exposed_service_leads_the_server_nowhere(cluster: Cluster, alice: Person, inner: Inner) -> None:
    """Neither a redirection of its own, to a request, a websocket or a probe, nor what a client writes as address."""
    alice.deploy(
        "leads-away",
        script=LEADS_AWAY,
        input=[],
        output=[],
        environment={"variables": {"LOCATION": f"http://{inner.address}/secret"}},
        expose={"api_port": 8080, "min_scale": 1, "health_path": f"@{inner.address}/well"},
    )
    status = "/system/services/leads-away/deployment"
    eventually(lambda: alice.get(status).json()["state"] == "ready", what=f"ready: {alice.get(status).text}")
    path = "/system/services/leads-away/exposed"
    answer = requests.get(cluster.url(f"{path}/x"), timeout=PATIENCE_S, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"http://{inner.address}/secret")
    with pytest.raises(InvalidStatus) as refused:
        connect(cluster.url(f"{path}/x").replace("http://", "ws://"), open_timeout=PATIENCE_S)
    assert refused.value.response.status_code == 502
    assert b"with a redirection, which is not followed" in (refused.value.response.body or b"")
    host, _, port = cluster.facts["api"].removeprefix("http://").partition(":")
    for target in (f"http://{inner.address}{path}/x", f"{path}//{inner.address}/x", f"{path}/@{inner.address}/x"):
        with socket.create_connection((host, int(port)), PATIENCE_S) as raw:
            raw.sendall(f"GET {target} HTTP/1.1\r\nHost: {inner.address}\r\nConnection: close\r\n\r\n".encode())
            assert raw.recv(65536).split()[1] in (b"307", b"400", b"404")
    assert inner.said == []
    assert alice.ask("DELETE", "/system/services/leads-away").status_code == 204
    assert "Traceback" not in cluster.log


@pytest.mark.parametrize("store", ["minio.far", "webdav.dcache", "onedata.one"])
def test_a_name_that_is_looked_up_twice_leads_to_no_other_address(
    inner: Inner, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name that is public when it is looked at, and inside when it is connected to: it is told nothing."""
    lookups: list[str] = []
    true = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host != "rebinds.example":
            return true(host, port, *more, **options)
        lookups.append(host)
        return true("1.1.1.1" if len(lookups) == 1 else "127.0.0.1", port, *more, **options)

    document = {
        "name": "twice",
        "image": "x",
        "script": "true",
        "input": [{"storage_provider": "webdav.dcache", "path": "in"}],
        "storage_providers": stores(f"rebinds.example:{inner.port}"),
    }
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    service = Deployed(service_from_json(document), "0" * 64, "alice", 1)
    found = Notification("space", "in/a", provider=store)
    with pytest.raises(InputError, match=r"127\.0\.0\.1: is inside the cluster's own network"):
        asyncio.run(providers.fetch(service, found, tmp_path / "a"))
    assert len(lookups) == 2
    assert b"".join(inner.said) == b""
