"""A sandbox for runs, made by bubblewrap: the system read-only, of the data folder only what is the run's, no network.

It needs no privileges where the kernel allows user namespaces. The run is uid 1000 in there, without capabilities,
whoever the cluster is; other processes, other users' files and the machine's secrets are not visible to it.
"""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from infra.local.attached import Mount

SETTING = "DIOSCAR_SANDBOX"
MODES = ("auto", "off", "require")
UID = 1000
SOFTWARE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store")
"""Folders of installed software."""
CONFIGURATION = (
    *("alternatives", "fonts", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types"),
    *("nsswitch.conf", "pki/ca-trust", "pki/tls/certs", "protocols", "resolv.conf", "services", "ssl/certs"),
    *("ssl/openssl.cnf", "timezone"),
)
"""Of `/etc`, what programs look for and holds no secret."""
TOPOLOGY = ("/sys/devices/system/cpu", "/sys/devices/system/node")
"""Where numerical libraries look for the number of cores."""
ROOMS = ("functions", "layers", "fdl", "events")
PROBE_S = 10.0

log = logging.getLogger("dioscar.jobs")


class Sandbox:
    """Wraps the commands of one cluster's runs."""

    def __init__(self, data: Path, program: str) -> None:
        self._data = data
        self._home = data / "home"
        self._program = program
        self._fixed: list[str] = []
        self._flags: tuple[str, ...] = ()

    def prepare(self) -> str:
        """Find what works here; empty, or why nothing does."""
        accounts = self._data / "sandbox"
        accounts.mkdir(mode=0o700, exist_ok=True)
        passwd, group = accounts / "passwd", accounts / "group"
        passwd.write_text(f"dioscar:x:{UID}:{UID}::{self._home}:/bin/sh\n", encoding="utf-8")
        group.write_text(f"dioscar:x:{UID}:\n", encoding="utf-8")
        self._fixed = [*_system(), *_bound("--ro-bind", {passwd: "/etc/passwd", group: "/etc/group"}), *_python()]
        why = ""
        for self._flags in (("--disable-userns",), ()):  # older versions do not know the flag
            try:
                ended = subprocess.run(
                    self.wrap(["true"], [], memory=1 << 20, network=False),
                    check=False,
                    capture_output=True,
                    stdin=subprocess.DEVNULL,
                    timeout=PROBE_S,
                    text=True,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            if ended.returncode == 0:
                return ""
            why = ended.stderr.strip() or f"{self._program} ended with status {ended.returncode}"
        return why.splitlines()[-1]

    def wrap(
        self,
        command: Sequence[str],
        own: Iterable[Path],
        *,
        memory: int,
        network: bool,
        readable: Iterable[Path] = (),
        home: Path | None = None,
        mount: Mount | None = None,
    ) -> list[str]:
        """`command` in a sandbox in which the folders `own` are writable, `readable` can be read, and `home` is HOME.
        A volume to `mount` is writable at its path, which the sandbox `takes`.
        The outermost process ignores SIGTERM, which ends the sandbox with it; in there it means what it always does.
        """
        room = ["--size", str(max(memory, 1 << 20))]
        arguments = ["--unshare-all", *(["--share-net"] if network else []), "--unshare-user", *self._flags]
        arguments += ["--uid", str(UID), "--gid", str(UID), "--die-with-parent"]
        arguments += ["--proc", "/proc", "--dev", "/dev", *room, "--tmpfs", "/dev/shm", *room, "--tmpfs", "/tmp"]  # noqa: S108
        arguments += [*self._fixed, *([] if mount is None else ["--bind", str(mount.folder), mount.path])]
        arguments += ["--tmpfs", str(self._data)]
        arguments += _bound("--bind", {folder: str(folder) for folder in own})
        arguments += _bound("--ro-bind", {file: str(file) for file in readable})
        if home is not None:
            arguments += _bound("--bind", {home: str(self._home)})
        arguments += ["--remount-ro", str(self._data), "--remount-ro", "/"]
        inside = ["env", "--default-signal=TERM", *command]
        return ["/bin/sh", "-c", 'trap "" TERM; exec "$@"', "sh", self._program, *arguments, "--", *inside]

    def takes(self, path: str) -> bool:
        """Whether something can be put at `path`: nothing of the sandbox's own is in the way, nor would be hidden."""
        wanted = Path(path)
        own = [Path(target) for target in (*self._fixed[2::3], "/etc", "/sys", "/proc", "/dev", str(self._data))]
        hidden = any(one.is_relative_to(wanted) for one in (*own, Path("/tmp")))  # noqa: S108
        return not hidden and not any(wanted.is_relative_to(one) for one in own)


def sandbox_for(data: Path, environ: Mapping[str, str]) -> Sandbox | None:
    """The sandbox of a cluster, as DIOSCAR_SANDBOX wants it: `auto` (where it works), `off` or `require`.

    Raises ValueError where it is required and does not work.
    """
    mode = environ.get(SETTING, "").strip().lower() or "auto"
    if mode not in MODES:
        raise ValueError(f'{SETTING}: "{mode}" is none of {", ".join(MODES)}; write "auto"')
    if mode == "off":
        return None
    program = shutil.which("bwrap")
    sandbox = Sandbox(data, program or "bwrap")
    why = sandbox.prepare() if program else "there is no bwrap; install bubblewrap"
    if not why:
        return sandbox
    if mode == "require":
        raise ValueError(f'{SETTING}: is "require", and bubblewrap does not work here ({why})')
    log.warning("runs are not sandboxed: %s", why)
    return None


def status_of(code: int) -> int:
    """A sandbox's exit status as that of the process in it, which may have died of a signal (negative)."""
    return 128 - code if 128 < code < 192 else code


def _bound(option: str, paths: Mapping[Path, str]) -> list[str]:
    return [word for source, target in paths.items() for word in (option, str(source), target)]


def _system() -> Iterator[str]:
    for name in SOFTWARE:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
    for name in (*(f"/etc/{name}" for name in CONFIGURATION), *TOPOLOGY):
        if Path(name).exists():
            yield from ("--ro-bind", name, name)
    yield from ("--symlink", "/tmp", "/var/tmp")  # noqa: S108


def _python() -> Iterator[str]:
    """This Python, its packages, the rooms that functions import, and the twins that the cluster's PYTHONPATH names."""
    rooms = {Path(found).resolve() for room in ROOMS for found in _folders(room)}
    houses = {room.parent for room in rooms}
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    folders = {Path(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix, *given, *sys.path) if path}
    wanted = {folder.resolve() for folder in folders if folder.is_dir()}
    visible = [Path(name) for name in SOFTWARE]
    for path in sorted((wanted - houses) | rooms | {Path(part).resolve() for part in given}):
        if path != Path("/") and not any(map(path.is_relative_to, visible)):
            visible.append(path)
            yield from ("--ro-bind-try", str(path), str(path))


def _folders(room: str) -> Sequence[str]:
    spec = importlib.util.find_spec(room)
    return list(spec.submodule_search_locations or ()) if spec else []
