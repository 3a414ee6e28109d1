"""Requests that no client would make: always an answer, never a 500, no traceback in the cluster's log."""

import contextlib
import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdl.model import dumps
from tests.cluster import Cluster, running_cluster

TEXT = st.one_of(
    st.sampled_from(["", "fuzz", "none", "..", "../x", "a/b", "A", "0", "-1", "true", "1Gi", "\0", "é", "x" * 300]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
NAMES = st.one_of(st.sampled_from(["fuzz", "none", "breakdown", "user", "..", "%", "x" * 200]), TEXT)
PATHS = st.sampled_from(
    [
        "/health",
        "/system/info",
        "/system/config",
        "/system/status",
        "/system/services",
        "/system/services/{}",
        "/system/services/{}/deployment",
        "/system/services/{}/deployment/logs",
        "/system/services/{}/auth",
        "/system/services/{}/start",
        "/system/services/{}/exposed/{}",
        "/system/buckets",
        "/system/buckets/{}",
        "/system/buckets/{}/presign",
        "/system/volumes",
        "/system/volumes/{}",
        "/system/quotas/user",
        "/system/quotas/user/{}",
        "/system/metrics",
        "/system/metrics/breakdown",
        "/system/metrics/{}",
        "/system/federation/{}",
        "/system/logs",
        "/system/logs/{}",
        "/system/logs/{}/{}",
        "/run/{}",
        "/job/{}",
        "/metrics",
        "/dioscar/v1/status",
        "/dioscar/v1/jobs",
        "/dioscar/v1/jobs/{}",
        "/dioscar/v1/jobs/{}/log",
        "/dioscar/v1/jobs/{}/replay",
        "/dioscar/v1/replay",
        "/{}",
    ]
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            *("page", "limit", "timestamps", "previous", "all", "include", "start", "end", "group_by", "format"),
            *("metric", "include_users", "tailLines", "namespace", "owner", "follow", "state", "key", "token"),
        ]
    ),
    st.one_of(
        st.sampled_from(
            [
                *("deployment", "true", "1", "service", "user", "country", "csv", "cpu-hours", "Dead", "99999999999"),
                *("2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now", "²", "%ff"),
            ]
        ),
        TEXT,
    ),
    max_size=3,
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
STORES = st.lists(
    st.fixed_dictionaries(
        {"storage_provider": st.sampled_from(["minio", "minio.default", "s3.x", "", "webdav.d"]), "path": TEXT},
        optional={"suffix": VALUES, "prefix": VALUES},
    ),
    max_size=3,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXT,
    "NAME": TEXT,
    "image": TEXT,
    "script": TEXT,
    "size": TEXT,
    "cpu": st.one_of(st.sampled_from(["1", "1e400", "-1", "0.1m"]), VALUES),
    "memory": st.one_of(st.sampled_from(["1Gi", "9E99", "1"]), VALUES),
    "input": st.one_of(STORES, VALUES),
    "output": st.one_of(STORES, VALUES),
    "annotations": VALUES,
    "labels": VALUES,
    "environment": st.one_of(st.fixed_dictionaries({"variables": VALUES, "Variables": VALUES}), VALUES),
    "expose": st.one_of(st.fixed_dictionaries({"api_port": VALUES, "nodePort": VALUES}), VALUES),
    "federation": st.one_of(st.fixed_dictionaries({"members": VALUES, "topology": TEXT}), VALUES),
    "kserve": VALUES,
    "volume": st.one_of(st.fixed_dictionaries({"mount_path": TEXT, "name": TEXT, "size": TEXT}), VALUES),
    "visibility": TEXT,
    "allowed_users": VALUES,
    "storage_providers": VALUES,
    "clusters": VALUES,
    "bucket_name": TEXT,
    "object_key": TEXT,
    "operation": st.sampled_from(["upload", "download", "UPLOAD", "x", ""]),
    "expires_in": VALUES,
    "expires": VALUES,
    "content_type": TEXT,
    "extra_headers": st.one_of(st.dictionaries(TEXT, TEXT, max_size=2), VALUES),
    "volumes": st.one_of(st.fixed_dictionaries({"disk": TEXT, "volumes": TEXT}), VALUES),
    "minio": st.one_of(st.fixed_dictionaries({"buckets": TEXT, "storage_per_bucket": TEXT}), VALUES),
    "members": VALUES,
    "update": VALUES,
    "allowed_image_repositories": VALUES,
    "jobs": VALUES,
    "objects": VALUES,
    "missing": VALUES,
    "Records": VALUES,
}
MINIMAL = {"name": "fuzz", "image": "x", "script": "true", "bucket_name": "fuzz", "object_key": "a", "size": "1Gi"}
BODIES = st.one_of(
    st.fixed_dictionaries({}, optional=FIELDS).map(lambda more: dumps({**MINIMAL, **more}).encode("utf-8", "replace")),
    st.fixed_dictionaries({}, optional=FIELDS).map(lambda more: dumps(more).encode("utf-8", "replace")),
    VALUES.map(lambda value: dumps(value).encode("utf-8", "replace")),
    st.sampled_from(
        [b"", b"{", b'{"name": "\\ud800"}', b"[" * 5000, b'{"a":' * 5000, b"NaN", b"1e999", b"\xff\xfe", b"9" * 5000]
    ),
    st.binary(max_size=40),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("fuzzed")) as cluster:
        cluster.deploy("fuzz", script="true")
        yield cluster
        assert "Traceback" not in cluster.log, cluster.log[-3000:]


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"]),
    PATHS,
    NAMES,
    PARAMETERS,
    BODIES,
    st.sampled_from(["basic", "basic", "basic", "token", "none", "bearer"]),
)
def test_whatever_is_asked_is_answered(
    fuzzed: Cluster, method: str, path: str, name: str, parameters: dict[str, str], body: bytes, who: str
):
    target = f"{path.format(*[quote(name, safe='')] * path.count('{}'))}?{urlencode(parameters)}"
    status, text = ask(fuzzed, method, target, body, authorization(fuzzed, who))
    if status == 500 and path == "/system/services":
        assert text.startswith("Error creating the service: image "), "OSCAR's own answer where images are limited"
    elif status >= 500:
        assert status in (502, 503) and text, (status, text)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["/system/services", "/run/fuzz", "/system/services/fuzz/auth"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
)
def test_no_authorization_is_ever_an_internal_error(fuzzed: Cluster, path: str, text: str):
    for scheme in ("Basic ", "Bearer ", ""):
        status, _ = ask(fuzzed, "POST" if path.startswith("/run") else "GET", path, b"", f"{scheme}{text}")
        assert status in (400, 401)


def authorization(cluster: Cluster, who: str) -> str:
    if who == "basic":
        return str(requests.Request("GET", "http://x", auth=cluster.http.auth).prepare().headers["Authorization"])
    if who == "token":
        return f"Bearer {'0' * 64}"
    return "Bearer x.y.z" if who == "bearer" else ""


def ask(cluster: Cluster, method: str, target: str, body: bytes, authorization: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(cluster.url("")).netloc, timeout=60)
    headers = {"Authorization": authorization.encode("latin-1")} if authorization else {}
    with contextlib.closing(connection):
        connection.request(method, target, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
