"""One service for all rows of the table, and oscar-python's client."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from oscar_python.client import Client

from tests.cluster import Cluster
from tests.infra.local.api.routes import NAME

ECHO = 'cat "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/echo.bin"\n'


@pytest.fixture(scope="session")
def service(cluster: Cluster) -> str:
    """The token of the service that the table speaks of."""
    cluster.deploy(NAME, script=ECHO)
    cluster.put(NAME, "in/a", b"hello")
    cluster.ended(NAME)
    return cluster.token(NAME)


@pytest.fixture
def oscar(cluster: Cluster) -> Iterator[Client]:
    """The client that people use from Python."""
    with oscar_client(cluster) as client:
        yield client


@contextmanager
def oscar_client(cluster: Cluster) -> Iterator[Client]:
    """The same, for the length of a `with`."""
    facts = cluster.facts
    yield Client(
        {
            "cluster_id": "dioscar",
            "endpoint": facts["api"],
            "user": facts["oscar_username"],
            "password": facts["oscar_password"],
            "ssl": False,
        }
    )
    with warnings.catch_warnings():  # it never closes its connections
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
