"""What a run is confined by, as far as this machine can: a sandbox, and control groups."""

import asyncio
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fdl.quantities import parse_cpu
from infra.local.attached import Mount, bare, belongs_to, mount_of
from infra.local.executors import Ended, limits
from infra.local.executors.cgroups import Cgroups, Group, cgroups_for
from infra.local.executors.homes import Homes
from infra.local.executors.sandbox import SETTING, Sandbox, sandbox_for, status_of
from infra.local.services import Deployed
from layers.runtime.contract import InputError

JOIN = 'doors=$1; shift; for door in $doors; do echo $$ >"$door" || exit 126; done; exec "$@"'

log = logging.getLogger("dioscar.jobs")


@dataclass(frozen=True)
class Confined:
    """One process that is about to be confined: the command that starts it so, and how its end is to be understood."""

    command: Sequence[str]
    sandboxed: bool = False
    group: Group | None = None

    def status(self, code: int) -> int:
        """The exit status of the process as that of what was confined."""
        return status_of(code) if self.sandboxed else code

    def explain(self, ended: Ended) -> Ended:
        """How it ended, or that the kernel had a hand in it."""
        if self.group is None or ended.code == 0:
            return ended
        if why := self.group.out_of_memory():
            return Ended(limits.OUT_OF_MEMORY, "OutOfMemory", why)
        if why := self.group.too_many():
            return Ended(ended.code, "TooManyProcesses", why)
        return ended

    def close(self) -> None:
        """Give back what the process had, once it has ended."""
        if self.group is not None and not self.group.remove():
            asyncio.get_running_loop().run_in_executor(None, self.group.close)


class Confinement:
    """How the processes of one cluster's runs are confined."""

    def __init__(self, homes: Homes, sandbox: Sandbox | None = None, cgroups: Cgroups | None = None) -> None:
        self.homes = homes
        self._sandbox = sandbox
        self._cgroups = cgroups

    @property
    def sandboxed(self) -> bool:
        """Whether runs see of the machine only what is theirs."""
        return self._sandbox is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """What there is of it."""
        return (*(["bubblewrap"] if self._sandbox else []), *(["cgroups"] if self._cgroups else []))

    def volume(self, data: Path, deployed: Deployed) -> Mount | None:
        """The volume of a service as its processes will see it. Raises InputError where they cannot."""
        mount = mount_of(data, deployed)
        if mount is None or self._sandbox is None:
            return bare(mount, deployed)
        if not self._sandbox.takes(mount.path):
            raise InputError(
                f"volume.mount_path: {mount.path} is where the sandbox has the machine's software, or above it; take "
                "another path, such as /mnt/data, or dioscar/executor: container"
            )
        belongs_to(mount, os.getuid())
        return mount

    def confine(
        self,
        command: Sequence[str],
        deployed: Deployed,
        mark: str,
        own: Iterable[Path],
        readable: Iterable[Path] = (),
        *,
        network: bool = False,
        mount: Mount | None = None,
    ) -> Confined:
        """Confine a process of a service: it may write to the folders `own`, and read the files `readable`.

        It has the volume that `mount` is, as `volume` has found it.
        `network`: it is on the network of the machine, whatever its annotations say.
        """
        if self._sandbox:
            own = list(own)
            for folder in own:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            command = self._sandbox.wrap(
                command,
                own,
                memory=deployed.memory,
                network=network or deployed.settings.network,
                readable=readable,
                home=self.homes.of(deployed.name),
                mount=mount,
            )
        group = None
        if self._cgroups:
            cpu = float(parse_cpu(deployed.service.cpu))
            group = self._cgroups.group(mark, memory=deployed.memory, cpu=cpu)
            if group is not None:
                command = ["/bin/sh", "-c", JOIN, "sh", " ".join(group.doors), *command]
        return Confined(command, self._sandbox is not None, group)

    def forget(self, service: str) -> None:
        """A service has gone, and with it what its runs kept."""
        if (gone := self.homes.forget(service)) is not None:
            asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, gone, True)

    def close(self) -> None:
        """Nothing runs any more."""
        if self._cgroups:
            self._cgroups.close()


def confinement_for(data: Path, environ: Mapping[str, str], services: Iterable[str]) -> Confinement:
    """What can be had here, within what DIOSCAR_SANDBOX and DIOSCAR_LIMITS say. Raises ValueError."""
    sandbox = sandbox_for(data, environ)
    homes = Homes(data)
    homes.keep(services)
    wanted = limits.are_on(environ) and environ.get(SETTING, "").strip().lower() != "off"
    confinement = Confinement(homes, sandbox, cgroups_for(data) if wanted else None)
    log.info("runs are confined by %s", " and ".join(confinement.parts) or "nothing but their memory")
    return confinement
