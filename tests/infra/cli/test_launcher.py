"""`./dioscar`: makes its environment, remembers it, and says in one sentence what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.cli.conftest import processor_time

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the launcher, what its stamp is made of, and an environment that claims to be up to date."""
    folder = tmp_path / "a clone"
    (folder / "infra").mkdir(parents=True)
    shutil.copy(ROOT / "dioscar", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "infra/constraints.txt", folder / "infra")
    (folder / ".venv/bin").mkdir(parents=True)
    python = folder / ".venv/bin/python"
    python.write_text(
        f'#!/bin/sh\ncase " $* " in *" -m pip "*) echo "$@" >>"{folder}/pip"; exit;; esac\necho "ran: $@"\n'
    )
    python.chmod(0o755)
    return folder


def run(clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **variables}
    return subprocess.run([clone / "dioscar", *arguments], capture_output=True, text=True, env=environ, check=False)


def installed(clone: Path) -> list[str]:
    """What pip was asked for, one line for each time."""
    return (clone / "pip").read_text().splitlines() if (clone / "pip").exists() else []


def test_it_installs_once_and_hands_over(clone: Path) -> None:
    first = run(clone, "jobs", "--state", "Dead letters")
    assert first.stdout == "ran: -P -m infra.cli jobs --state Dead letters\n"
    assert first.stderr == "dioscar: installing pulsar into .venv; this is done once\n"
    (line,) = installed(clone)
    assert f"--constraint {clone}/infra/constraints.txt" in line and line.endswith(f"--editable {clone}[pulsar]")
    second = run(clone, "jobs")
    assert (second.stdout, second.stderr) == ("ran: -P -m infra.cli jobs\n", "")
    assert len(installed(clone)) == 1


def test_it_costs_nothing_when_nothing_is_to_do(clone: Path) -> None:
    run(clone)
    assert min(processor_time([str(clone / "dioscar")]) for _ in range(5)) < 0.05


def test_extras_come_when_a_command_needs_them_and_stay(clone: Path) -> None:
    run(clone, "check")
    run(clone, "up")
    run(clone, "test")
    assert [line.rpartition("[")[2] for line in installed(clone)] == ["pulsar,test]", "pulsar,test,calorimeter,train]"]
    run(clone, "install", "train")
    assert len(installed(clone)) == 2


def test_the_list_of_benchmarks_needs_nothing_that_they_need(clone: Path) -> None:
    run(clone, "bench")
    run(clone, "bench", "--help")
    run(clone, "bench", "latencyy")
    assert [line.rpartition("[")[2] for line in installed(clone)] == ["pulsar]"]
    (clone / "tests/benchmarks").mkdir(parents=True)
    (clone / "tests/benchmarks/latency.py").touch()
    run(clone, "bench", "latency")
    assert [line.rpartition("[")[2] for line in installed(clone)] == ["pulsar]", "pulsar,calorimeter,test,train]"]


@pytest.mark.parametrize("name", ["pyproject.toml", "infra/constraints.txt"])
def test_changed_requirements_are_installed(clone: Path, name: str) -> None:
    run(clone)
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    run(clone)
    assert len(installed(clone)) == 2


def test_a_folder_that_was_moved_is_installed_anew(clone: Path) -> None:
    run(clone)
    moved = clone.rename(clone.with_name("moved"))
    assert run(moved).stderr.startswith("dioscar: installing")


def test_it_may_be_called_through_a_link_from_anywhere(clone: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(os.path.relpath(clone / "dioscar", tmp_path))
    done = subprocess.run([link, "ls"], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "ran: -P -m infra.cli ls\n"


def test_an_extra_that_is_none_is_refused(clone: Path) -> None:
    done = run(clone, "install", "nosuch")
    assert done.returncode == 1
    assert done.stderr == 'dioscar: "nosuch" is no extra; the extras are: calorimeter pulsar trace train users test\n'
    assert installed(clone) == []


def test_without_a_python_it_says_which_one_it_needs(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    done = run(clone, "up", PYTHON="/no/such/python")
    assert done.returncode == 1
    assert done.stderr == (
        "dioscar: needs Python 3.11 or newer and finds none; install it, or name it with PYTHON=/path/to/python3\n"
    )


def test_a_python_that_is_too_old_is_none(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(clone / ".venv")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    assert "needs Python 3.11 or newer" in run(clone, "up", PYTHON=str(old)).stderr


def test_a_failed_installation_shows_why_and_is_tried_again(clone: Path) -> None:
    python = clone / ".venv/bin/python"
    python.write_text('#!/bin/sh\ncase " $* " in *" -m pip "*) echo "no network" >&2; exit 1;; esac\n')
    for _ in range(2):
        done = run(clone, "up")
        assert done.returncode == 1
        assert "no network\n" in done.stderr
        assert done.stderr.endswith("dioscar: could not install; what pip said stands above\n")


@pytest.mark.slow
def test_a_fresh_clone_runs_without_torch(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    done = run(clone, "doctor", PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch" in done.stdout and "is not installed; for training" in done.stdout
