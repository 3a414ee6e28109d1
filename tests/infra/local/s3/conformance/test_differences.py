"""The table of differences is of tests that there are."""

from pathlib import Path

from tests.infra.local.s3.conformance.differences import DIFFERENCES


def test_each_difference_is_found_by_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    names = {name.partition("[")[0] for _, name in DIFFERENCES}
    assert not [name for name in names if f"def {name}(" not in tests]
