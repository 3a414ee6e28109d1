"""A private Slurm for tests. Outside tests/infra/hpc, a module has the fixture by importing `slurm_lab` from here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import PATIENCE_S, eventually

SCRIPT = Path(__file__).parents[3] / "infra" / "hpc" / "slurm-lab"
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))
MISSING = [name for name in ("slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]


class Lab:
    """One lab. Its commands are those of the machine, with `environ`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PATH": PATH, "HOME": str(folder), "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self, *options: str) -> None:
        self._script("start", "--anyone", *options)

    def stop(self) -> None:
        if (self.folder / "slurm.conf").exists():
            self._script("stop")

    def pid(self, daemon: str = "slurmctld") -> int:
        """Of `slurmctld`, `slurmd-lab1` or `slurmd-lab2`."""
        return int((self.folder / f"{daemon}.pid").read_text())

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm's prints."""
        ended = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        assert not check or ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def hasten(self, job: str, patience_s: float = PATIENCE_S) -> None:
        """Let a job's second run begin once the first is cleared away: after two seconds, by default after 120.

        Not at once: a node refuses a job in the second in which it ended there.
        """
        waits = f"job {job} to wait for its second run"
        eventually(lambda: self.run("squeue", "-h", "-j", job, "-o", "%T") == "PENDING", patience_s, waits)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def _script(self, command: str, *options: str) -> None:
        done = subprocess.run(
            [sys.executable, SCRIPT, command, self.folder, *options], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr + self.logs()

    def logs(self) -> str:
        """The ends of its daemons' logs."""
        files = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files)


@contextmanager
def running_lab(folder: Path, *options: str) -> Iterator[Lab]:
    """A lab of one's own, for tests that hurt it; skips where there is no Slurm."""
    if MISSING:
        pytest.skip(f"{MISSING[0]} is not on this machine; infra/slurm-env.sh installs it")
    lab = Lab(folder)
    try:
        lab.start(*options)
        yield lab
    finally:
        lab.stop()


@pytest.fixture(scope="session")
def slurm_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab of two nodes with 32 cores each (so they say), for all tests that leave it as it was."""
    with running_lab(tmp_path_factory.mktemp("slurm"), "--cpus", "32") as lab:
        yield lab
