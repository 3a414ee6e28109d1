"""Every route of OSCAR's API, as the table has it: codes, empty bodies, plain-text errors, key order, compact JSON."""

import re
from pathlib import Path

import pytest
import requests

from tests.cluster import ROOT, Cluster
from tests.infra.local.api.routes import ROWS, Row, check

ROUTE = re.compile(r"^\| `([A-Z, ]+) (/[^`]*)` \|", re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row(cluster: Cluster, service: str, row: Row):
    headers = {"Content-Type": "text/json"}
    if row.bearer:
        headers["Authorization"] = f"Bearer {row.bearer.format(token=service)}"
    auth = None if row.bearer or row.anonymous else cluster.http.auth
    answer = requests.request(row.method, cluster.url(row.path), data=row.data, headers=headers, auth=auth, timeout=60)
    assert answer.status_code == row.status, answer.text
    check(row, answer.text)


@pytest.mark.parametrize(
    "method, path",
    sorted({(row.method, row.path) for row in ROWS if row.path.startswith("/system/") and row.status < 300}),
)
def test_below_system_nobody_gets_in_without_a_name(cluster: Cluster, method: str, path: str):
    for auth in (None, ("oscar", "wrong")):
        answer = requests.request(method, cluster.url(path), auth=auth, timeout=60)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Authorization Required"'


def test_the_table_in_the_docs_has_every_route(cluster: Cluster):
    text = (Path(ROOT) / "docs" / "api.md").read_text()
    documented = {(method, path) for methods, path in ROUTE.findall(text) for method in methods.split(", ")}
    tried = {(row.method, _template(row.path)) for row in ROWS} - {
        ("GET", "/system/nowhere"),
        ("PATCH", "/system/services"),
    }
    assert tried <= documented


def _template(path: str) -> str:
    """A row's path as the docs write it."""
    path = path.partition("?")[0].rstrip("/") or "/"
    path = re.sub(r"^/(run|job)/[^/]+", r"/\1/{service}", path)
    path = re.sub(r"^/system/services/[^/]+/(stop|start|restart)", "/system/services/{service}/stop", path)
    path = re.sub(r"^/system/services/[^/]+/exposed.*", "/system/services/{service}/exposed/...", path)
    path = re.sub(r"^/system/(services|federation)/[^/]+", r"/system/\1/{service}", path)
    path = re.sub(r"^/system/metrics/(?!breakdown)[^/]+", "/system/metrics/{service}", path)
    path = re.sub(r"^/system/quotas/user/[^/]+", "/system/quotas/user/{user}", path)
    path = re.sub(r"^/system/logs/[^/]+/[^/]+", "/system/logs/{service}/{job}", path)
    path = re.sub(r"^/system/logs/[^/{]+", "/system/logs/{service}", path)
    path = re.sub(r"^/system/buckets/[^/]+", "/system/buckets/{bucket}", path)
    return re.sub(r"^/system/volumes/[^/]+", "/system/volumes/{volume}", path)
