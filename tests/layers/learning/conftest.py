"""Registries in buckets of real stores: the embedded cluster's, and MinIO's own code base."""

from collections.abc import Callable, Iterator
from itertools import count
from urllib.parse import urlsplit

import pytest
from minio import Minio

from layers.learning.registry import Registry
from layers.objects.client import S3Client
from tests.cluster import Cluster
from tests.infra.local.s3.conformance.juicefs import gateway

KEYS = "registry-access", "registry-secret"
NewRegistry = Callable[[], Registry]
NUMBERS = count()


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a store of MinIO's code base."""
    variables = dict(zip(("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), KEYS, strict=True))
    with gateway(tmp_path_factory.mktemp("gateway"), variables) as (url, _):
        yield url


def _new(url: str, access_key: str, secret_key: str) -> Registry:
    bucket = f"models-{next(NUMBERS)}"
    Minio(urlsplit(url).netloc, access_key, secret_key, secure=False).make_bucket(bucket_name=bucket)
    return Registry(S3Client(url, access_key, secret_key), bucket)


@pytest.fixture
def registry(cluster: Cluster) -> Registry:
    """An empty one."""
    return _new(cluster.facts["s3"], cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])


@pytest.fixture(params=["embedded", "minio"])
def any_registry(request: pytest.FixtureRequest) -> Registry:
    """An empty one on each store."""
    if request.param == "minio":
        return _new(request.getfixturevalue("elsewhere"), *KEYS)
    found: Registry = request.getfixturevalue("registry")
    return found
