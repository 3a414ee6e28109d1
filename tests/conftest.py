"""What all tests may use."""

from collections.abc import Iterator

import hypothesis
import pytest

from tests.cluster import Cluster, running_cluster

# Examples are not timed: these tests run on shared machines. The rest is hypothesis' own, and its profile for CI in CI.
hypothesis.settings.register_profile("dioscar", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("dioscar")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One embedded cluster for all tests that do not need one of their own."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
