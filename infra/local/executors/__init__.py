"""How a run becomes processes: `process` starts the script, `warm` keeps a worker that has the function loaded."""

from dataclasses import dataclass
from typing import Protocol

from infra.local.services import Deployed
from infra.local.workspace import Workspace


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: its exit status (negative: the signal), and the sentence that says why."""

    code: int
    error: str = ""
    message: str = ""
    run_key: str = ""


class Executor(Protocol):
    """Runs one attempt in its workspace; a cancelled `run` ends the processes that it started."""

    async def run(self, deployed: Deployed, workspace: Workspace, *, timeout_s: float | None) -> Ended: ...

    async def close(self) -> None: ...
