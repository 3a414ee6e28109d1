"""The embedded cluster as other processes see it: its data folder, and the file in it that says where it answers."""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.cli.errors import DIOSCAR, CliError, Exit

STATE_FILE = "cluster.json"
LOG_FILE = "cluster.log"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 120.0


def data_folder(given: str | Path | None = None) -> Path:
    """The data folder: as given, else `DIOSCAR_DATA`, else `dioscar-data` below the current folder."""
    return Path(given or os.environ.get("DIOSCAR_DATA") or "dioscar-data")


@dataclass(frozen=True)
class Running:
    """A cluster that runs on `data`."""

    data: Path
    facts: dict[str, Any]

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self.facts["pid"])

    @property
    def api(self) -> str:
        """The URL of OSCAR's API."""
        return str(self.facts["api"])

    @property
    def s3(self) -> str:
        """The URL of the object store."""
        return str(self.facts["s3"])


def find(data: Path) -> Running | None:
    """The cluster that runs on a data folder; None where there is none, or only what a killed one left behind."""
    try:
        facts = json.loads((data / STATE_FILE).read_text(encoding="utf-8"))
        running = Running(data, facts)
        return running if _lives(running.pid) else None
    except FileNotFoundError:
        return None
    except PermissionError:
        raise CliError(
            f"{data / STATE_FILE}: belongs to another user; start a cluster of your own", Exit.REFUSED
        ) from None
    except (ValueError, KeyError, TypeError):
        raise CliError(f"{data / STATE_FILE}: is no state of a cluster; remove it") from None


def require(data: Path) -> Running:
    """The cluster that runs on a data folder. Raises CliError where there is none."""
    running = find(data)
    if running is None:
        raise CliError(f"no cluster runs on {data}; start one with: {DIOSCAR} up --detach", Exit.UNREACHABLE)
    return running


def command(data: Path, options: Sequence[str]) -> list[str]:
    """The command that runs a cluster in the foreground."""
    return [sys.executable, "-P", "-m", "infra.local", "--data", str(data), *options]


def start(data: Path, options: Sequence[str]) -> Running:
    """Start a cluster that outlives this process, and wait until it answers. Raises CliError with its last words."""
    data.mkdir(parents=True, exist_ok=True)
    log = data / LOG_FILE
    began = log.stat().st_size if log.exists() else 0
    pid = _spawn(command(data, options), log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        running = find(data)
        if running and running.pid == pid and _answers(running.api):
            return running
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            bad_input = os.waitstatus_to_exitcode(status) == Exit.BAD_INPUT
            words = _last_words(log, began) or f"the cluster did not start; see {log}"
            raise CliError(words, Exit.BAD_INPUT if bad_input else Exit.FAILED)
        time.sleep(0.05)
    os.kill(pid, signal.SIGTERM)
    raise CliError(f"the cluster did not answer within {START_TIMEOUT_S:.0f} s; see {log}", Exit.UNREACHABLE)


def stop(running: Running, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Ask a cluster to drain and stop, and wait until it has. Raises CliError where it does not."""
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + timeout_s
    while _lives(running.pid):
        if time.monotonic() > deadline:
            raise CliError(
                f"the cluster (process {running.pid}) still drains after {timeout_s:.0f} s; look at its jobs"
            )
        time.sleep(0.05)


def _spawn(arguments: list[str], log: Path) -> int:
    """Start a process that nobody waits for, in a session of its own; its number."""
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.posix_spawn(
        arguments[0],
        arguments,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _lives(pid: int) -> bool:
    """Whether a process is there and is a cluster: a number may have passed on to another program."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    folder = Path("/proc") / str(pid)
    try:
        if (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        return b"infra.local" in (folder / "cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()  # no /proc on this system: believe the number


def _answers(api: str) -> bool:
    from urllib.request import urlopen

    try:
        with urlopen(f"{api}/health", timeout=5) as reply:  # noqa: S310 - the cluster's own address
            return bool(reply.status == 200)
    except OSError:
        return False


def _last_words(log: Path, began: int) -> str:
    """The last line that a cluster printed, without its name."""
    with log.open("rb") as stream:
        stream.seek(began)
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("dioscar: ") if lines else ""
