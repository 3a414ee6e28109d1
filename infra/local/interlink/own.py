"""Our own plugin on this machine: a child of the cluster with a socket in the data folder, jobs as plain processes.

It is started when it is first needed and again when it has died; its jobs outlive it, and the cluster too.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

from infra.hpc.kit import make_kit
from infra.local.interlink.client import Plugin, PluginAway, PluginRefused
from infra.local.interlink.nodes import UNIX

MODULE = "infra.hpc"
SOCKET = "hpc.sock"
STARTS_S = 60.0
LONGEST_SOCKET = 100
"""Bytes: the kernel takes 107 of a socket's path."""
PASSED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
SETTINGS = "DIOSCAR_HPC_"

log = logging.getLogger("dioscar.interlink")


class OwnPlugin:
    """The process, from the point of view of the one cluster that uses it."""

    def __init__(self, data: Path, environ: Mapping[str, str]) -> None:
        self._folder = data / "interlink"
        self._environ = environ
        self._starting = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._socket = self._listens = self._folder / SOCKET
        if len(str(self._socket).encode()) > LONGEST_SOCKET:
            # the same place by a short name, not another place: in a folder of all, another user could be there first
            held = os.open(data, os.O_PATH | os.O_DIRECTORY)
            weakref.finalize(self, os.close, held)
            self._socket = Path(f"/proc/self/fd/{held}", self._folder.name, SOCKET)
            self._listens = Path("/proc/self/cwd", SOCKET)

    @property
    def url(self) -> str:
        """Where it listens, as this process names it."""
        return f"{UNIX}{self._socket}"

    @property
    def log(self) -> Path:
        """What it prints."""
        return self._folder / "hpc.log"

    async def ensure(self, plugin: Plugin) -> None:
        """Have it answer: found from before, or started. Raises PluginAway where it does not come."""
        async with self._starting:
            if await _answers(plugin):
                return
            await self._start()
            end = time.monotonic() + STARTS_S
            while not await _answers(plugin):
                if self._child is not None and self._child.returncode is not None:
                    raise PluginAway(f"it has ended at once: {self._last_words()}")
                if time.monotonic() > end:
                    raise PluginAway(f"it does not answer; see {self.log}")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it; its jobs go on, and the next start finds them."""
        async with self._starting:
            pid = self._running()
            if pid is not None:
                await self._end(pid)
            if self._child is not None:  # one that has ended, by itself too, is still to be collected
                with contextlib.suppress(ProcessLookupError):
                    self._child.kill()  # where its number is lost; of one that has ended it does nothing
                await self._child.wait()
                self._child = None

    async def _end(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while self._running() is not None and time.monotonic() < end:
            if self._child is not None and self._child.pid == pid:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._child.wait(), 0.1)
            else:
                await asyncio.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            if self._running() == pid:
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)

    async def _start(self) -> None:
        for folder in (self._folder, self._root, self._folder / "checkpoints"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kit = make_kit(self._folder / "kit", self._environ)
        settings = {
            "ROOT": str(self._root),
            "LISTEN": f"{UNIX}{self._listens}",
            "BATCH": "local",
            "RUNTIME": "process",
            "IMAGES": json.dumps({"*supervisor*": {"/supervisor": str(kit)}}),
            "CHECKPOINTS": str(self._folder / "checkpoints"),
            "POLL": "0.2",
        }
        environ = {name: self._environ[name] for name in PASSED if name in self._environ}
        environ |= {name: value for name, value in self._environ.items() if name.startswith(SETTINGS)}
        environ |= {f"{SETTINGS}{name}": value for name, value in settings.items()}
        with self.log.open("ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                MODULE,
                cwd=self._folder,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._pid_file.write_text(str(self._child.pid), encoding="utf-8")
        log.info("started the interLink plugin of this machine (process %d)", self._child.pid)

    @property
    def _root(self) -> Path:
        return self._folder / "pods"

    @property
    def _pid_file(self) -> Path:
        return self._folder / "hpc.pid"

    def _running(self) -> int | None:
        """The process, if it is there and ours: numbers are used again."""
        try:
            pid = int(self._pid_file.read_text(encoding="utf-8"))
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if f"{SETTINGS}ROOT={self._root}".encode() in environ else None

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return lines[-1][:500] if lines else f"see {self.log}"
        return f"see {self.log}"


async def _answers(plugin: Plugin) -> bool:
    try:
        await plugin.ping()
    except PluginAway:
        return False
    except PluginRefused:
        return True  # it is there, whatever its batch system does
    return True
