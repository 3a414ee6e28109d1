"""The `container` executor: a run in a container of its service's image, by podman or docker.

The same contract as everywhere: OSCAR's `/oscar/config/script.sh` under `sh`, its variables, the run's folders under
the names that they have outside. The image is read-only, the network closed unless the service asks for it.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import resource
import shlex
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from fdl.engine import EXECUTORS
from fdl.quantities import parse_cpu
from infra.local import trees
from infra.local.attached import belongs_to, mount_of
from infra.local.executors import Ended
from infra.local.executors.homes import Homes
from infra.local.executors.limits import MOST_PROCESSES, OUT_OF_MEMORY, PROCESS, Limits, in_units
from infra.local.executors.process import kill_group, killed, timed_out, within
from infra.local.models import readable
from infra.local.services import Deployed
from infra.local.workspace import MARK, Workspace, read_json, service_environment

ENGINES = ("podman", "docker")
SETTING = "DIOSCAR_CONTAINERS"
DEFAULT = "DIOSCAR_EXECUTOR"
LABEL = "dioscar.cluster"
FAILED = 125
"""The status of podman and docker where they could not start the container."""
UID = 1000
SCRIPT = "/oscar/config/script.sh"
VARIABLES = "/oscar/config/variables.sh"
START = f""". {VARIABLES}
/bin/sh {SCRIPT} & script=$!
trap 'kill -TERM $script' TERM
wait $script; status=$?
if kill -0 $script 2>/dev/null; then wait $script; status=$?; fi
exit $status"""
"""SIGTERM would mean nothing to a script that is the first process of its container."""
OURS = ("PATH", "HOME", "PYTHONPATH", PROCESS, MARK)
"""Variables that mean something only outside; those that a service sets itself are kept."""
PASSED_ON = re.compile(r"PATH|HOME|USER|TMPDIR|XDG_\w+|CONTAINERS_\w+|DOCKER_\w+|DBUS_SESSION_BUS_ADDRESS")
"""Of the cluster's own environment, what the client of a container engine may need."""
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
REFERENCE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
TRANSPORTS = ("containers-storage", "dir", "docker-archive", "docker-daemon", "oci", "oci-archive", "ostree", "sif")
"""Of containers/image: what stands before a colon to say where an image is read from."""
TAIL = 2000

log = logging.getLogger("dioscar.jobs")


