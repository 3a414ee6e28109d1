"""What all tests may use."""

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One embedded cluster for all tests that do not need one of their own."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
