"""`bench`, `install`: lists and refusals; `check` and `test` are what runs this."""

from infra.cli.develop import benchmarks
from tests.infra.cli.conftest import Dioscar


def test_benchmarks_are_listed_with_their_purpose(dioscar: Dioscar) -> None:
    said = dioscar("bench")
    assert said.status == 0
    for name, purpose in benchmarks().items():
        assert purpose, f"tests/benchmarks/{name}.py says in its first line what it measures"
        assert f"{name} " in said.out and purpose in said.out


def test_a_benchmark_that_is_not_there_is_not_found(dioscar: Dioscar) -> None:
    said = dioscar("bench", "nosuch")
    assert said.status == 66
    assert "there is no benchmark nosuch; there are " in said.err


def test_extras_are_the_launchers_work(dioscar: Dioscar) -> None:
    assert "install extras with the launcher, ./dioscar install nosuch" in dioscar("install", "nosuch").err
