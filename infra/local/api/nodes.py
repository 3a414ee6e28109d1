"""The interLink nodes as `/system/status` shows them: what their plugins say of themselves.

The node that is this machine is not among them: the machine is there already.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fdl.quantities import parse_cpu, parse_memory
from infra.local.interlink.client import PluginAway, PluginRefused
from infra.local.interlink.executor import Interlink

PATIENCE_S = 3.0
FRESH_S = 10.0
MILLI = 1000


class Nodes:
    """Asks each plugin at most once in ten seconds."""

    def __init__(self, interlink: Interlink | None) -> None:
        self._interlink = interlink
        self._seen: tuple[float, list[dict[str, Any]]] = float("-inf"), []

    async def shown(self) -> list[dict[str, Any]]:
        """Each node with its capacity, as far as its plugin tells, and whether it is ready."""
        when, nodes = self._seen
        if self._interlink is None or time.monotonic() - when < FRESH_S:
            return nodes
        names = [name for name, node in self._interlink.nodes.items() if not node.is_own]
        nodes = list(await asyncio.gather(*(_asked(self._interlink, name) for name in names)))
        self._seen = time.monotonic(), nodes
        return nodes


async def _asked(interlink: Interlink, name: str) -> dict[str, Any]:
    said: Mapping[str, Any] = {}
    ready = False
    with suppress(PluginAway, PluginRefused, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            said = await interlink.ping(name)
            ready = True
    resources = said.get("resources")
    resources = resources if isinstance(resources, dict) else {}
    cpu, memory = {}, {}
    with suppress(ValueError, TypeError, KeyError):
        cpu = {"capacity_cores": int(parse_cpu(resources["cpu"]) * MILLI)}
    with suppress(ValueError, TypeError, KeyError):
        memory = {"capacity_bytes": int(parse_memory(resources["memory"]))}
    return {
        "name": name,
        "cpu": cpu,
        "memory": memory,
        "gpu": _gpus(resources.get("accelerators")),
        "is_interlink": True,
        "status": "Ready" if ready else "NotReady",
        "conditions": [{"type": "Ready", "status": ready}],
    }


def _gpus(accelerators: Any) -> int:
    total = 0
    for one in accelerators if isinstance(accelerators, list) else ():
        with suppress(ValueError, TypeError, KeyError):
            total += int(one["available"])
    return total
