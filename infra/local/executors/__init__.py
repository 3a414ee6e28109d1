"""How a run becomes processes: `process` starts the script, `warm` keeps a worker, `container` uses an image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from infra.local.services import Deployed
from infra.local.workspace import Workspace


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: its exit status (negative: the signal), and the sentence that says why.

    `files` is what it left, where that has travelled without files; None: it stands in the workspace. `printed` is
    the end of a failed run's output, where that has no log of its own.
    """

    code: int
    error: str = ""
    message: str = ""
    run_key: str = ""
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    printed: str = field(default="", repr=False)


class Executor(Protocol):
    """Runs one attempt in its workspace; a cancelled `run` ends the processes that it started."""

    async def run(self, deployed: Deployed, workspace: Workspace, *, timeout_s: float | None) -> Ended: ...

    async def close(self) -> None: ...
