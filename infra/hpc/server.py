"""The plugin as a process: its socket, its batch system, and the check before it is relied on."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from infra.hpc.app import Plugin
from infra.hpc.batch import Batch, BatchUnavailable
from infra.hpc.kit import TARGET, brings_kit, with_kit
from infra.hpc.lifecycle import Writer
from infra.hpc.pods import Pods, RootError
from infra.hpc.settings import UNIX, Settings

log = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than the 5 s between two questions of a virtual kubelet: none is to meet a connection that is just closed."""
GRACE_S = 3
"""How long those who follow a log may go on when the plugin stops."""


class StartError(Exception):
    """The plugin cannot start; the message is one sentence with the mend."""


def batch_of(settings: Settings) -> Batch:
    """The batch system that the settings name."""
    if settings.batch == "slurm":
        from infra.hpc.slurm import Slurm

        return Slurm(settings.slurm_bin)
    from infra.hpc.local import Local

    return Local(settings.root)


def writer() -> Writer:
    """What writes pods' scripts."""
    from infra.hpc.script import write

    return write


def serve(settings: Settings, tell: Callable[[str], None] = print) -> None:
    """Run the plugin until SIGTERM or SIGINT. Raises StartError."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    os.umask(0o077)
    pods = Pods(settings.root)
    try:
        pods.open()
        listener = _listen(settings.address)
    except RootError as error:
        raise StartError(str(error)) from None
    try:
        settings = _equipped(settings)
        app = Plugin(settings, pods, batch_of(settings), writer()).app()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        tell(f"interLink plugin of {settings.root} ({settings.batch}, {settings.runtime}) on {_name(listener)}")
        sys.stdout.flush()
        signal.signal(
            signal.SIGTERM, lambda *_: None
        )  # uvicorn raises it again when it has stopped: there is more to do
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        if settings.address.startswith(UNIX):
            Path(settings.address.removeprefix(UNIX)).unlink(missing_ok=True)
        listener.close()
        pods.close()


def _equipped(settings: Settings) -> Settings:
    """The settings, with the supervisor that plain processes need. Raises StartError."""
    try:
        return with_kit(settings, os.environ)
    except OSError as error:
        raise StartError(f"{settings.root / 'kit'}: cannot be written: {error.strerror}") from None


def check(settings: Settings) -> list[str]:
    """What there is, in lines. Raises StartError with the first thing that does not work."""
    root = settings.root
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = root / ".check"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise StartError(f"{root}: cannot be used as the root: {error.strerror}") from None
    lines = [f"root        {root}, can be written"]
    if stat.S_IMODE(root.stat().st_mode) & 0o077:
        lines.append(f"            others can look into it; chmod 700 {root}")
    _listen(settings.address).close()
    if settings.address.startswith(UNIX):
        Path(settings.address.removeprefix(UNIX)).unlink(missing_ok=True)
    lines.append(f"listens on  {settings.address}")
    if not settings.address.startswith((UNIX, "127.", "[::1]", "localhost")):
        lines.append("            anybody who reaches this address can run jobs: the protocol knows no password")
    try:
        has = asyncio.run(_ping(settings))
    except BatchUnavailable as error:
        raise StartError(f"batch system {settings.batch}: does not answer: {error}{_hint(settings)}") from None
    lines.append(f"batch       {settings.batch}: {has}")
    lines.append(f"runtime     {_runtime(settings)}")
    if settings.runtime == "process":
        lines.append(f"supervisor  {_supervisor(settings)}")
    return lines


def _supervisor(settings: Settings) -> str:
    """Where pods get the supervisor from. Raises StartError where there is none."""
    if brings_kit(settings):
        return f"that of {sys.executable}, which compute nodes must have under the same path"
    folders = [Path(one[TARGET]) for one in settings.images.values() if TARGET in one]
    for folder in folders:
        if not (folder / "supervisor").is_file():
            raise StartError(f"images: {folder}: holds no supervisor; leave {TARGET} out of images for our own")
    return f"{', '.join(map(str, folders))} (setting images)"


def _runtime(settings: Settings) -> str:
    if settings.runtime == "process":
        return "process: containers are plain processes" + ("" if shutil.which("bwrap") else ", without bubblewrap")
    named = settings.runtime_command or settings.runtime
    others = ("singularity",) if settings.runtime == "apptainer" and not settings.runtime_command else ()
    found = next((path for name in (named, *others) if (path := shutil.which(name))), None)
    if found:
        return f"{named}: {found}"
    if settings.batch == "local":
        raise StartError(
            f"runtime {settings.runtime}: {' or '.join((named, *others))} is not on this machine, where jobs are to"
            f" run; install it, name it in runtime_command, or set runtime: process"
        )
    return f"{named}: is not on this machine's PATH; compute nodes must have it"


def _hint(settings: Settings) -> str:
    return "; is SLURM_CONF set?" if settings.batch == "slurm" and not os.environ.get("SLURM_CONF") else ""


async def _ping(settings: Settings) -> str:
    batch = batch_of(settings)
    try:
        has = await batch.ping()
    finally:
        await batch.close()
    gpus = ", ".join(f"{count} {kind}" for kind, count in has.accelerators.items())
    text = f"{has.cpus} cores, {has.memory / (1 << 30):.1f} GiB, {has.pods} jobs at most"
    return f"{text}, {gpus}" if gpus else text


def _listen(address: str) -> socket.socket:
    """A socket that is bound; one on the file system is its owner's alone. Raises StartError."""
    try:
        if address.startswith(UNIX):
            return _listen_unix(Path(address.removeprefix(UNIX)))
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)  # whoever reads the address below may connect at once
        return listener
    except OSError as error:
        raise StartError(f"listen: {address}: {error.strerror or error}") from None


def _listen_unix(path: Path) -> socket.socket:
    if path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
                raise StartError(f"listen: {UNIX}{path}: another process listens there")
            except ConnectionRefusedError:
                path.unlink()  # what a killed plugin left
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    listener.listen(BACKLOG)
    return listener


def _name(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{name}"
    return f"http://[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"http://{name[0]}:{name[1]}"
