"""The folder of one run: where its input is staged, where its output appears, and the environment that tells it so."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fdl.quantities import parse_cpu
from infra.local.services import Deployed

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "DIOSCAR_CLUSTER"
"""Set, to the data folder, in every process that a cluster starts: so a restarted cluster finds what it left behind."""


@dataclass(frozen=True)
class Workspace:
    """A run's own folders; `job_variables` is what this run adds to the environment of its service."""

    folder: Path
    log: Path
    job_variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def received(self) -> Path:
        """TMP_INPUT_DIR."""
        return self.folder / "input"

    @property
    def produced(self) -> Path:
        """TMP_OUTPUT_DIR."""
        return self.folder / "output"

    @property
    def progress(self) -> dict[str, float] | None:
        """What the function last said of its progress."""
        return read_json(self.folder / "progress.json")

    def create(self) -> None:
        """Make the folders, empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in (self.received, self.produced, self.folder / "tmp"):
            folder.mkdir(parents=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Leave nothing but the log."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none (yet)."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def service_environment(deployed: Deployed, data: Path) -> dict[str, str]:
    """The clean environment of a service's processes: its variables, OSCAR's, and a PATH with our Python first."""
    threads = str(max(1, round(parse_cpu(deployed.service.cpu))))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "HOME": str(data / "home"),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "TZ"):
        if name in os.environ:
            environment[name] = os.environ[name]
    if os.environ.get("PYTHONPATH"):  # where a user keeps twins of their own; runs have another working directory
        folders = [str(Path(part).resolve()) for part in os.environ["PYTHONPATH"].split(os.pathsep) if part]
        environment["PYTHONPATH"] = os.pathsep.join(folders)
    return {
        **environment,
        **deployed.variables,
        "OSCAR_SERVICE_NAME": deployed.name,
        "OSCAR_SERVICE_TOKEN": deployed.token,
        "OSCAR_SERVICE_BASE_PATH": f"/system/services/{deployed.name}/exposed",
        "DIOSCAR_ENGINE": "embedded",
        "DIOSCAR_CHECKPOINT": str(data / "checkpoints"),
        MARK: str(data),
    }
