"""What happens, a line for each step: live on a terminal, once it is done elsewhere."""

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.cli.output import console

if TYPE_CHECKING:
    from rich.console import Console

    from infra.cli.demo.follow import Watch


class Steps:
    """Makes the steps of one run."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._console = console(stderr=True)

    def step(self, name: str) -> "Step":
        """A step, to be used in a `with`; what it says last stays."""
        return Step(self._console, name, silent=self._silent)

    def watch(self, say: "Step", doing: str) -> "Watch":
        """Say how far a job has come, as often as somebody looks."""

        def look(job: Mapping[str, Any]) -> None:
            progress = job.get("progress")
            share = f", {100 * progress['done'] / progress['total']:.0f} %" if progress and progress["total"] else ""
            again = f" (attempt {job['attempt']}: {job['reason']})" if job["state"] == "Retrying" else ""
            say(f"{'waiting' if job['state'] == 'Pending' else doing}{share}{again}")

        return look


class Step:
    """One line, with a spinner while it lasts."""

    def __init__(self, out: "Console", name: str, *, silent: bool) -> None:
        from rich.status import Status

        self._console = out
        self._name = name
        self._text = ""
        self._silent = silent
        self._status = None if silent or not out.is_terminal else Status("", console=out)

    def __enter__(self) -> "Step":
        if self._status:
            self._status.start()
        self("")
        return self

    def __call__(self, text: str) -> None:
        """Say how it goes."""
        from rich.text import Text

        self._text = text
        if self._status:
            self._status.update(Text(f"{self._name:18}{text}"[: shutil.get_terminal_size().columns - 3]))

    def __exit__(self, kind: object, *_: object) -> None:
        if self._status:
            self._status.stop()
        if kind is None and not self._silent:
            self._console.print(f"{self._name:20}{self._text}", markup=False)
