"""`doctor` finds what would trip a newcomer, and is content with a healthy machine."""

import socket
import sys
from pathlib import Path

import pytest

from infra.cli import doctor as examination
from infra.cli.doctor import ROOMS, port_is_free, room
from tests.infra.cli.conftest import Dioscar


def test_a_healthy_machine_passes(on: Dioscar) -> None:
    said = on("doctor")
    assert (said.status, said.err) == (0, "")
    for what in (
        "python",
        "packages",
        *(f"import {name}" for name in ROOMS),
        "sh",
        "disk",
        "cluster",
        "torch",
        "podman",
    ):
        assert f" {what} " in said.out


def test_programs_get_json(on: Dioscar) -> None:
    verdicts = {finding["what"]: finding["verdict"] for finding in on("doctor", "--json").json}
    assert verdicts["packages"] == verdicts["import layers"] == verdicts["cluster"] == "ok"


@pytest.mark.parametrize("name", ROOMS)
def test_each_name_is_ours(name: str) -> None:
    assert room(name).verdict == "ok"


def test_somebody_elses_package_of_our_name_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "theirs").mkdir(parents=True)
    (tmp_path / "other" / "theirs").mkdir(parents=True)
    (tmp_path / "other" / "theirs" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other"), *sys.path])
    found = room("theirs", tmp_path / "mine")
    assert found.verdict == "wrong"
    assert f"finds {tmp_path}/other/theirs instead of {tmp_path}/mine/theirs" in found.detail


def test_a_name_that_is_nowhere_is_wrong(tmp_path: Path) -> None:
    assert "finds nothing instead of" in room("no_such_package_anywhere", tmp_path).detail


def test_an_own_twin_beside_ours_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "functions" / "mytwin").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    import functions

    monkeypatch.setattr(functions, "__path__", [str(tmp_path / "functions"), *functions.__path__])
    assert room("functions").verdict == "ok"


def test_a_port_in_use_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not port_is_free(taken.getsockname()[1])
    assert port_is_free(0)


def test_what_is_wrong_sets_the_status(on: Dioscar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIOSCAR_TEST_DATA", str(tmp_path / "gone"))
    said = on("doctor")
    assert said.status == 1
    assert said.err == "dioscar: to be mended: DIOSCAR_TEST_DATA\n"


def test_missing_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["no-such-package>=1", "click>=999", 'torch>=1; extra == "train"']
    monkeypatch.setattr(examination.importlib.metadata, "requires", lambda _: wanted)
    found = examination._packages()
    assert found.verdict == "wrong"
    assert "no-such-package is missing; click " in found.detail
    assert "torch" not in found.detail
