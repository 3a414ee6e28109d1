"""`/system/status`: the machine as a node, those that interLink adds, the cluster's jobs, and its objects.

The names of the fields are OSCAR's; its "cores" are thousandths of one.
"""

import asyncio
import os
import platform
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fdl.quantities import parse_cpu
from infra.local import history
from infra.local.api.nodes import Nodes
from infra.local.api.replies import json_reply
from infra.local.engine import Engine
from infra.local.jobs import OSCAR_PHASES, State
from infra.local.users.users import Users

INTERVAL_S = 0.1
"""How long the processors are watched to tell how busy they are."""
FRESH_S = 1.0
"""For how long what was seen is told again."""
MILLI = 1000


class StatusRoutes:
    """What OSCAR asks Kubernetes and its metrics server for."""

    def __init__(self, engine: Engine, users: Users | None = None) -> None:
        self._engine = engine
        self._oidc = None if users is None else users.settings
        self._nodes = Nodes(engine.interlink)
        self._began = time.time()
        self._seen: tuple[float, int] = 0.0, 0

    async def status(self, request: Request) -> Response:
        """Three objects: `cluster`, `oscar` and, for the administrator, `minio`."""
        admin: bool = request.state.user.is_admin or request.state.user.oversees
        return json_reply({"cluster": await self._cluster(), "oscar": self._oscar(admin), "minio": self._minio(admin)})

    async def _cluster(self) -> dict[str, Any]:
        cores = len(os.sched_getaffinity(0)) * MILLI
        used = min(cores, await self._used())
        memory, available = _memory()
        asked_cores, asked_bytes = self._asked()
        free, schedulable = cores - used, max(0, cores - asked_cores)
        roomy = max(0, memory - asked_bytes)
        node = {
            "name": platform.node() or "localhost",
            "cpu": _nonzero({"capacity_cores": cores, "usage_cores": used, "request_cores": asked_cores}),
            "memory": _nonzero(
                {"capacity_bytes": memory, "usage_bytes": memory - available, "request_bytes": asked_bytes}
            ),
            "gpu": 0,
            "is_interlink": False,
            "status": "Ready",
            "conditions": [{"type": "Ready", "status": True}],
        }
        nodes = [node, *await self._nodes.shown()]
        return {
            "nodes_count": len(nodes),
            "metrics": {
                "cpu": {
                    "total_free_cores": free,
                    "max_free_on_node_cores": free,
                    "total_schedulable_cores": schedulable,
                    "total_schedulable_on_node_cores": schedulable,
                },
                "memory": {
                    "total_free_bytes": available,
                    "max_free_on_node_bytes": available,
                    "total_schedulable_bytes": roomy,
                    "max_schedulable_on_node_bytes": roomy,
                },
                "gpu": {"total_gpu": 0},
            },
            "nodes": nodes,
        }

    def _oscar(self, admin: bool) -> dict[str, Any]:
        jobs = history.counts(self._engine.database.read) if admin else {}
        states = dict.fromkeys(("Pending", "Running", "Succeeded", "Failed", "Unknown"), 0) if admin else {}
        for state, count in jobs.items():
            states[OSCAR_PHASES[State(state)]] += count
        return {
            "deployment_name": "oscar",
            "ready": True,
            "deployment": {
                "available_replicas": 1,
                "ready_replicas": 1,
                "replicas": 1,
                "creation_timestamp": datetime.fromtimestamp(self._began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "strategy": "Recreate",
                "labels": {"app": "oscar"},
            },
            "jobs_count": sum(jobs.values()),
            "pods": {"total": sum(jobs.values()), "states": states},
            "oidc": {
                "enabled": self._oidc is not None,
                "issuers": list(self._oidc.issuers) if self._oidc else [],
                "groups": list(self._oidc.groups) if self._oidc else [],
            },
        }

    def _minio(self, admin: bool) -> dict[str, int]:
        if not admin:
            return {"buckets_count": 0, "total_objects": 0}
        return {"buckets_count": len(self._engine.store.buckets()), "total_objects": self._engine.store.totals()[0]}

    def _asked(self) -> tuple[int, int]:
        """What the FDLs of the running jobs ask for: thousandths of a core, and bytes."""
        cores, memory = Decimal(0), 0
        interlink = self._engine.interlink
        for service, state, count in history.open_counts(self._engine.database.read):
            deployed = self._engine.services.get(service)
            away = deployed is not None and interlink is not None and interlink.is_elsewhere(deployed)
            if deployed is not None and state == State.RUNNING and not away:
                cores += count * parse_cpu(deployed.service.cpu)
                memory += count * deployed.memory
        return int(cores * MILLI), memory

    async def _used(self) -> int:
        """Thousandths of a core that all of the machine uses now."""
        when, used = self._seen
        if time.monotonic() - when > FRESH_S:
            before = _busy_s()
            await asyncio.sleep(INTERVAL_S)
            used = max(0, int(MILLI * (_busy_s() - before) / INTERVAL_S))
            self._seen = time.monotonic(), used
        return used


def _busy_s() -> float:
    """Processor time of the machine since it started, without what it was idle."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, interrupts, soft, stolen = map(int, fields)
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _memory() -> tuple[int, int]:
    """All of the machine's memory and what is available of it, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total, available


def _nonzero(values: dict[str, int]) -> dict[str, int]:
    """OSCAR leaves out what is nothing."""
    return {name: value for name, value in values.items() if value}
