"""Who may submit to a Slurm of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.hpc.lab import SCRIPT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's jobs are refused")
def test_root_must_say_who_may_run_jobs(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    ended = subprocess.run([sys.executable, SCRIPT, "start", folder], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "--munge" in ended.stderr and "--anyone" in ended.stderr and ended.stderr.count("\n") == 1
    assert not folder.exists()
