"""The plugin's settings, and the command that takes them."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.hpc.settings import SettingsError, load


def given(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hpc.yaml"
    path.write_text(text)
    return path


def test_a_file_and_the_environment_over_it(tmp_path: Path) -> None:
    path = given(
        tmp_path, 'root: /scratch/pods\nbatch: local\nimages: {"*kit*": {/supervisor: /opt/kit}}\nrequeue: 3\n'
    )
    settings = load(path, {"DIOSCAR_HPC_REQUEUE": "5", "DIOSCAR_HPC_ALLOWED_FLAGS": "[--time]"})
    assert settings.root == Path("/scratch/pods") and settings.address == "unix:///scratch/pods/plugin.sock"
    assert settings.images == {"*kit*": {"/supervisor": "/opt/kit"}}
    assert settings.requeue == 5 and settings.allowed_flags == ("--time",)
    assert settings.settle_s == 0.0 and load(None, {}, root="/scratch/pods").settle_s == 60.0


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ("", {}, "root: is not set"),
        ("root: pods", {}, 'root: "pods" is no absolute path'),
        ("root: /pods\nbacth: local", {}, 'bacth: is no setting; write "batch"'),
        ("root: /pods\nunheard: 1", {}, "unheard: is no setting; docs/hpc.md lists them"),
        ("root: /pods\nbatch: pbs", {}, 'batch: "pbs" is not known; write slurm or local'),
        ("root: /pods\ndefault_flags: --nv", {}, 'default_flags: is no list; write ["..."]'),
        ("root: /pods", {"DIOSCAR_HPC_ROOTT": "1"}, 'DIOSCAR_HPC_ROOTT: is no setting; write "root"'),
        ("root: /pods\nlisten: 4000", {}, "listen: "),
        ("root: /pods\nlisten: 'localhost'", {}, 'listen: "localhost" is no address'),
        ("root: /pods\nlisten: 'unix://sock'", {}, "listen: "),
        ("- a", {}, "is no list of settings"),
        ("a: [", {}, "hpc.yaml: line 1: is no YAML: "),
        ("root: /pods", {"DIOSCAR_HPC_REQUEUE": "many"}, "DIOSCAR_HPC_REQUEUE: requeue: "),
        ("root: /pods", {"DIOSCAR_HPC_POLL": "["}, "DIOSCAR_HPC_POLL: "),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, text: str, environ: dict[str, str], says: str) -> None:
    path = given(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load(path, environ)
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or "DIOSCAR_HPC_" in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nosuch\.yaml: No such file"):
        load(tmp_path / "nosuch.yaml", {})


def plugin(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", *arguments]
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("program", [("infra.hpc",), ("infra.cli", "hpc-plugin")])
def test_bad_settings_end_the_command_with_a_sentence(tmp_path: Path, program: tuple[str, ...]) -> None:
    done = plugin(*program, "--config", str(given(tmp_path, "root: pods")))
    assert done.returncode == 65 and done.stdout == ""
    assert done.stderr == f'dioscar: {tmp_path}/hpc.yaml: root: "pods" is no absolute path\n'


def test_check_says_that_the_batch_system_does_not_answer(tmp_path: Path) -> None:
    missing: Any = {"DIOSCAR_HPC_ROOT": str(tmp_path / "root"), "DIOSCAR_HPC_SLURM_BIN": str(tmp_path / "bin")}
    done = plugin("infra.cli", "hpc-plugin", "--check", **missing)
    assert done.returncode == 69
    assert done.stderr.startswith("dioscar: batch system slurm: does not answer: ") and "Traceback" not in done.stderr


def test_check_fails_where_plain_processes_have_no_runtime_or_the_address_is_taken(tmp_path: Path) -> None:
    environ = {"DIOSCAR_HPC_ROOT": str(tmp_path / "root"), "DIOSCAR_HPC_BATCH": "local"}
    without = plugin("infra.hpc", "--check", **environ, DIOSCAR_HPC_RUNTIME_COMMAND="/nowhere/apptainer")
    assert without.returncode == 1 and "runtime apptainer: /nowhere/apptainer is not on this machine" in without.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        busy = plugin("infra.hpc", "--check", **environ, DIOSCAR_HPC_LISTEN=listen)
    assert busy.returncode == 1 and busy.stderr == f"dioscar: listen: {listen}: Address already in use\n"


def test_check_says_which_supervisor_plain_processes_get(tmp_path: Path) -> None:
    environ = {
        "DIOSCAR_HPC_ROOT": str(tmp_path / "root"),
        "DIOSCAR_HPC_BATCH": "local",
        "DIOSCAR_HPC_RUNTIME": "process",
    }
    ours = plugin("infra.hpc", "--check", **environ)
    assert ours.returncode == 0 and f"supervisor  that of {sys.executable}" in ours.stdout
    (tmp_path / "supervisor").touch()
    images = f'{{"*kit*": {{/supervisor: {tmp_path}}}}}'
    given = plugin("infra.hpc", "--check", **environ, DIOSCAR_HPC_IMAGES=images)
    assert given.returncode == 0 and f"supervisor  {tmp_path} (setting images)" in given.stdout
    (tmp_path / "supervisor").unlink()
    empty = plugin("infra.hpc", "--check", **environ, DIOSCAR_HPC_IMAGES=images)
    assert empty.returncode == 1 and "holds no supervisor" in empty.stderr


def test_a_file_that_is_not_there_is_a_misspelt_command(tmp_path: Path) -> None:
    for program in (("infra.hpc",), ("infra.cli", "hpc-plugin")):
        done = plugin(*program, "--config", str(tmp_path / "none.yaml"))
        assert done.returncode == 2 and "none.yaml" in done.stderr


def test_an_address_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "busy").mkdir()
    environ = {"DIOSCAR_HPC_ROOT": str(tmp_path / "root"), "DIOSCAR_HPC_LISTEN": f"unix://{tmp_path}/busy"}
    done = plugin("infra.hpc", **environ)
    assert done.returncode == 1 and done.stderr == f"dioscar: listen: unix://{tmp_path}/busy: Address already in use\n"
