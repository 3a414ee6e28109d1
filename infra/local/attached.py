"""A service's volume as its runs have it: where it is seen, and what it may hold.

Where runs have a file system of their own (a sandbox, a container) the volume is at `volume.mount_path`. A bare process
has the machine's: nothing can be put at such a path for it alone, and to let it go on would mean that it finds nothing
there, or writes into a folder of the machine's. It runs only where its script asks for the folder by the variable
DIOSCAR_VOLUME, which is there in every case.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from infra.local import trees
from infra.local.database import Database
from infra.local.executors import Ended
from infra.local.executors.limits import in_units
from infra.local.services import Deployed
from infra.local.volumes import folder_of, name_of, volume_of
from layers.runtime.contract import InputError

VARIABLE = "DIOSCAR_VOLUME"
FULL = 1
"""The exit status of a run that has left more in its volume than that may hold."""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine, and the path under which a run sees it."""

    folder: Path
    path: str

    @property
    def variables(self) -> Mapping[str, str]:
        """What the run is told of it."""
        return {VARIABLE: self.path}


def mount_of(data: Path, deployed: Deployed) -> Mount | None:
    """The volume of a service at the path that its FDL names, if it has one. Raises InputError where it has gone."""
    config = deployed.service.volume
    if config is None:
        return None
    folder = folder_of(data, deployed.owner, name_of(deployed.service, config))
    if not folder.is_dir():
        raise InputError(f'the volume "{folder.name}" is gone; make it anew, and deploy the service again')
    return Mount(folder, config.mount_path)


def bare(mount: Mount | None, deployed: Deployed) -> Mount | None:
    """The same for a process with the machine's own file system. Raises InputError where that will not do."""
    if mount is None or VARIABLE in deployed.service.script:
        return mount and replace(mount, path=str(mount.folder))
    raise InputError(
        f"volume.mount_path: nothing can be put at {mount.path} for a process without a sandbox; install bubblewrap "
        f"(infra/sandbox-env.sh), take dioscar/executor: container, or have the script use ${VARIABLE}"
    )


def belongs_to(mount: Mount, uid: int) -> None:
    """Have the files of a volume be of the user whom the next run is on this machine; only root can, and needs it."""
    if os.getuid() == 0 and mount.folder.stat().st_uid != uid:
        trees.give(mount.folder, uid, uid)


class Attached:
    """What the volumes of a cluster hold, looked at around each run."""

    def __init__(self, data: Path, database: Database) -> None:
        self._data = data
        self._database = database

    async def bounded(self, deployed: Deployed, run: Callable[[], Awaitable[Ended]]) -> Ended:
        """The end of a run; a failure where its volume holds more than it may, and not less than before the run.

        Raises OSError where what is in it cannot be counted.
        """
        volume = volume_of(self._database.read, deployed)
        if volume is None:
            return await run()
        folder = folder_of(self._data, deployed.owner, volume.name)
        before = await _held(folder)
        ended = await run()
        now = await _held(folder)
        if ended.code or now <= volume.bytes or now < before:
            return ended
        message = (
            f'the volume "{volume.name}" holds {in_units(now)}, more than its {in_units(volume.bytes)} (volume.size); '
            "remove files from it, or make a larger one"
        )
        return replace(ended, code=FULL, error="VolumeFull", message=message)


async def _held(folder: Path) -> int:
    try:
        return await asyncio.to_thread(trees.size_of, folder)
    except FileNotFoundError:
        return 0
