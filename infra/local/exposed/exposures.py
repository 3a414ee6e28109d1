"""All exposed services of a cluster: they follow what is deployed."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import fdl
from infra.local.executors.confinement import Confinement
from infra.local.executors.container import chosen_executor
from infra.local.executors.limits import Limits
from infra.local.exposed.instance import Instance, folder_of
from infra.local.exposed.ports import Ports
from infra.local.exposed.upstream import Upstream
from infra.local.services import Services


class Exposures:
    """Keeps an `Instance` for each service that is exposed; belongs to the event loop that starts it."""

    def __init__(self, data: Path, services: Services) -> None:
        self._data = data
        self._services = services
        self._instances: dict[str, Instance] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ports = Ports()
        self._function_script = (Path(fdl.__file__).parent / "function.sh").read_text(encoding="utf-8")
        self._bounds: tuple[Limits, Confinement] | None = None
        self._demanded: str | None = None
        self.upstream: Upstream

    def start(self, limits: Limits, confinement: Confinement) -> None:
        """Run what is deployed; what an earlier process of the cluster left has been ended before."""
        self._bounds = (limits, confinement)
        self.upstream = Upstream()
        self._demanded = chosen_executor(os.environ)
        self._services.on_change.append(self._follow)
        for deployed in self._services.all():
            self._follow(deployed.name)
        kept = {folder_of(self._data, deployed) for deployed in self._services.all()}
        with contextlib.suppress(OSError):  # of those that are made from now on, none is one of these
            gone = [folder for folder in (self._data / "exposed").iterdir() if folder not in kept]
            self._later(asyncio.to_thread(_remove, gone))

    async def stop(self) -> None:
        """Let requests under way end, then end every process."""
        if self._bounds is None:
            return
        self._services.on_change.remove(self._follow)
        await asyncio.gather(*(instance.close(remove=False) for instance in self._instances.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.upstream.close()

    def get(self, name: str) -> Instance | None:
        """The exposed service of that name."""
        return self._instances.get(name)

    def _follow(self, name: str) -> None:
        """A service has come, changed or gone."""
        assert self._bounds is not None
        deployed, instance = self._services.get(name), self._instances.get(name)
        stays = deployed is not None and deployed.service.exposed
        if instance is not None and (deployed is None or not stays or deployed.token != instance.deployed.token):
            self._later(self._instances.pop(name).close(remove=True))
            instance = None
        if deployed is None or not stays:
            return
        app = deployed.service.script == self._function_script and "DIOSCAR_FUNCTION" in deployed.variables
        if instance is not None:
            self._later(instance.replace(deployed, app=app))
        else:
            new = self._instances[name] = Instance(
                deployed, self._data, self._bounds, self.upstream, self._ports, app=app, demanded=self._demanded
            )
            self._later(new.restart())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
