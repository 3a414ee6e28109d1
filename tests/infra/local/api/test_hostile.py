"""Services, bodies and names that mean no good: one clear sentence, nothing written elsewhere, no traceback."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from fdl.model import dumps
from tests.cluster import Cluster, running_cluster
from tests.infra.local.api.test_fuzz import ask, authorization

MIB = 1 << 20
PATHS = ["..", "../../etc/passwd", "a/b", "/etc", "a\0b", "a\n", "a%2fb", "~", "a" * 4000]
INVALID = "The service specification is not valid: "


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("hostile")) as cluster:
        cluster.deploy("victim", script="echo victim")
        yield cluster
        assert "Traceback" not in cluster.log, cluster.log[-3000:]


def create(cluster: Cluster, **document: Any) -> requests.Response:
    body = dumps({"name": "hostile", "image": "x", "script": "true", **document})
    return cluster.http.post(cluster.url("/system/services"), data=body.encode())


def refused(response: requests.Response, *words: str) -> None:
    """400 with one sentence that has these words in it."""
    assert response.status_code == 400
    assert "\n" not in response.text.strip()
    assert len(response.text) < 1000
    for word in words:
        assert word in response.text


@pytest.mark.parametrize("name", PATHS, ids=lambda name: ascii(name)[:20])
def test_a_name_that_is_a_path(hostile: Cluster, name: str):
    before = sorted(hostile.data.iterdir())
    refused(create(hostile, name=name), INVALID, "name: ")
    refused(create(hostile, output=[{"storage_provider": "minio", "path": f"x/{name}/../y"}]), INVALID, "output[0]")
    quoted = quote(name, safe="").replace(".", "%2e")  # else clients resolve it
    for method, path in (
        ("GET", f"/system/services/{quoted}"),
        ("DELETE", f"/system/services/{quoted}"),
        ("GET", f"/system/logs/{quoted}"),
        ("GET", f"/system/logs/victim/{quoted}"),
        ("DELETE", f"/system/logs/{quoted}/{quoted}"),
        ("GET", f"/system/buckets/{quoted}"),
        ("DELETE", f"/system/buckets/{quoted}"),
        ("GET", f"/system/volumes/{quoted}"),
        ("DELETE", f"/system/volumes/{quoted}"),
        ("GET", f"/dioscar/v1/jobs/{quoted}/log"),
    ):
        assert ask(hostile, method, path, b"", authorization(hostile, "basic"))[0] in (400, 404), (method, path)
    for way in ("run", "job"):
        assert ask(hostile, "POST", f"/{way}/{quoted}", b"", f"Bearer {hostile.token('victim')}")[0] in (401, 404)
    assert (
        hostile.http.post(hostile.url("/system/volumes"), data=dumps({"name": f"{name}x", "size": "1Gi"})).status_code
        == 400
    )
    if "/" not in name:  # that is a bucket and a folder in it
        refused(
            hostile.http.post(hostile.url("/system/buckets"), data=dumps({"bucket_name": name})), "is no bucket name"
        )
    assert sorted(hostile.data.iterdir()) == before


def test_a_script_with_crlf_runs(hostile: Cluster):
    hostile.deploy("crlf", script='echo "one"\r\nif true; then\r\n  echo two\r\nfi\r\n')
    assert hostile.get("/system/services/crlf")["script"] == 'echo "one"\nif true; then\n  echo two\nfi\n'
    assert hostile.run("crlf", b"").text == "one\ntwo\n"


def test_a_script_of_ten_megabytes(hostile: Cluster):
    refused(create(hostile, script="#" * (10 * MIB)), INVALID, "script: ", "1 MiB", "image")
    assert create(hostile, name="large", script="echo large\n" + "#" * (MIB - 100)).status_code == 201
    assert hostile.run("large", b"").text == "large\n"


def test_a_body_of_forty_megabytes_that_comes_in_pieces(hostile: Cluster):
    pieces = (b" " * MIB for _ in range(40))
    refused(hostile.http.post(hostile.url("/system/services"), data=pieces), INVALID, "32 MiB")
    pieces = (b" " * MIB for _ in range(2))
    refused(hostile.http.post(hostile.url("/system/volumes"), data=pieces), "1 MiB")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"name":' * 100_000,
        b'{"annotations": ' + b'{"a": ' * 20_000 + b"1" + b"}" * 20_001,
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        b'{"cpu": ' + b"9" * 10_000 + b"}",
        b'{"cpu": "1e999999999", "name": "bomb", "image": "x", "script": "true"}',
        b'{"memory": "' + b"9" * 100_000 + b'", "name": "bomb", "image": "x", "script": "true"}',
        b'{"name": "\\u0000", "image": "x", "script": "true"}',
        b"\xef\xbb\xbf{",
        b"\x00" * 1000,
    ],
    ids=range(10),
)
def test_a_bomb(hostile: Cluster, body: bytes):
    for method, path in (("POST", "/system/services"), ("PUT", "/system/services"), ("POST", "/system/buckets")):
        refused(hostile.http.request(method, hostile.url(path), data=body))


def test_a_service_with_more_mailboxes_than_anybody_has(hostile: Cluster):
    inputs = [{"storage_provider": "minio", "path": f"hostile/{number}"} for number in range(20_000)]
    refused(create(hostile, input=inputs), INVALID, "256")
    refused(create(hostile, annotations={f"a{number}": "x" * 100 for number in range(20_000)}), INVALID, "1 MiB")
    names = [bucket["bucket_name"] for bucket in json.loads(hostile.http.get(hostile.url("/system/buckets")).text)]
    assert "hostile" not in names


def test_a_request_that_ends_before_its_body_does(hostile: Cluster):
    connection = http.client.HTTPConnection(urlsplit(hostile.url("")).netloc, timeout=60)
    headers = {**hostile.http.post(hostile.url("/system/volumes")).request.headers, "Content-Length": "1000"}
    with closing(connection):
        connection.putrequest("POST", "/system/services")
        for name in ("Authorization", "Content-Length"):
            connection.putheader(name, headers[name])
        connection.endheaders(b'{"name":')
    assert hostile.get("/system/services/victim")["name"] == "victim"


def test_a_volume_of_another_name_and_size(hostile: Cluster):
    for name, size in (("v" * 64, "1Gi"), ("v", "-1Gi"), ("v", "1e99"), ("v", "0"), ("V", "1Gi")):
        body = dumps({"name": name, "size": size})
        refused(hostile.http.post(hostile.url("/system/volumes"), data=body), "volume.")


def test_two_hundred_open_connections(hostile: Cluster):
    """Some say nothing, some half a request, some read no answer: others are answered, and so are these in the end."""
    netloc = urlsplit(hostile.url("")).netloc
    host, _, port = netloc.partition(":")
    begun = f"GET /system/services HTTP/1.1\r\nHost: {netloc}\r\n"
    password = authorization(hostile, "basic")
    with ExitStack() as opened:
        idle = []
        for number in range(200):
            connection = opened.enter_context(closing(socket.create_connection((host, int(port)), 60)))
            if number % 3 == 1:
                connection.sendall(begun.encode())
            elif number % 3 == 2:
                connection.sendall(f"{begun}Authorization: {password}\r\n\r\n".encode())
            idle.append(connection)
        assert hostile.run("victim", b"").text == "victim\n"
        assert hostile.get("/system/services/victim")["name"] == "victim"
        for number, connection in enumerate(idle):
            if number % 3 == 1:
                connection.sendall(f"Authorization: {password}\r\n\r\n".encode())
            if number % 3:
                assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.slow
def test_five_hundred_services(hostile: Cluster):
    for number in range(500):
        assert create(hostile, name=f"many-{number:03}").status_code == 201
    listed = [service["name"] for service in hostile.get("/system/services?include=deployment")]
    assert len([name for name in listed if name.startswith("many-")]) == 500
    assert listed == sorted(listed)
    for number in range(500):
        assert hostile.http.delete(hostile.url(f"/system/services/many-{number:03}")).status_code == 204
