"""Both stores, with a webhook each, and the clients that people use."""

from contextlib import ExitStack
from hashlib import md5

import pytest
from botocore.exceptions import ClientError
from minio.error import S3Error

from tests.infra.local.s3.conformance.differences import BUILT_IN, DIFFERENCES, MINIO
from tests.infra.local.s3.conformance.stores import start

FAILURES = (AssertionError, pytest.fail.Exception, ClientError, S3Error)


@pytest.fixture(scope="package")
def stores(tmp_path_factory):
    """The servers that run already; each starts when the first test asks for it."""
    with ExitStack() as stack:
        started = {}

        def get(name):
            if name not in started:
                started[name] = start(stack, name, tmp_path_factory.mktemp(name))
            return started[name]

        yield get


@pytest.fixture(params=[BUILT_IN, MINIO])
def store(request, stores):
    name = request.node.name.replace(f"{request.param}-", "", 1).replace(f"[{request.param}]", "")
    reason = DIFFERENCES.get((request.param, name))
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True, raises=FAILURES))
    return stores(request.param)


@pytest.fixture
def s3(store):
    return store.s3


@pytest.fixture
def bucket(store, request):
    name = f"b{md5(request.node.name.encode()).hexdigest()[:20]}"
    store.s3.create_bucket(Bucket=name)
    return name