class ContainerExecutor:
    """Satisfies `infra.local.executors.Executor`."""

    def __init__(self, data: Path, limits: Limits, homes: Homes, environ: Mapping[str, str]) -> None:
        self._data = data
        self._limits = limits
        self._homes = homes
        self._engine = find_engine(environ)
        self._environ = {name: value for name, value in environ.items() if PASSED_ON.fullmatch(name)}
        self._label = f"{LABEL}={hashlib.sha256(str(data).encode()).hexdigest()[:16]}"
        self._used = data / "containers"
        self._cleared: asyncio.Task[None] | None = None
        if self._engine is not None and self._used.exists():
            self._cleared = asyncio.create_task(self._clear())

    async def run(self, deployed: Deployed, workspace: Workspace, *, timeout_s: float | None) -> Ended:
        """Run the script of `deployed` in its image; its output goes to the workspace's log as it comes."""
        if self._engine is None:
            return Ended(
                FAILED, "ContainerError", "neither podman nor docker is here; install one, or use another executor"
            )
        if not names_image(image_of(deployed.service.image)):
            return Ended(FAILED, "ContainerError", "image: is no name of an image; write HOST/NAME:TAG")
        if self._cleared is not None:
            await asyncio.shield(self._cleared)
        self._used.touch()
        name = f"dioscar-{os.getpid()}-{workspace.folder.name}"
        command = [self._engine, *self._arguments(deployed, workspace, name)]
        over = False
        try:
            with workspace.log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=workspace.folder,
                    env=self._environ,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            with self._limits.watch(process.pid, 0, workspace.log):
                try:
                    code, in_time = await within(timeout_s, process.wait(), process.pid)
                finally:
                    kill_group(process.pid, signal.SIGKILL)
            over = in_time and code >= 0
        finally:
            if not over:  # the client is not the container: it may have gone alone
                await asyncio.shield(self._remove(name))
        if not in_time:
            return timed_out(timeout_s)
        if code == FAILED and (why := await self._refused(deployed, workspace)):
            return Ended(code, "ContainerError", why)
        if code == OUT_OF_MEMORY:
            memory = f"{in_units(deployed.memory)} (memory in the FDL)"
            return Ended(code, "OutOfMemory", f"was killed, most likely for more than its {memory}; give it more")
        if code == -signal.SIGKILL:
            return killed(code)
        told = read_json(workspace.folder / "outcome.json") or {}
        return Ended(code, told.get("error", ""), told.get("message", ""), told.get("run_key", ""))

    async def close(self) -> None:
        """Nothing outlives a run."""
        if self._cleared is not None:
            await asyncio.wait([self._cleared])

    def _arguments(self, deployed: Deployed, workspace: Workspace, name: str) -> list[str]:
        service = deployed.service
        checkpoint = Path(workspace.job_variables["DIOSCAR_CHECKPOINT"])
        home = self._homes.of(deployed.name)
        script, variables = workspace.folder / "script.sh", workspace.folder / "variables.sh"
        script.write_text(service.script, encoding="utf-8")
        checkpoint.mkdir(mode=0o700, parents=True, exist_ok=True)
        volume = mount_of(self._data, deployed)
        if volume is not None:
            belongs_to(volume, UID)
        environment = {**self._variables(deployed, workspace), **(volume.variables if volume else {})}
        variables.write_text(
            "".join(
                f"export {name}={shlex.quote(value)}\n"
                for name, value in environment.items()
                if IDENTIFIER.fullmatch(name)
            ),
            encoding="utf-8",
            errors="surrogateescape",
        )
        own = [workspace.folder, checkpoint, home]
        if os.getuid() == 0:  # else the container's user is ours
            for folder in own:
                trees.give(folder, UID, UID)
        memory = str(deployed.memory)
        return [
            *("run", "--rm", "--pull=never", f"--name={name}", f"--label={self._label}", "--log-driver=none"),
            *("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--security-opt=label=disable"),
            f"--network={'host' if deployed.settings.network else 'none'}",
            *(f"--memory={memory}", f"--memory-swap={memory}", f"--pids-limit={MOST_PROCESSES}"),
            f"--cpus={max(0.01, float(parse_cpu(service.cpu))):g}",
            *(f"--tmpfs=/tmp:rw,size={memory},mode=1777", f"--shm-size={memory}"),
            *_ulimits(),
            *self._user(),
            *(f"--volume={folder}:{folder}" for folder in own),
            *([] if volume is None else [f"--volume={volume.folder}:{volume.path}"]),
            *(f"--volume={folder}:{folder}:ro" for folder in readable(self._data, deployed)),
            *(f"--volume={script}:{SCRIPT}:ro", f"--volume={variables}:{VARIABLES}:ro"),
            *(f"--env={name}={value}" for name, value in environment.items() if not IDENTIFIER.fullmatch(name)),
            *(f"--workdir={workspace.folder}", "--entrypoint=/bin/sh"),
            *(image_of(service.image), "-c", START),
        ]

    def _variables(self, deployed: Deployed, workspace: Workspace) -> dict[str, str]:
        outside = service_environment(deployed, self._data)
        kept = {name: value for name, value in outside.items() if name not in OURS or name in deployed.variables}
        return {
            **kept,
            **workspace.job_variables,
            "HOME": deployed.variables.get("HOME", str(self._homes.of(deployed.name))),
            "DIOSCAR_OUTCOME": str(workspace.folder / "outcome.json"),
        }

    def _user(self) -> Iterator[str]:
        if os.getuid() == 0:
            yield f"--user={UID}:{UID}"
            return
        if self._engine is not None and Path(self._engine).name == "podman":
            yield "--userns=keep-id"
        yield f"--user={os.getuid()}:{os.getgid()}"

    async def _refused(self, deployed: Deployed, workspace: Workspace) -> str:
        """Why the container did not start; empty where it did, and its script ended with this status."""
        image = image_of(deployed.service.image)
        if (await self._call("image", "inspect", "--format", "found", image))[0] != 0:
            engine = Path(str(self._engine)).name
            return f'image "{image}" is not on this machine; build it, or get it with `{engine} pull {image}`'
        with contextlib.suppress(OSError), workspace.log.open("rb") as stream:
            stream.seek(max(0, workspace.log.stat().st_size - TAIL))
            last = stream.read().decode(errors="replace").strip().splitlines()[-1:]
            if last and last[0].startswith(("Error: ", "docker: ")):
                return last[0].partition(": ")[2][:500]
        return ""

    async def _clear(self) -> None:
        """Remove the containers that an earlier process of this cluster left."""
        _, found = await self._call("ps", "--all", "--quiet", "--filter", f"label={self._label}")
        for name in found.split():
            await self._remove(name)

    async def _remove(self, name: str) -> None:
        await self._call("kill", "--signal=KILL", name)  # without it, podman gives it ten seconds more
        await self._call("rm", "--force", name)

    async def _call(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(self._engine),
            *arguments,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode(errors="replace")


def find_engine(environ: Mapping[str, str]) -> str | None:
    """The container engine that DIOSCAR_CONTAINERS names, else podman or docker, whichever is there first.

    Raises ValueError for one that is not known or not there.
    """
    wanted = environ.get(SETTING, "").strip()
    if not wanted:
        return next((found for engine in ENGINES if (found := shutil.which(engine))), None)
    found = shutil.which(wanted)
    if Path(wanted).name not in ENGINES or found is None:
        raise ValueError(f'{SETTING}: "{wanted}" is not here or none of {", ".join(ENGINES)}; write "podman"')
    return found


def chosen_executor(environ: Mapping[str, str]) -> str | None:
    """What all services have at least: DIOSCAR_EXECUTOR. Raises ValueError."""
    value = environ.get(DEFAULT, "").strip() or None
    if value not in (None, *EXECUTORS):
        raise ValueError(f'{DEFAULT}: "{value}" is none of {", ".join(EXECUTORS)}; write "container"')
    return value


def image_of(image: str) -> str:
    """The image of an FDL as an engine names it.

    >>> image_of("docker://ghcr.io/dioscar/dioscar-pulsar:0.1.0")
    'ghcr.io/dioscar/dioscar-pulsar:0.1.0'
    """
    return image.removeprefix("docker://")


def names_image(image: str) -> bool:
    """Whether that is the name of an image: neither an option, nor one of the places that engines read images from.

    >>> names_image("ghcr.io/dioscar/dioscar-pulsar:0.1.0"), names_image("--privileged"), names_image("dir:/etc")
    (True, False, False)
    """
    return bool(REFERENCE.fullmatch(image)) and image.partition(":")[0] not in TRANSPORTS


def _ulimits() -> Iterator[str]:
    """What the cluster may have itself: engines ask for more, which not every machine grants."""
    for name, number, most in (("nofile", resource.RLIMIT_NOFILE, 8192), ("nproc", resource.RLIMIT_NPROC, 8192)):
        hard = resource.getrlimit(number)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        yield f"--ulimit={name}={limit}:{limit}"
