"""The folder of one run: where its input is staged, where its output appears, and the environment that tells it so."""

import asyncio
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fdl.quantities import parse_cpu
from infra.local.beneath import open_file
from infra.local.jobs import Job
from infra.local.services import Deployed
from layers.runtime.contract import InputError
from layers.runtime.supervisor import regular_files

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SMALL = 1 << 20
"""Bytes of input and of output up to which a run counts as small."""
ROOM = 256 << 20
"""Bytes of memory that must be free for a workspace in it."""
ROOM_HOLDS_S = 0.5
"""How long a look at what is free holds: runs that stand in memory are small, and `ROOM` is many of them."""
QUICK_S = 0.1
"""A service whose last run took no longer is expected to be as quick again."""
LARGEST_JSON = 1 << 20
"""Bytes of what a run says of itself."""
MARK = "DIOSCAR_CLUSTER"
"""Set, to the data folder, in every process that a cluster starts: so a restarted cluster finds what it left behind."""

ATTEMPT = "[dioscar: attempt "
"""How the line begins that stands between two attempts in a log."""


@dataclass(frozen=True)
class Workspace:
    """A run's own folders; `job_variables` is what this run adds to the environment of its service.

    While `content` is there, the folders are not: the input may travel to whoever runs it without a file. So may what a
    `quiet` run prints: it is a call, of which nobody keeps that, or expected to print little and to end soon.
    """

    folder: Path
    job_log: Path | None
    job_variables: Mapping[str, str] = field(default_factory=dict)
    in_memory: bool = False
    quiet: bool = False
    content: bytes | None = field(default=None, repr=False)

    @property
    def is_call(self) -> bool:
        """Whether it is of a synchronous call, whose log goes with it."""
        return self.job_log is None

    @property
    def log(self) -> Path:
        """Where what it prints goes, if that goes to a file."""
        return self.job_log or self.folder.with_name(f"{self.folder.name}.log")

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

    def files(self) -> list[str]:
        """The paths of what the run has left in its output folder.

        Raises InputError where links stand in the place of its folders: what they lead to is not the run's to give.
        """
        if self.folder.is_symlink() or self.produced.is_symlink():
            raise InputError(f"{self.produced.name}: is a link; leave the run's folders where they are")
        return regular_files(self.produced) if self.produced.is_dir() else []

    def size(self) -> int:
        """Bytes of everything in the folder."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*"))

    def create(self) -> None:
        """Make the folders, empty."""
        try:
            self.folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            shutil.rmtree(self.folder)
            self.folder.mkdir(mode=0o700)
        self.received.mkdir()
        self.produced.mkdir()

    def adding(self, variables: Mapping[str, str]) -> "Workspace":
        """The same, with more variables."""
        return replace(self, job_variables={**self.job_variables, **variables}) if variables else self

    def unpacked(self) -> "Workspace":
        """The same, its input in the file that the run expects."""
        if self.content is None:
            return self
        self.create()
        Path(self.job_variables["INPUT_FILE_PATH"]).write_bytes(self.content)
        return replace(self, content=None)

    def mark_attempt(self, number: int) -> None:
        """Where an earlier attempt has printed: a line in the log that names this one."""
        try:
            with self.log.open("r+b") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(0, end - 1))
                broken = log.read() not in (b"", b"\n")
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                log.write(b"\n" * broken + f"{ATTEMPT}{number}, {now}]\n".encode())
        except FileNotFoundError:
            return

    async def remove(self) -> None:
        """Leave nothing but the log of a job."""
        if self.is_call:
            self.log.unlink(missing_ok=True)
        if self.in_memory:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


class Scratch:
    """Where workspaces stand: below the data folder, or in memory for services whose runs have been small.

    Making and removing a handful of small files costs ten milliseconds on some disks and a tenth of one in memory.
    """

    def __init__(self, data: Path, memory: Path = Path("/dev/shm")) -> None:  # noqa: S108 - the name is ours alone
        name = hashlib.sha256(str(data).encode()).hexdigest()[:16]
        self._disk = data / "run"
        self._memory = memory / f"dioscar-{os.getuid()}-{name}"
        self._usable = os.access(memory, os.W_OK)
        self._room = (False, float("-inf"))
        self._largest: dict[str, int] = {}
        self._quick: set[str] = set()

    def clear(self) -> None:
        """Remove what an earlier process left, and start anew."""
        for folder in (self._disk, self._memory) if self._usable else (self._disk,):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)

    def close(self) -> None:
        """Give the memory back."""
        shutil.rmtree(self._memory, ignore_errors=True)

    def workspace(self, service: str, name: str, log: Path | None, size: int) -> Workspace:
        """A workspace for a run whose input has `size` bytes; without a `log`, of a call."""
        small = max(size, self._largest.get(service, SMALL + 1)) <= SMALL
        in_memory = small and self._usable and self._has_room()
        folder = Path(f"{self._memory if in_memory else self._disk}/{service}/{name}")
        quiet = log is None or (service in self._quick and not log.exists())
        return Workspace(folder, log, in_memory=in_memory, quiet=quiet)

    def folders(self, service: str) -> list[Path]:
        """The folders below which the workspaces of a service stand; made where they are missing."""
        parents = (self._disk, self._memory) if self._usable else (self._disk,)
        for parent in parents:
            (parent / service).mkdir(mode=0o700, parents=True, exist_ok=True)
        return [parent / service for parent in parents]

    def learn(self, service: str, size: int | None) -> None:
        """A run of `service` left `size` bytes; None: it failed, and the next one had better have all the room."""
        self._largest[service] = SMALL + 1 if size is None else max(size, self._largest.get(service, 0))

    def time(self, service: str, seconds: float | None) -> None:
        """A job of `service` took so long; None: it left files, or failed, so the next one may be slow."""
        if seconds is not None and seconds <= QUICK_S:
            self._quick.add(service)
        else:
            self._quick.discard(service)

    def forget(self, service: str) -> None:
        """The service has changed: what its runs left says nothing any more."""
        self._largest.pop(service, None)
        self._quick.discard(service)

    def _has_room(self) -> bool:
        now = time.monotonic()
        if now - self._room[1] > ROOM_HOLDS_S:
            self._room = self._look(), now
        return self._room[0]

    def _look(self) -> bool:
        try:
            room = os.statvfs(self._memory)
        except OSError:  # it has been cleared behind our back, as some systems do at logout
            return False
        return room.f_bavail * room.f_frsize > ROOM


def checkpoints_of(data: Path | str, service: str, tenant: str) -> str:
    """Where the jobs of a service keep what their next attempts go on from: with the name, not with its next owner.

    >>> checkpoints_of("data", "pulsar-train", "")
    'data/checkpoints/pulsar-train'
    >>> checkpoints_of("data", "pulsar-train", "alice@example.org")
    'data/checkpoints/pulsar-train~7a64adf28737ea90'
    """
    owner = f"~{hashlib.sha256(tenant.encode()).hexdigest()[:16]}" if tenant else ""
    return f"{data}/checkpoints/{service}{owner}"


def checkpoint_path(data: Path | str, job: Job) -> str:
    """Where one job does."""
    return f"{checkpoints_of(data, job.service, job.tenant)}/{job.id}"


def forget_checkpoints(data: Path, job_ids: Iterable[str]) -> None:
    """Remove what jobs kept that are forgotten; a job is named after its service, or its first letters, and a UUID."""
    for job_id in job_ids:
        for folder in (data / "checkpoints").glob(f"{job_id[:-37]}*/{job_id}"):
            shutil.rmtree(folder, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object that a run has written, or None where there is none (yet); no link and no pipe is one."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            value = json.loads(file.read(LARGEST_JSON).decode())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


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
        MARK: str(data),
    }
