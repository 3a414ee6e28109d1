"""Settings of the embedded engine, kept in annotations: real OSCAR stores them and pays no attention."""

from collections.abc import Mapping
from dataclasses import dataclass

from fdl.errors import quoted
from fdl.names import did_you_mean

PREFIX = "dioscar/"
EXECUTORS = ("warm", "process", "container")
ON_NODES = ("nodes", "tasks-per-node", "gpus-per-node")
"""`dioscar/nodes` and so on: how many ranks a job has on an HPC node, which is for the plugin there to read."""
BOOLEANS = {"true": True, "false": False}
DIGITS = 9


@dataclass(frozen=True)
class EngineSettings:
    """How the embedded cluster treats a service's jobs."""

    retries: int = 3
    """`dioscar/retries`: attempts after the first one, before a job is dead."""
    timeout_s: int | None = None
    """`dioscar/timeout`: whole seconds after which an attempt is killed; none by default."""
    concurrency: int | None = None
    """`dioscar/concurrency`: jobs of the service that run at once; the engine's choice by default."""
    executor: str | None = None
    """`dioscar/executor`: `warm`, `process` or `container`; by default `warm` where the script is `fdl/function.sh`."""
    network: bool = False
    """`dioscar/network`: whether its jobs may use the network, where that is closed to jobs."""
    idle_s: int | None = None
    """`dioscar/idle`: whole seconds without a request, after which an exposed service of `min_scale: 0` is stopped."""
    loop: tuple[str, ...] = ()
    """`dioscar/loop`: mailboxes (`bucket/folder`, comma-separated) to which a forward may close a cycle."""


def engine_settings(annotations: Mapping[str, str]) -> EngineSettings:
    """Read the annotations that begin with `dioscar/`; unknown ones are left alone.

    Raises ValueError, naming annotation and mend.
    """
    values = {name.removeprefix(PREFIX): text for name, text in annotations.items() if name.startswith(PREFIX)}
    executor = values.get("executor")
    if executor is not None and executor not in EXECUTORS:
        mend = did_you_mean(executor, EXECUTORS) or EXECUTORS[0]
        raise ValueError(f'dioscar/executor: {quoted(executor)} is none of {", ".join(EXECUTORS)}; write "{mend}"')
    for name in ON_NODES:
        if name in values:
            _whole(name, values[name], least=1)
    return EngineSettings(
        retries=_whole("retries", values.get("retries", "3"), least=0),
        timeout_s=_whole("timeout", values["timeout"], least=1) if "timeout" in values else None,
        concurrency=_whole("concurrency", values["concurrency"], least=1) if "concurrency" in values else None,
        executor=executor,
        network=_boolean("network", values.get("network", "false")),
        idle_s=_whole("idle", values["idle"], least=1) if "idle" in values else None,
        loop=tuple(target.strip(" /") for target in values.get("loop", "").split(",") if target.strip(" /")),
    )


def check_known(annotations: Mapping[str, str]) -> None:
    """Raises ValueError for an annotation `dioscar/...` that the engine would not understand, with the nearest one."""
    own = ("retries", "timeout", "concurrency", "executor", "network", "idle", "loop")
    known = [PREFIX + name for name in (*own, *ON_NODES)]
    for name in annotations:
        if name.startswith(PREFIX) and name not in known:
            mend = did_you_mean(name, known)
            mend = f'write "{mend}"' if mend else "the known ones are " + ", ".join(known)
            raise ValueError(f"{name} is no annotation that the engine knows; {mend}")


def _boolean(name: str, text: str) -> bool:
    if text not in BOOLEANS:
        mend = "true" if text.strip().lower() in ("true", "yes", "on", "1") else "false"
        raise ValueError(f'dioscar/{name}: {quoted(text)} is neither true nor false; write "{mend}"')
    return BOOLEANS[text]


def _whole(name: str, text: str, *, least: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= DIGITS and int(text) >= least:
        return int(text)
    digits = "".join(character for character in text if character in "0123456789").lstrip("0")
    mend = digits[:DIGITS] or str(max(3, least))
    raise ValueError(f'dioscar/{name}: {quoted(text)} is no whole number from {least} up; write "{mend}"')
