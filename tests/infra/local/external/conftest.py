"""One store and one cluster for all tests that break nothing."""

from collections.abc import Iterator

import pytest

from tests.infra.local.external.linked import Linked, linked


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linked]:
    """One pair for all tests that break nothing; its mailboxes are not listed unless a test asks for it."""
    with linked(tmp_path_factory.mktemp("linked")) as running:
        yield running
