"""The command line in this process, against a real cluster in another."""

import json
import resource
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.cli.main import main
from tests.cluster import FUNCTION_SCRIPT, TWIN, Cluster

FDL = """
functions:
  oscar:
    - dioscar:
        name: <name>
        image: ghcr.io/dioscar/dioscar-contract:0.1.0
        cpu: "1.0"
        memory: 1Gi
        log_level: CRITICAL
        script: function.sh
        input: [{storage_provider: minio.default, path: <name>/in}]
        output: [{storage_provider: minio.default, path: <name>/out}]
        environment: {variables: {DIOSCAR_FUNCTION: contract.<function>}}
"""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def processor_time(command: list[str]) -> float:
    """Seconds that a command works, whatever else this machine does meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


Dioscar = Callable[..., Said]


@pytest.fixture
def dioscar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dioscar:
    """Run a command line; nothing of the tester's environment shines through."""
    for variable in ("OSCAR_ENDPOINT", "OSCAR_USERNAME", "OSCAR_PASSWORD", "OSCAR_OIDC_TOKEN", "DIOSCAR_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(TWIN))  # where the contract's functions are, as for the cluster

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(int(status), said.out, said.err)

    return run


@pytest.fixture
def on(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, dioscar: Dioscar) -> Dioscar:
    """`dioscar`, in a shell whose DIOSCAR_DATA is the running cluster's."""
    monkeypatch.setenv("DIOSCAR_DATA", str(cluster.data))
    return dioscar


@pytest.fixture
def fdl_file(tmp_path: Path) -> Callable[[str, str], Path]:
    """An FDL file for a service that runs one of the contract's functions."""

    def write(name: str, function: str = "copy") -> Path:
        (tmp_path / "function.sh").write_text(FUNCTION_SCRIPT)
        path = tmp_path / f"{name}.yaml"
        path.write_text(FDL.replace("<name>", name).replace("<function>", function))
        return path

    return write
