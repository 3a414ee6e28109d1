"""One table: the same scripts and events in every way, and each difference expected and named."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.contract.callers import REAL_SUPERVISOR
from tests.contract.supervisor.cases import CASES
from tests.contract.supervisor.deviations import DEVIATIONS
from tests.contract.supervisor.ways import OSCAR, Case, Ways

CONTRACT = Path(__file__).parents[3] / "docs" / "contract.md"


@pytest.fixture(scope="module")
def ways(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    made = Ways(cluster, tmp_path_factory.mktemp("ways"))
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_way_leaves_what_the_table_says(ways: Ways, case: Case) -> None:
    if case.name == "Perl" and not shutil.which("perl"):
        pytest.skip("perl is not installed")
    tried = [way for way in case.ways if way != OSCAR or REAL_SUPERVISOR.exists()]
    with ThreadPoolExecutor(len(tried)) as pool:
        found = dict(zip(tried, pool.map(lambda way: ways.run(case, way), tried), strict=True))
    assert found == {way: case.expected(way) for way in tried}


def test_what_differs_does_differ() -> None:
    assert [case.name for case in CASES for _, left in case.differs.values() if left == case.left] == []


def test_every_deviation_is_named_and_seen() -> None:
    assert {name for case in CASES for name, _ in case.differs.values()} == set(DEVIATIONS)


def test_the_documentation_lists_every_deviation() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+) \|", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: text.strip() for name, text in listed if name in DEVIATIONS} == DEVIATIONS
