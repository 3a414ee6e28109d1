"""OSCAR's routes, one row for each answer that is known: what is sent, the status, and the body.

A body that is a string is the whole of it; a pattern must match it; a list of keys is those of its JSON, in order.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from fdl.model import dumps

NAME = "routes"
"""The service that the rows speak of; its bucket has an object `in/a`."""
SERVICE_KEYS = [
    *("name", "cluster_id", "memory", "cpu", "total_memory", "total_cpu", "ephemeral_storage_request", "enable_gpu"),
    *("enable_sgx", "image_prefetch", "synchronous", "log_level", "image", "alpine", "token", "file_stage_in"),
    *("input", "output", "script", "expose", "environment", "annotations", "vo", "labels", "storage_providers"),
    *("owner", "namespace", "interlink_node_name", "visibility", "allowed_users", "isolation_level", "bucket_list"),
    *("mount", "volume_status"),
]
BUCKET_KEYS = ["bucket_name", "visibility", "allowed_users", "owner", "metadata"]
USAGE_KEYS = ["storage_quota", "storage_usage", "attribution"]
METRIC_KEYS = ["metric", "value", "unit", "sources"]
TIMES = r'"start":"[0-9T:.Z-]+","end":"[0-9T:.Z-]+"'
INVALID = re.compile("The service specification is not valid: .+")


@dataclass(frozen=True)
class Row:
    """One request and its answer; `{token}` in `bearer` stands for the service's."""

    method: str
    path: str
    status: int
    answer: Any = ""
    body: Any = None
    bearer: str = ""
    anonymous: bool = False

    @property
    def id(self) -> str:
        """For people who read what failed."""
        sent = "" if self.body is None else f" {str(self.body)[:40]}"
        return f"{self.method} {self.path}{sent} -> {self.status}"

    @property
    def data(self) -> bytes:
        """The body as it is sent."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else dumps(self.body).encode()


def check(row: Row, text: str) -> None:
    """Assert that an answer is the one of the row."""
    if isinstance(row.answer, re.Pattern):
        assert row.answer.fullmatch(text), text
    elif isinstance(row.answer, list):
        value = json.loads(text)
        assert list(value[0] if isinstance(value, list) else value) == row.answer
        assert dumps(value) == text, "not compact"
    else:
        assert text == row.answer


MINIMAL = {"name": "routes-new", "image": "x", "script": "true"}
ROWS = [
    Row("GET", "/health", 200, "Ok", anonymous=True),
    Row(
        "GET",
        "/system/info",
        200,
        ["version", "git_commit", "architecture", "kubernetes_version", "serverless_backend"],
    ),
    Row("GET", "/system/config", 200, ["config", "minio_provider", "allowed_image_repositories"]),
    Row("GET", "/system/config/", 200, re.compile(r'\{"config":\{"name":"oscar","namespace":"oscar",.*')),
    Row("PUT", "/system/config", 200, "[]", {"allowed_image_repositories": []}),
    Row("PUT", "/system/config", 200, "null", {}),
    Row("PUT", "/system/config", 400, re.compile("The configuration specification is not valid: .+"), b"{"),
    Row("GET", "/system/status", 200, ["cluster", "oscar", "minio"]),
    # services
    Row("GET", "/system/services", 200, SERVICE_KEYS),
    Row("GET", "/system/services?include=deployment", 200, [*SERVICE_KEYS, "deployment"]),
    Row("GET", f"/system/services/{NAME}", 200, SERVICE_KEYS),
    Row("GET", f"/system/services/{NAME}?include=deployment", 200, [*SERVICE_KEYS, "deployment"]),
    Row("GET", "/system/services/routes-nowhere", 404),
    Row("GET", "/system/services/-bad-", 400, "invalid serviceName"),
    Row("POST", "/system/services", 400, INVALID, {"name": "routes-new", "script": "true"}),
    Row("POST", "/system/services", 400, INVALID, {**MINIMAL, "cpu": 1}),
    Row("POST", "/system/services", 400, INVALID, {**MINIMAL, "name": "n" * 40}),
    Row("POST", "/system/services", 400, INVALID, {**MINIMAL, "input": [{"storage_provider": "minio", "path": ""}]}),
    Row("POST", "/system/services", 400, INVALID, {**MINIMAL, "input": [{"storage_provider": "s3", "path": "a/b"}]}),
    Row("POST", "/system/services", 400, INVALID, {**MINIMAL, "volume": {"mount_path": "data", "size": "1Gi"}}),
    Row(
        "POST",
        "/system/services",
        400,
        "Referenced volume does not exist in the caller namespace",
        {**MINIMAL, "volume": {"mount_path": "/data", "name": "routes-none"}},
    ),
    Row(
        "POST",
        "/system/services",
        400,
        "refresh_token secret is required for federated services",
        {**MINIMAL, "federation": {"members": [{"type": "oscar", "cluster_id": "other", "service_name": "x"}]}},
    ),
    Row("POST", "/system/services", 400, "A service with the provided name already exists", {**MINIMAL, "name": NAME}),
    Row("PUT", "/system/services", 404, "", {**MINIMAL, "name": "routes-nowhere"}),
    Row("PUT", "/system/services", 400, INVALID, b"[]"),
    Row("DELETE", "/system/services/routes-nowhere", 404),
    # deployment
    Row(
        "GET",
        f"/system/services/{NAME}/deployment",
        200,
        [
            *("service_name", "namespace", "state", "reason", "last_transition_time", "active_instances"),
            *("affected_instances", "resource_kind"),
        ],
    ),
    Row(
        "GET",
        "/system/services/routes-nowhere/deployment",
        403,
        "You do not have permission to access this service",
    ),
    Row(
        "GET",
        f"/system/services/{NAME}/deployment/logs?timestamps=true&tailLines=5",
        200,
        '{"service_name":"routes","available":false,"message":"Deployment logs are unavailable for this service.",'
        '"entries":[]}',
    ),
    # calls
    Row("POST", f"/run/{NAME}", 200, "aGk=", b"aGk=", bearer="{token}"),
    Row("POST", f"/run/{NAME}", 401, re.compile(".+"), b"", bearer="0" * 64),
    Row("POST", f"/run/{NAME}", 401, re.compile(".+"), b""),
    Row("POST", f"/run/{NAME}", 401, re.compile(".+"), b"", anonymous=True),
    Row("POST", "/run/routes-nowhere", 401, re.compile(".+"), b"", bearer="0" * 64),
    Row("POST", f"/job/{NAME}", 201, "", b"aGk=", bearer="{token}"),
    Row("POST", f"/job/{NAME}", 401, re.compile(".+"), b""),
    # logs
    Row("GET", f"/system/logs/{NAME}", 200, re.compile(r'\{"jobs":\{("routes-[0-9a-f-]{36}":\{"status":.*)?\}\}')),
    Row("GET", f"/system/logs/{NAME}?page=x", 400, re.compile(".+")),
    Row("GET", "/system/logs/routes-nowhere", 404),
    Row("GET", f"/system/logs/{NAME}/routes-none", 404),
    Row("DELETE", f"/system/logs/{NAME}/routes-none", 404),
    Row("DELETE", f"/system/logs/{NAME}?all=false", 204),
    Row("GET", "/system/logs", 200, re.compile(r'\{"logs":\[.*\](,"next_page":"\d+")?\}')),
    Row("GET", "/system/logs?previous=true", 400, re.compile(".+")),
    # buckets
    Row("GET", "/system/buckets", 200, [*BUCKET_KEYS, *USAGE_KEYS]),
    Row(
        "GET",
        f"/system/buckets/{NAME}",
        200,
        [*BUCKET_KEYS, "objects", *USAGE_KEYS, "is_truncated", "returned_items"],
    ),
    Row("GET", f"/system/buckets/{NAME}?limit=5&page=", 200, re.compile(r'\{"bucket_name":"routes","visibility":.*')),
    Row("GET", f"/system/buckets/{NAME}?page=%ff", 400, re.compile(".+")),
    Row("GET", "/system/buckets/routes-none", 404, "The bucket 'routes-none' does not exist"),
    Row(
        "POST",
        "/system/buckets",
        400,
        re.compile("Error creating bucket with name 'routes': .+"),
        {"bucket_name": NAME},
    ),
    Row("POST", "/system/buckets", 400, re.compile("Error creating bucket with name 'A': .+"), {"bucket_name": "A"}),
    Row("POST", "/system/buckets", 400, re.compile("The Bucket specification is not valid: .+"), {"bucket_name": 1}),
    Row("PUT", "/system/buckets", 404, "The bucket 'routes-none' does not exist", {"bucket_name": "routes-none"}),
    Row(
        "PUT",
        "/system/buckets",
        403,
        "Forbidden action: A bucket from a service can't be modified\n",
        {"bucket_name": NAME, "visibility": "public"},
    ),
    Row("DELETE", "/system/buckets/routes-none", 404, "The bucket 'routes-none' does not exist"),
    Row(
        "POST",
        f"/system/buckets/{NAME}/presign",
        200,
        ["object_key", "operation", "method", "url", "expires_at"],
        {"object_key": "in/a", "operation": "download"},
    ),
    Row(
        "POST",
        f"/system/buckets/{NAME}/presign",
        200,
        ["object_key", "operation", "method", "url", "expires_at", "headers"],
        {"object_key": "a", "operation": "upload", "content_type": "text/plain"},
    ),
    Row(
        "POST",
        f"/system/buckets/{NAME}/presign",
        400,
        "Unsupported operation 'move'. Allowed values are 'upload' or 'download'",
        {"object_key": "a", "operation": "move"},
    ),
    Row(
        "POST",
        f"/system/buckets/{NAME}/presign",
        400,
        "Invalid expiration requested: 604801. Allowed range is 1-604800 seconds",
        {"object_key": "a", "operation": "upload", "expires_in": 604801},
    ),
    Row(
        "POST",
        f"/system/buckets/{NAME}/presign",
        400,
        "Object key cannot be empty",
        {"object_key": "/", "operation": "upload"},
    ),
    Row("POST", f"/system/buckets/{NAME}/presign", 400, re.compile("Invalid presign request: .+"), {}),
    Row(
        "POST",
        "/system/buckets/routes-none/presign",
        404,
        "Bucket 'routes-none' not found",
        {"object_key": "a", "operation": "upload"},
    ),
    # volumes
    Row("GET", "/system/volumes/routes-none", 404),
    Row("DELETE", "/system/volumes/routes-none", 404),
    Row("GET", "/system/volumes", 200, re.compile(r"\[.*\]")),
    Row(
        "POST",
        "/system/volumes",
        400,
        "volume.name must satisfy Kubernetes DNS-1123 naming rules",
        {"name": "../x", "size": "1Gi"},
    ),
    Row(
        "POST",
        "/system/volumes",
        400,
        "volume.size must be a valid positive quantity",
        {"name": "routes-v", "size": "much"},
    ),
    Row("POST", "/system/volumes", 400, re.compile("The volume specification is not valid: .+"), {"name": "routes-v"}),
    # metrics
    Row("GET", "/system/metrics", 200, ["start", "end", "totals", "sources"]),
    Row(
        "GET",
        "/system/metrics?start=2026-01-01T00:00:00Z&end=2025-01-01T00:00:00Z",
        400,
        '{"error":"end must be after start"}',
    ),
    Row("GET", "/system/metrics?end=yesterday", 400, '{"error":"invalid end timestamp"}'),
    Row("GET", "/system/metrics?start=2026-01-01", 400, '{"error":"invalid start timestamp"}'),
    Row("GET", "/system/metrics/breakdown", 400, '{"error":"group_by is required"}'),
    Row("GET", "/system/metrics/breakdown?group_by=moon", 400, '{"error":"unsupported group_by"}'),
    Row("GET", "/system/metrics/breakdown?group_by=user&format=xml", 400, '{"error":"invalid format"}'),
    Row(
        "GET",
        "/system/metrics/breakdown?group_by=service&include_users=true&format=csv",
        400,
        '{"error":"include_users is not supported for csv"}',
    ),
    Row(
        "GET",
        "/system/metrics/breakdown?group_by=service&start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00%2B01:00",
        200,
        '{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00+01:00","group_by":"service","items":[]}',
    ),
    Row(
        "GET",
        "/system/metrics/breakdown?group_by=country&format=csv&end=2020-01-02T00:00:00Z",
        200,
        "key,membership,executions_count,unique_users_count,countries\n",
    ),
    Row("GET", f"/system/metrics/{NAME}", 200, ["service_name", "start", "end", "metrics"]),
    Row(
        "GET",
        f"/system/metrics/{NAME}?metric=cpu-hours",
        200,
        ["service_id", "metric", "start", "end", "value", "unit", "sources"],
    ),
    Row("GET", f"/system/metrics/{NAME}?metric=weight", 400, '{"error":"invalid metric key"}'),
    Row("GET", f"/system/metrics/{NAME}?metric=countries-list", 400, '{"error":"unsupported metric for value query"}'),
    # quotas
    Row("GET", "/system/quotas/user", 401, re.compile("missing user identificator: .+")),
    Row(
        "GET",
        "/system/quotas/user/somebody",
        200,
        '{"user_id":"somebody","volumes":{"disk":{"max":"7Gi","used":"0"},"volumes":{"max":"5","used":"0"},'
        '"max_disk_per_volume":"5Gi","min_disk_per_volume":"200Mi"},"minio":{"buckets":{"max":0,"used":0},'
        '"storage_per_bucket":{"max":"0"},"storage_total":{"used":"0"}}}',
    ),
    Row(
        "PUT",
        "/system/quotas/user/somebody",
        503,
        "kueue is not enabled: /system/quotas requires KUEUE_ENABLE=true",
        {"cpu": "2", "memory": "4Gi"},
    ),
    Row(
        "PUT",
        "/system/quotas/user/somebody",
        400,
        "cpu, memory, ephemeral_storage, volumes or minio must be provided",
        {"volumes": {}},
    ),
    Row(
        "PUT",
        "/system/quotas/user/somebody",
        400,
        re.compile("invalid volumes.disk quantity: .+"),
        {"volumes": {"disk": "much"}},
    ),
    Row("PUT", "/system/quotas/user/somebody", 400, re.compile("invalid payload: .+"), {"volumes": 1}),
    Row("PUT", "/system/quotas/user/another", 200, ["user_id", "volumes", "minio"], {"minio": {"buckets": "3"}}),
    # federation
    Row("GET", f"/system/federation/{NAME}", 200, '{"topology":"none","members":null}'),
    Row("GET", "/system/federation/routes-nowhere", 404),
    *(
        Row(method, f"/system/federation/{name}", status, answer, body)
        for method in ("POST", "PUT", "DELETE")
        for name, status, answer, body in (
            (NAME, 200, '{"topology":"none","members":null}', {}),
            (NAME, 400, re.compile("refresh_token secret is required.+"), {"members": [{"type": "oscar"}]}),
            (NAME, 400, re.compile("Invalid payload: .+"), {"members": 7}),
            ("routes-nowhere", 404, "", {"members": []}),
        )
    ),
    # exposed services, of one that is not: those that are have tests of their own (../exposed)
    *(
        Row("POST", f"/system/services/{name}/{action}", status, answer)
        for action in ("stop", "start", "restart")
        for name, status, answer in ((NAME, 400, 'service "routes" is not exposed'), ("routes-nowhere", 404, ""))
    ),
    Row("GET", f"/system/services/{NAME}/auth", 200, bearer="{token}"),
    Row("GET", f"/system/services/{NAME}/auth", 200),
    Row("GET", f"/system/services/{NAME}/auth", 401, re.compile(".+"), bearer="0" * 64),
    Row("GET", "/system/services/routes-nowhere/auth", 404),
    Row("GET", f"/system/services/{NAME}/exposed/", 404, re.compile(".*")),
    # nothing
    Row("GET", "/", 404, "404 page not found"),
    Row("GET", "/system/nowhere", 404, "404 page not found"),
    Row("PATCH", "/system/services", 404, "404 page not found"),
]
