"""One table: the same scripts and events in every way, and each difference expected and named."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.contract.callers import REAL_SUPERVISOR
from tests.contract.supervisor.cases import CASES, COPY, LOG_CASES
from tests.contract.supervisor.deviations import DEVIATIONS
from tests.contract.supervisor.test_other_stores import STORE_CASES
from tests.contract.supervisor.ways import OSCAR, OURS, Case, Left, Ways, check

CONTRACT = Path(__file__).parents[3] / "docs" / "contract.md"


@pytest.fixture(scope="module")
def ways(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    made = Ways(cluster, tmp_path_factory.mktemp("ways"))
    yield made
    made.close()


@pytest.mark.parametrize("case", [*CASES, *LOG_CASES], ids=lambda case: case.name)
def test_every_way_leaves_what_the_table_says(ways: Ways, case: Case) -> None:
    if case.name == "Perl" and not shutil.which("perl"):
        pytest.skip("perl is not installed")
    check(ways, case)


def test_oscars_prints_a_newline_after_its_reply(ways: Ways) -> None:
    if not REAL_SUPERVISOR.exists():
        pytest.skip("faas-supervisor is not installed")
    case = next(case for case in CASES if case.name == "base64")
    assert ways.answer(case, OSCAR) == ways.answer(case, OURS) + b"\n"


def test_a_script_of_10_mb_runs_where_it_is_mounted_and_no_cluster_keeps_it(ways: Ways, cluster: Cluster) -> None:
    script = (": " + "x" * 1022 + "\n") * 10_000 + 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/got"'
    case = Case("a script of 10 MB", script, "run", Left(reply=b"abc"), data=b"YWJj", ways=(OURS,))
    assert ways.run(case, OURS) == case.left
    document = {"name": "too-long", "image": "x", "script": script}
    answer = cluster.http.post(cluster.url("/system/services"), json=document)
    assert answer.status_code == 400
    assert "script: is larger than 1 MiB" in answer.text


def test_our_supervisor_says_what_it_does_in_the_log_of_a_job(ways: Ways) -> None:
    for level, lines in (("INFO", ["INFO - Downloading in/a.txt", "INFO - Uploading file 'got'"]), ("WARNING", [])):
        case = Case(level, COPY, "upload", Left(), document={"log_level": level}, printed=True)
        printed = ways.run(case, OURS).printed or ""
        assert [line for line in lines if line not in printed] == []
        assert lines or printed == ""


def test_what_differs_does_differ() -> None:
    assert [case.name for case in CASES for _, left in case.differs.values() if left == case.left] == []


def test_every_deviation_is_named_and_seen() -> None:
    cases = [*CASES, *STORE_CASES, *LOG_CASES]
    assert {name for case in cases for name, _ in case.differs.values()} == set(DEVIATIONS)


def test_the_documentation_lists_every_deviation() -> None:
    section = CONTRACT.read_text(encoding="utf-8").partition("### Where OSCAR's supervisor does otherwise")[2]
    listed = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert {name: text.strip() for name, text in listed} == DEVIATIONS
