"""What sites install the plugin with names files and commands that are there."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HPC = ROOT / "infra" / "hpc"
UNIT = HPC / "dioscar-hpc.service"
VERIFY = shutil.which("systemd-analyze")

OURS = ("events", "fdl", "functions", "infra", "layers")
PRINT_OURS = f"[print(it.__file__) for name, it in sys.modules.items() if name.partition('.')[0] in {OURS}]"


def words_of(instruction: str) -> list[list[str]]:
    """The words of each such instruction of the Containerfile, without options."""
    text = "\n".join(line for line in (HPC / "Containerfile").read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line)[1:] for line in lines if line.startswith(f"{instruction} ")]
    return [[word for word in words if not word.startswith("--")] for words in found]


def python(*arguments: str, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-P", *arguments],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_unit_starts_a_command_that_is_there() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program == "%h/dioscar/.venv/bin/dioscar" and "dioscar" in scripts
    module, _, function = scripts["dioscar"].partition(":")
    said = python("-c", f"from {module} import {function}; {function}()", arguments[0], "--help", folder=ROOT)
    assert arguments[1] == "--config" and "--config" in said
    assert unit["Service"]["KillMode"] == "process", "jobs of `batch: local` are to outlive the plugin"
    for path in re.findall(r"infra/hpc/[\w.-]+|docs/[\w.-]+", UNIT.read_text()):
        assert (ROOT / path.rstrip(".")).is_file(), path


@pytest.mark.skipif(not VERIFY, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    assert VERIFY
    program = tmp_path / "dioscar" / ".venv" / "bin" / "dioscar"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    unit = shutil.copy(UNIT, tmp_path)
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    ended = subprocess.run(
        [VERIFY, "--user", "--man=no", "verify", unit], env=environ, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_the_image_holds_is_there_and_enough_to_start(tmp_path: Path) -> None:
    shown = [line[1:] for line in (HPC / "Containerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    for *sources, to in words_of("COPY"):
        for source in sources:
            path = source.rstrip("/")
            assert path in shown, f"{path} is not sent to the builder"
            target = tmp_path / to.lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / path, target)
    [[*entry]] = words_of("ENTRYPOINT")
    assert re.sub(r"[\[\],]", "", " ".join(entry)).split() == ["python3", "-P", "-m", "infra.hpc"]
    image = tmp_path / "opt" / "dioscar"
    assert "--config" in python("-m", "infra.hpc", "--help", folder=image)
    names = [f"infra.hpc.{file.stem}" for file in HPC.glob("*.py") if not file.stem.startswith("__")]
    found = python("-c", f"import sys, {', '.join(names)}; {PRINT_OURS}", folder=image).splitlines()
    assert len(found) > len(names) and all(Path(file).is_relative_to(image) for file in found), found


def test_what_the_image_installs_is_pinned() -> None:
    pins = {line.partition("==")[0].lower() for line in (ROOT / "infra" / "constraints.txt").read_text().splitlines()}
    [install] = [words for words in words_of("RUN") if "pip" in words]
    packages = install[install.index("/opt/dioscar/constraints.txt") + 1 :]
    assert packages and set(packages) <= pins
