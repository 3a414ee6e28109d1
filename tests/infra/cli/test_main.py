"""The group: help that lists everything, statuses that mean something, and a start that is not felt."""

import subprocess
import sys

import pytest

from infra.cli import main as entry
from infra.cli.main import SECTIONS
from infra.cli.output import human_size, human_time, print_table
from tests.infra.cli.conftest import Dioscar, processor_time

COMMANDS = [command.name for commands in SECTIONS.values() for command in commands]


def test_help_lists_every_command(dioscar: Dioscar) -> None:
    said = dioscar("--help")
    assert said.status == 0
    for name in (
        *("up", "down", "status", "config", "apply", "plan", "ls", "put", "get", "invoke", "jobs", "logs"),
        *("demo", "doctor", "test", "check", "bench", "install"),
    ):
        assert f"\n  {name} " in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_ends_its_sentences(dioscar: Dioscar, command: str) -> None:
    said = dioscar(command, "--help")
    assert said.status == 0
    assert said.out.startswith(f"Usage: dioscar {command}")


@pytest.mark.parametrize(
    "arguments", [["nosuch"], ["up", "--nosuch"], ["put"], ["apply", "gone.yaml"], ["jobs", "--limit", "0"], []]
)
def test_a_misspelt_command_is_a_usage_error(dioscar: Dioscar, arguments: list[str]) -> None:
    said = dioscar(*arguments)
    assert (said.status, said.out) == (2, "")
    assert "Usage: dioscar" in said.err


def test_the_version_is_the_packages(dioscar: Dioscar) -> None:
    assert dioscar("--version").out == "dioscar, version 0.1.0\n"


def test_an_error_that_nobody_foresaw_is_one_sentence_too(dioscar: Dioscar, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(entry.cluster.down, "callback", broken)
    said = dioscar("down")
    assert said.status == 1
    assert said.err == "dioscar: RuntimeError: first line second line (set DIOSCAR_TRACEBACK=1 to see where)\n"


def test_an_interrupt_is_no_error_of_ours(dioscar: Dioscar, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry.cluster.down, "callback", interrupted)
    assert dioscar("down").status == 130


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from infra.cli.main import main; main(['--help']); "
        "print(sorted({'requests', 'boto3', 'pydantic', 'numpy', 'minio', 'rich.console', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_comes_at_once() -> None:
    ours = [sys.executable, "-P", "-m", "infra.cli", "--help"]
    least = [sys.executable, "-P", "-c", "import click"]
    assert min(processor_time(ours) for _ in range(3)) < 5 * min(processor_time(least) for _ in range(3))


def test_a_closed_pipe_ends_a_listing_in_silence() -> None:
    command = f"{sys.executable} -P -m infra.cli --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, check=True, text=True)
    assert done.stderr == ""


def test_sizes_and_times_are_read_at_a_glance() -> None:
    assert [human_size(size) for size in (0, 1023, 1024, 1536 * 2**20)] == ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]
    assert [human_time(s) for s in (0.0004, 59.9, 61, 3661, 200000)] == [
        "0 ms",
        "59.9 s",
        "1 min 1 s",
        "1 h 1 min",
        "2 days",
    ]


def test_a_name_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["KEY"], [["in/\x1b[2Jgone\r.txt"]], empty="")
    assert capsys.readouterr().out == "KEY\nin/�[2Jgone�.txt\n"
