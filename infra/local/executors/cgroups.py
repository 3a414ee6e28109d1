"""Control groups for runs, where they are ours to make: memory, processor time and processes, limited by the kernel.

Version 1 wants one folder in each of three hierarchies, version 2 one folder. A run's groups stand below the cluster's
own, so that what limits the cluster limits its runs.
"""

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.executors.limits import MOST_PROCESSES, TOO_MANY, in_units

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
PERIOD_US = 100_000
V1 = {"memory": "memory", "cpu": "cpu", "pids": "pids"}
LEAVE_S = 2.0
"""How long what was killed may take to leave its group."""


@dataclass(frozen=True)
class Group:
    """The groups of one run: the same folder for all three in version 2."""

    folders: Mapping[str, Path]
    memory: int

    @property
    def doors(self) -> list[str]:
        """The files that a process writes its id to in order to be in the group."""
        return sorted({str(folder / "cgroup.procs") for folder in self.folders.values()})

    def out_of_memory(self) -> str:
        """A sentence, where the kernel has killed something of the run for its memory."""
        folder = self.folders["memory"]
        if not (_count(folder / "memory.oom_control", "oom_kill") or _count(folder / "memory.events", "oom_kill")):
            return ""
        return f"used up its {in_units(self.memory)} (memory in the FDL); give it more"

    def too_many(self) -> str:
        """A sentence, where the kernel has refused the run another process."""
        if not _count(self.folders["pids"] / "pids.events", "max"):
            return ""
        return TOO_MANY

    def remove(self) -> bool:
        """Remove what is empty; whether nothing is left."""
        left = [folder for folder in dict.fromkeys(self.folders.values()) if not _removed(folder)]
        return not left

    def close(self) -> None:
        """End what is in the group, and remove it."""
        deadline = time.monotonic() + LEAVE_S
        while not self.remove() and time.monotonic() < deadline:
            for folder in dict.fromkeys(self.folders.values()):
                for pid in _members(folder):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)


class Cgroups:
    """Makes the groups of one cluster's runs, below `parents` (one for each controller)."""

    def __init__(self, parents: Mapping[str, Path], *, unified: bool) -> None:
        self._parents = parents
        self._unified = unified

    @property
    def parents(self) -> list[Path]:
        """The folders that the groups of all runs stand in."""
        return list(dict.fromkeys(self._parents.values()))

    def group(self, name: str, *, memory: int, cpu: float) -> Group | None:
        """A group for a run; None where the kernel does not give one."""
        group = Group({controller: parent / name for controller, parent in self._parents.items()}, memory)
        quota = str(max(1000, round(cpu * PERIOD_US)))
        if self._unified:
            limits = {
                "memory": {"memory.max": str(memory)},
                "cpu": {"cpu.max": f"{quota} {PERIOD_US}"},
                "pids": {"pids.max": str(MOST_PROCESSES)},
            }
        else:
            limits = {
                "memory": {"memory.limit_in_bytes": str(memory)},
                "cpu": {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota},
                "pids": {"pids.max": str(MOST_PROCESSES)},
            }
        try:
            for controller, values in limits.items():
                group.folders[controller].mkdir(parents=True, exist_ok=True)
                for file, value in values.items():
                    (group.folders[controller] / file).write_text(value)
        except OSError:
            group.close()
            return None
        swap = "memory.swap.max" if self._unified else "memory.memsw.limit_in_bytes"
        with contextlib.suppress(OSError):  # where the kernel counts swap
            (group.folders["memory"] / swap).write_text("0" if self._unified else str(memory))
        return group

    def clear(self) -> None:
        """End what an earlier process left in its groups, and remove them."""
        for parent in self.parents:
            for folder in parent.iterdir():
                if folder.is_dir():
                    Group({"any": folder}, 0).close()

    def close(self) -> None:
        """Give the groups back."""
        self.clear()
        for parent in self.parents:
            _removed(parent)


def cgroups_for(data: Path, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Cgroups | None:
    """The control groups of the cluster with this data folder; None where they are not ours to make."""
    name = f"dioscar-{hashlib.sha256(str(data).encode()).hexdigest()[:16]}"
    try:
        own = dict(_memberships(membership.read_text()))
    except OSError:
        return None
    version_1 = all(controller in own for controller in V1)
    try:
        if version_1:
            parents = {controller: _below(root / folder, own[controller]) / name for controller, folder in V1.items()}
            for parent in parents.values():
                parent.mkdir(exist_ok=True)
        elif "" in own:
            parents = dict.fromkeys(V1, _delegated(_below(root, own[""]), name))
        else:
            return None
    except OSError:
        return None
    groups = Cgroups(parents, unified=not version_1)
    groups.clear()
    trial = groups.group("trial", memory=64 << 20, cpu=1.0)
    if trial is None:
        groups.close()
        return None
    trial.close()
    return groups


def _delegated(own: Path, name: str) -> Path:
    """Version 2: a group below ours that may have groups below it. Only leaves have processes, so we move into one."""
    controllers = "+memory +cpu +pids"
    if not {"memory", "cpu", "pids"} <= set((own / "cgroup.controllers").read_text().split()):
        raise PermissionError(str(own))
    leaf = own / f"{name}-cluster"
    leaf.mkdir(exist_ok=True)
    (leaf / "cgroup.procs").write_text(str(os.getpid()))
    parent = own / name
    try:
        (own / "cgroup.subtree_control").write_text(controllers)
        parent.mkdir(exist_ok=True)
        (parent / "cgroup.subtree_control").write_text(controllers)
    except OSError:  # somebody else's processes are in our group
        (own / "cgroup.procs").write_text(str(os.getpid()))
        _removed(leaf)
        raise
    return parent


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """Which group we are in, for each controller (version 2: the empty one)."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _below(root: Path, path: str) -> Path:
    """The folder of a group; within a container, whose own group may be mounted as the root, that."""
    folder = root / path.lstrip("/")
    return folder if folder.is_dir() else root


def _members(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _count(file: Path, name: str) -> int:
    """A figure of a file that has one in each line."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[:1] == [name])
