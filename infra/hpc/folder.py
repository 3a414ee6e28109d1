"""A pod's folder, `<root>/<namespace>-<uid>/`: what the plugin keeps there, and what the job's script leaves there.

The script writes, for each container and init container: `<name>.log` (appended to, so that a pod that runs again
goes on in the same log), `<name>.started` and `<name>.finished` (seconds since 1970) and `<name>.status` (the exit
code). These three are written whole, under another name first, and `.status` last: where it stands, the others do.
A script that finds another run of the same submission at work ends at once and touches nothing (see `CLAIM`).
"""

import os
import re
from pathlib import Path

RECORD = "pod.json"
"""The plugin's own record of the pod; no script touches it."""

CLAIM = "claim"
"""A folder that a script makes (`mkdir`, which is atomic) before it touches anything, with its job id in `claim/job`;
one that finds it made by another job exits with 0. The plugin removes it before it submits the pod again."""

OUTPUT = "job.out"
"""What the job itself says, beside its containers: the batch system's own output file."""

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label, as Kubernetes names namespaces and containers; a pod's uid is one, too."""

KEPT = (".log", ".times", ".status", ".started", ".finished")
"""The endings of what is kept of a pod that has ended."""


def pod_folder(root: Path, namespace: str, uid: str) -> Path:
    """The folder of a pod; both parts are DNS labels."""
    return root / f"{namespace}-{uid}"


def file_of(folder: Path, container: str, ending: str) -> Path:
    """A container's file of an ending: `log`, `status`, `started`, `finished`, or `times`, which is the plugin's."""
    return folder / f"{container}.{ending}"


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a private file so that it is there as a whole or not at all; where `durable`, also after a power cut."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - it has a mode of its own
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
