"""All executors of a cluster, and which of them runs a service."""

import asyncio
import os
from pathlib import Path

import fdl
from fdl.engine import EXECUTORS
from infra.local.executors import Executor
from infra.local.executors.confinement import Confinement, confinement_for
from infra.local.executors.container import ContainerExecutor, chosen_executor
from infra.local.executors.limits import Limits, are_on
from infra.local.executors.process import ProcessExecutor
from infra.local.executors.warm import WarmExecutor
from infra.local.services import Deployed
from infra.local.workspace import Scratch


class Executors:
    """The executors, with what confines the processes that they start; belongs to one event loop."""

    def __init__(self, data: Path, limits: Limits, confinement: Confinement, scratch: Scratch) -> None:
        self.limits = limits
        self.confinement = confinement
        self.warm = WarmExecutor(data, limits, confinement, scratch.folders)
        self._process = ProcessExecutor(data, limits, confinement)
        self._container = ContainerExecutor(data, limits, confinement.homes, os.environ)
        self._demanded = chosen_executor(os.environ)
        self._function_script = (Path(fdl.__file__).parent / "function.sh").read_text(encoding="utf-8")

    def of(self, deployed: Deployed) -> Executor:
        """What the FDL asks for or the cluster demands; `warm` only where the script is ours, byte for byte."""
        asked = (deployed.settings.executor, self._demanded)
        chosen = max(asked, key=lambda name: EXECUTORS.index(name) if name else -1)
        if chosen == "container":
            return self._container
        ours = deployed.service.script == self._function_script and "DIOSCAR_FUNCTION" in deployed.variables
        return self.warm if ours and chosen != "process" else self._process

    def forget(self, service: str, *, gone: bool) -> None:
        """A service has changed, or is gone."""
        self.warm.forget(service)
        if gone:
            self.confinement.forget(service)

    async def close(self) -> None:
        """End what is left of processes."""
        await self.warm.close()
        await self._process.close()
        await self._container.close()
        await self.limits.close()
        self.confinement.close()


async def start_executors(data: Path, services: list[str], scratch: Scratch) -> Executors:
    """The executors of a cluster with these services, once it is known what this machine can confine."""
    confinement = await asyncio.to_thread(confinement_for, data, os.environ, services)
    return Executors(data, Limits(memory=are_on(os.environ)), confinement, scratch)
